//! How an entry lies in Redis and in cold stores.
//!
//! Version 1, all numbers little endian:
//!
//! | at | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | `FA 74 6B 65`: no text begins with `FA`, so no other program's text is taken for an entry |
//! | 4 | 1 | version: 1 |
//! | 5 | 1 | flags: 1 negative, 2 squeezed (LZ4), 4 sealed |
//! | 6 | 1 | codec of the body |
//! | 7 | 1 | number of tags |
//! | 8 | 8 | stamp: `inc` |
//! | 16 | 8 | stamp: `seq` |
//! | 24 | 8 | made at, Unix time in ms |
//! | 32 | 8 | fresh until, Unix time in ms |
//! | 40 | 8 | may be served stale until, Unix time in ms |
//! | 48 | 4 | what it cost, in µs |
//! | 52 | 4 | length of the key; 0 if sealed |
//! | 56 | 4 | length of the body when unpacked |
//! | 60 | 4 | length of everything behind the key |
//! | 64 | 4 | CRC-32 (IEEE) of all other bytes |
//! | 68 | | the key |
//! | | | tags, each a length of 2 bytes and the text; then the body |
//!
//! Magic, version and stamp lie where they lie in every version to come, so that a script in Redis can
//! compare stamps whoever wrote them: `struct.unpack('<I8', value, 17)` is `seq` (exact below 2^53), and
//! `string.sub(value, 9, 16)` is `inc`.
//!
//! The key is in it because Redis' key may be a hash, and two keys with one hash must not share a value.
//! If sealed, the key is not stored: it is bound to the seal, as everything before the checksum is, and
//! tags and body are what is encrypted. They are squeezed first, as nothing encrypted gets shorter; so
//! whoever sees an entry's length learns how well it could be squeezed.
//!
//! The checksum is a CRC because a CRC finds *every* change of up to 32 bits in a row, and misses one in
//! four billion others; with the processor's instructions it takes 0.1 µs per KiB or less. It is no defence
//! against forgery; the seal is.

#![cfg_attr(
    not(test),
    deny(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::sync::Arc;

use bytes::Bytes;

use crate::journal::Stamp;
use crate::tiers::seal::{self, Seals};
use crate::tiers::squeeze;

/// What is known of an entry besides its key and its body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Header {
    /// Taken before its computation began.
    pub(crate) stamp: Stamp,
    /// When the computation ended, Unix time in ms.
    pub(crate) made_ms: u64,
    /// Unix time in ms.
    pub(crate) fresh_until_ms: u64,
    /// Unix time in ms, not before `fresh_until_ms`.
    pub(crate) stale_until_ms: u64,
    /// What computing it took, saturating.
    pub(crate) cost_us: u32,
    /// How the body is to be read.
    pub(crate) codec: u8,
    /// It says that there is nothing.
    pub(crate) negative: bool,
    /// At most [`TAGS_MAX`], each of at most [`TAG_BYTES_MAX`] bytes.
    pub(crate) tags: Vec<Arc<str>>,
}

/// How entries are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writing<'a> {
    /// Bodies longer than this are squeezed if that saves a fifth; 0: none.
    pub(crate) squeeze_above: usize,
    /// If there are any, entries are sealed.
    pub(crate) seals: Option<&'a Seals>,
}

/// Why an entry cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// More than [`TAGS_MAX`] tags, or one longer than [`TAG_BYTES_MAX`].
    Tags,
    /// Key, tags and body are longer than 4 GiB together.
    Length,
    /// It would be stale for good before it ceases to be fresh.
    Times,
    /// It could not be sealed: the system has no random numbers.
    Seal,
}

/// Why bytes are not the entry that was asked for. Each is a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nothing that this crate has written.
    Foreign,
    /// The beginning of an entry.
    Truncated,
    /// It was changed since it was written.
    Corrupt,
    /// A later version of this crate has written it.
    Newer,
    /// The entry of another key.
    OtherKey,
    /// It is sealed, and there are no keys, or none of its id, or it does not open: it is another key's,
    /// or was forged.
    Sealed,
    /// It is not sealed where all are: left from before, or slipped in by somebody without keys.
    Unsealed,
    /// The body is longer than is read.
    TooLarge,
}

/// Most tags of an entry.
pub(crate) const TAGS_MAX: usize = 64;
/// Longest tag, in bytes.
pub(crate) const TAG_BYTES_MAX: usize = 1024;

const MAGIC: [u8; 4] = [0xFA, b't', b'k', b'e'];
const VERSION: u8 = 1;
const NEGATIVE: u8 = 1;
const SQUEEZED: u8 = 2;
const SEALED: u8 = 4;
/// The fixed part up to the checksum, and with it.
const CHECKED: usize = 64;
const FIXED: usize = 68;

impl Unwritable {
    /// One word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Length => "length",
            Self::Times => "times",
            Self::Seal => "seal",
        }
    }
}

impl Unreadable {
    /// One word, for events.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Newer => "newer",
            Self::OtherKey => "other_key",
            Self::Sealed => "sealed",
            Self::Unsealed => "unsealed",
            Self::TooLarge => "too_large",
        }
    }
}

/// The entry as it is stored. Costs one allocation of its length, one more if it is squeezed or sealed.
pub(crate) fn encode(
    header: &Header,
    key: &str,
    body: &[u8],
    how: &Writing<'_>,
) -> Result<Vec<u8>, Unwritable> {
    let too_long = |tag: &Arc<str>| tag.len() > TAG_BYTES_MAX;
    if header.tags.len() > TAGS_MAX || header.tags.iter().any(too_long) {
        return Err(Unwritable::Tags);
    }
    if header.stale_until_ms < header.fresh_until_ms {
        return Err(Unwritable::Times);
    }
    let squeezed = squeeze::squeezed(body, how.squeeze_above);
    let stored = squeezed.as_deref().unwrap_or(body);
    let sealed = how.seals.is_some();
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let clear_key = if sealed { "" } else { key };
    let room = if sealed { seal::BEFORE } else { 0 };
    let lengths = [
        if sealed {
            room.saturating_add(seal::BEHIND)
        } else {
            0
        },
        stored.len(),
    ];
    let tag_lengths = header.tags.iter().map(|tag| tag.len().saturating_add(2));
    let rest = lengths.into_iter().chain(tag_lengths);
    let rest = rest.fold(0_usize, usize::saturating_add);
    let fixed = Fixed {
        flags: flag(header.negative, NEGATIVE)
            | flag(squeezed.is_some(), SQUEEZED)
            | flag(sealed, SEALED),
        key_len: length(clear_key.len())?,
        body_len: length(body.len())?,
        rest_len: length(rest)?,
    };
    let whole = FIXED.saturating_add(clear_key.len()).saturating_add(rest);
    let mut frame = Vec::with_capacity(whole);
    fixed.write(header, &mut frame)?;
    let bound = how.seals.map(|_| bound(&frame, key));
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(clear_key.as_bytes());
    frame.resize(frame.len().saturating_add(room), 0);
    for tag in &header.tags {
        let len = u16::try_from(tag.len()).map_err(|_| Unwritable::Tags)?;
        frame.extend_from_slice(&len.to_le_bytes());
        frame.extend_from_slice(tag.as_bytes());
    }
    frame.extend_from_slice(stored);
    if let (Some(seals), Some(bound)) = (how.seals, bound) {
        let sealing = seals.seal(bound, &mut frame, FIXED);
        sealing.map_err(|_| Unwritable::Seal)?;
    }
    write_checksum(&mut frame);
    Ok(frame)
}

/// Reads what [`encode`] has written for `key`, if the body is no longer than `body_max` bytes. A body that
/// is neither squeezed nor sealed is a slice of `bytes`.
///
/// No bytes make it panic, or allocate more than their own length, twice `body_max` and the tags.
pub(crate) fn decode(
    bytes: &Bytes,
    key: &str,
    seals: Option<&Seals>,
    body_max: usize,
) -> Result<(Header, Bytes), Unreadable> {
    let (fixed, mut header, tag_count) = Fixed::read(bytes)?;
    if usize_of(fixed.body_len) > body_max {
        return Err(Unreadable::TooLarge);
    }
    let plain = match (fixed.has(SEALED), seals) {
        (false, None) => unlocked(bytes, &fixed, key)?,
        (true, Some(seals)) => opened(bytes, &fixed, key, seals)?,
        (true, None) => return Err(Unreadable::Sealed),
        (false, Some(_)) => return Err(Unreadable::Unsealed),
    };
    let mut rest = &plain[..];
    header.tags = tags(&mut rest, tag_count).ok_or(Unreadable::Corrupt)?;
    let len = usize_of(fixed.body_len);
    let body = if fixed.has(SQUEEZED) {
        let body = squeeze::unsqueezed(rest, len).ok_or(Unreadable::Corrupt)?;
        Bytes::from(body)
    } else if rest.len() == len {
        plain.slice_ref(rest)
    } else {
        return Err(Unreadable::Corrupt);
    };
    Ok((header, body))
}

/// The stamp alone, of whatever version, unchecked: for comparing it with another one, as a script in
/// Redis does.
pub(crate) fn peek(bytes: &[u8]) -> Result<Stamp, Unreadable> {
    version(bytes)?;
    let mut reading = Reading(bytes.get(8..).ok_or(Unreadable::Truncated)?);
    let stamp = reading.array().ok_or(Unreadable::Truncated)?;
    Ok(Stamp::from_bytes(stamp))
}

/// Writes the right checksum into a whole frame.
pub(crate) fn write_checksum(frame: &mut [u8]) {
    let sum = checksum(frame).to_le_bytes();
    if let Some(at) = frame.get_mut(CHECKED..FIXED) {
        at.copy_from_slice(&sum);
    }
}

/// The fixed part's numbers that say how the frame is laid out.
struct Fixed {
    flags: u8,
    key_len: u32,
    body_len: u32,
    rest_len: u32,
}

impl Fixed {
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Everything before the checksum.
    fn write(&self, header: &Header, frame: &mut Vec<u8>) -> Result<(), Unwritable> {
        let tags = u8::try_from(header.tags.len()).map_err(|_| Unwritable::Tags)?;
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&[VERSION, self.flags, header.codec, tags]);
        frame.extend_from_slice(&header.stamp.to_bytes());
        for time in [header.made_ms, header.fresh_until_ms, header.stale_until_ms] {
            frame.extend_from_slice(&time.to_le_bytes());
        }
        for number in [header.cost_us, self.key_len, self.body_len, self.rest_len] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        Ok(())
    }

    /// The fixed part of a frame that is whole and unchanged, the header without its tags, and their number.
    fn read(bytes: &[u8]) -> Result<(Self, Header, u8), Unreadable> {
        match version(bytes)? {
            VERSION => {}
            0 => return Err(Unreadable::Corrupt),
            _ => return Err(Unreadable::Newer),
        }
        let reading = Reading(bytes.get(5..).unwrap_or_default());
        let (fixed, header, tags) = Self::parts(reading).ok_or(Unreadable::Truncated)?;
        let whole = [fixed.key_len, fixed.rest_len].map(usize_of);
        let whole = whole.into_iter().fold(FIXED, usize::saturating_add);
        if bytes.len() < whole {
            return Err(Unreadable::Truncated);
        }
        let sum = bytes.get(CHECKED..FIXED).unwrap_or_default();
        if bytes.len() > whole || checksum(bytes).to_le_bytes() != sum {
            return Err(Unreadable::Corrupt);
        }
        // Whole and unchanged, and yet nothing that this version writes: a later one's.
        if fixed.flags & !(NEGATIVE | SQUEEZED | SEALED) != 0 {
            return Err(Unreadable::Newer);
        }
        let sound = usize::from(tags) <= TAGS_MAX
            && header.fresh_until_ms <= header.stale_until_ms
            && !(fixed.has(SEALED) && fixed.key_len != 0);
        sound
            .then_some((fixed, header, tags))
            .ok_or(Unreadable::Corrupt)
    }

    fn parts(mut reading: Reading<'_>) -> Option<(Self, Header, u8)> {
        let [flags, codec, tags] = reading.array()?;
        let header = Header {
            stamp: Stamp::from_bytes(reading.array()?),
            made_ms: u64::from_le_bytes(reading.array()?),
            fresh_until_ms: u64::from_le_bytes(reading.array()?),
            stale_until_ms: u64::from_le_bytes(reading.array()?),
            cost_us: u32::from_le_bytes(reading.array()?),
            codec,
            negative: flags & NEGATIVE != 0,
            tags: Vec::new(),
        };
        let fixed = Self {
            flags,
            key_len: u32::from_le_bytes(reading.array()?),
            body_len: u32::from_le_bytes(reading.array()?),
            rest_len: u32::from_le_bytes(reading.array()?),
        };
        reading.array::<4>()?;
        Some((fixed, header, tags))
    }
}

/// What has not been read yet.
struct Reading<'a>(&'a [u8]);

impl<'a> Reading<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (slice, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(slice)
    }
}

/// The version of what begins as a frame does.
fn version(bytes: &[u8]) -> Result<u8, Unreadable> {
    match bytes.split_first_chunk() {
        Some((&MAGIC, rest)) => rest.first().copied().ok_or(Unreadable::Truncated),
        None if MAGIC.starts_with(bytes) => Err(Unreadable::Truncated),
        _ => Err(Unreadable::Foreign),
    }
}

/// What stands behind the key, if it is the key that was asked for.
fn unlocked(bytes: &Bytes, fixed: &Fixed, key: &str) -> Result<Bytes, Unreadable> {
    let mut reading = Reading(bytes.get(FIXED..).unwrap_or_default());
    let stored = reading.slice(usize_of(fixed.key_len));
    if stored != Some(key.as_bytes()) {
        return Err(Unreadable::OtherKey);
    }
    Ok(bytes.slice_ref(reading.0))
}

fn opened(bytes: &[u8], fixed: &Fixed, key: &str, seals: &Seals) -> Result<Bytes, Unreadable> {
    let (head, _) = bytes.split_at_checked(CHECKED).unwrap_or_default();
    let mut reading = Reading(bytes.get(FIXED..).unwrap_or_default());
    let sealed = reading.slice(usize_of(fixed.rest_len)).unwrap_or_default();
    let plain = seals.open(bound(head, key), sealed);
    plain.map(Bytes::from).ok_or(Unreadable::Sealed)
}

/// What a seal is bound to: the fixed part, which has one length, and the key.
fn bound(head: &[u8], key: &str) -> Vec<u8> {
    [head, key.as_bytes()].concat()
}

fn tags(rest: &mut &[u8], count: u8) -> Option<Vec<Arc<str>>> {
    let mut reading = Reading(rest);
    let mut tags = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let len = usize::from(u16::from_le_bytes(reading.array()?));
        let tag = (len <= TAG_BYTES_MAX).then(|| reading.slice(len))??;
        tags.push(Arc::from(std::str::from_utf8(tag).ok()?));
    }
    *rest = reading.0;
    Some(tags)
}

fn checksum(frame: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(frame.get(..CHECKED).unwrap_or_default());
    sum.update(frame.get(FIXED..).unwrap_or_default());
    sum.finalize()
}

fn length(len: usize) -> Result<u32, Unwritable> {
    u32::try_from(len).map_err(|_| Unwritable::Length)
}

/// On a machine of 16 bits a length may be beyond what there can be: then it is never reached.
fn usize_of(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
