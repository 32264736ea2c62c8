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
use crate::tiers::unreadable::{Unreadable, Unwritable};

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
#[cfg(any(test, feature = "fault-injection"))]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tiers::trial::{BODY_MAX, KEY, frame_holds, mended, seals};

    const PLAIN: Writing<'_> = Writing {
        squeeze_above: 0,
        seals: None,
    };
    const SQUEEZE: Writing<'_> = Writing {
        squeeze_above: 64,
        seals: None,
    };

    fn header() -> Header {
        Header {
            stamp: Stamp::stored(0x0102_0304_0506_0708, 42),
            made_ms: 1_700_000_000_000,
            fresh_until_ms: 1_700_000_060_000,
            stale_until_ms: 1_700_003_600_000,
            cost_us: 1500,
            codec: 2,
            negative: false,
            tags: vec![Arc::from("report:7"), Arc::from("ü")],
        }
    }

    fn body() -> Vec<u8> {
        b"the same again, ".repeat(32)
    }

    fn written(header: &Header, body: &[u8], how: &Writing<'_>) -> Vec<u8> {
        encode(header, KEY, body, how).unwrap()
    }

    fn read(frame: &[u8]) -> Result<(Header, Bytes), Unreadable> {
        decode(&Bytes::copy_from_slice(frame), KEY, None, BODY_MAX)
    }

    /// Frames of every kind that can be read without keys.
    fn kinds() -> Vec<Vec<u8>> {
        let bare = Header {
            negative: true,
            tags: Vec::new(),
            ..header()
        };
        vec![
            written(&header(), b"short", &PLAIN),
            written(&header(), &body(), &SQUEEZE),
            written(&bare, b"", &PLAIN),
        ]
    }

    /// xorshift64*: the same numbers in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below.max(1)
        }

        /// A number that is often at an edge.
        fn byte(&mut self) -> u8 {
            let edges = [0, 1, 127, 128, 255];
            let at = self.roll(10);
            edges
                .get(at)
                .copied()
                .unwrap_or_else(|| self.roll(256) as u8)
        }
    }

    const GOLDEN_PLAIN: &str = "fa746b6501000202 0807060504030201 2a00000000000000 0068e5cf8b010000 \
        6052e6cf8b010000 80561cd08b010000 dc050000 09000000 05000000 13000000 3238a449 \
        7265706f7274733a37 0800 7265706f72743a37 0200 c3bc 73686f7274";
    const GOLDEN_SQUEEZED: &str = "fa746b6501020202 0807060504030201 2a00000000000000 \
        0068e5cf8b010000 6052e6cf8b010000 80561cd08b010000 dc050000 09000000 00020000 2b000000 \
        99bba47d 7265706f7274733a37 0800 7265706f72743a37 0200 c3bc \
        ff017468652073616d6520616761696e2c201000ffd8606761696e2c20";
    #[cfg(feature = "encryption")]
    const GOLDEN_SEALED: &str = "fa746b6501060202 0807060504030201 2a00000000000000 \
        0068e5cf8b010000 6052e6cf8b010000 80561cd08b010000 dc050000 00000000 00020000 57000000 \
        88d2d2b0 07000000 b8da00edb9d1e403d7d2f0ada0b95dcbdf67249c1551231c \
        ea9c2a4b02575b0d15b156bf61a587fee253b7c8ad64d38ad5b4a2f0577df3778d77cd9f044ea232ca1067 \
        50d5a5933bdc86b3828c77e12f55aae1";

    fn unhex(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .collect();
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).unwrap();
            u8::from_str_radix(pair, 16).unwrap()
        };
        digits.chunks(2).map(byte).collect()
    }

    /// Frames of every kind and the keys that they are read with.
    fn golden() -> Vec<(Vec<u8>, Option<Seals>)> {
        #[cfg_attr(
            not(feature = "encryption"),
            expect(unused_mut, reason = "one is sealed")
        )]
        let mut golden: Vec<_> = kinds().into_iter().map(|frame| (frame, None)).collect();
        #[cfg(feature = "encryption")]
        golden.push((unhex(GOLDEN_SEALED), seals()));
        golden
    }

    #[test]
    fn version_1_is_what_it_was() {
        assert_eq!(written(&header(), b"short", &PLAIN), unhex(GOLDEN_PLAIN));
        // LZ4 may be written otherwise one day, and sealed bytes always are: they need only be read.
        let squeezed = read(&unhex(GOLDEN_SQUEEZED));
        assert_eq!(squeezed, Ok((header(), body().into())));
        #[cfg(feature = "encryption")]
        {
            let sealed = unhex(GOLDEN_SEALED).into();
            let sealed = decode(&sealed, KEY, seals().as_ref(), BODY_MAX);
            assert_eq!(sealed, Ok((header(), body().into())));
        }
    }

    #[test]
    fn a_script_finds_the_stamp_where_every_version_has_it() {
        let mut frame = unhex(GOLDEN_PLAIN);
        assert_eq!(frame[8..24], header().stamp.to_bytes());
        assert_eq!(peek(&frame), Ok(header().stamp));
        frame[4] = 9;
        assert_eq!(peek(&frame[..24]), Ok(header().stamp));
        assert_eq!(peek(&frame[..23]), Err(Unreadable::Truncated));
        assert_eq!(peek(b"{\"a\":1}"), Err(Unreadable::Foreign));
    }

    #[test]
    fn a_body_that_is_neither_squeezed_nor_sealed_is_not_copied() {
        let frame = Bytes::from(written(&header(), &body(), &PLAIN));
        let (_, body) = decode(&frame, KEY, None, BODY_MAX).unwrap();
        assert!(frame.as_ptr_range().contains(&body.as_ptr()));
    }

    /// Where it lies, what is put there, whether the checksum is made right again, and what comes of it.
    type Damage = (usize, &'static [u8], bool, Unreadable);

    #[test]
    fn every_kind_of_damage_has_its_name() {
        use Unreadable::{Corrupt, Foreign, Newer, OtherKey, Sealed, TooLarge, Truncated};
        let table: &[Damage] = &[
            (0, b"{", true, Foreign),
            (3, b"E", true, Foreign),
            (4, &[0], true, Corrupt),
            (4, &[2], false, Newer),
            (5, &[8], true, Newer),
            (5, &[8], false, Corrupt),
            (5, &[SQUEEZED], true, Corrupt),
            (5, &[SEALED], true, Corrupt),
            (7, &[3], true, Corrupt),
            (7, &[65], true, Corrupt),
            (8, &[9], false, Corrupt),
            (32, &[0xFF; 8], true, Corrupt),
            (52, &[8], true, Truncated),
            (52, &[10], true, Truncated),
            (52, &[0xFF; 4], true, Truncated),
            (56, &[4], true, Corrupt),
            (56, &[6], true, Corrupt),
            (56, &[0xFF; 4], true, TooLarge),
            (60, &[18], true, Corrupt),
            (60, &[0xFF; 4], true, Truncated),
            (64, &[0], false, Corrupt),
            (68, b"R", true, OtherKey),
            (68, b"R", false, Corrupt),
            (77, &[9], true, Corrupt),
            (77, &[1, 4], true, Corrupt),
            (89, &[0xFF], true, Corrupt),
        ];
        for (at, bytes, right, expected) in table {
            let mut frame = unhex(GOLDEN_PLAIN);
            frame[*at..*at + bytes.len()].copy_from_slice(bytes);
            if *right {
                write_checksum(&mut frame);
            }
            // A key that is a byte shorter leaves the frame a byte too long.
            let expected = if (*at, bytes[0]) == (52, 8) {
                Corrupt
            } else {
                *expected
            };
            assert_eq!(read(&frame), Err(expected), "{bytes:?} at {at}");
        }
        let mut unopened = unhex(GOLDEN_PLAIN);
        unopened[5] = SEALED;
        unopened[52] = 0;
        unopened[60] = 28;
        write_checksum(&mut unopened);
        assert_eq!(read(&unopened), Err(Sealed));
        let whole = unhex(GOLDEN_PLAIN);
        let at_most = |max| decode(&Bytes::copy_from_slice(&whole), KEY, None, max).map(drop);
        assert_eq!((at_most(5), at_most(4)), (Ok(()), Err(TooLarge)));
    }

    #[test]
    fn what_others_store_is_foreign() {
        let others: &[&[u8]] = &[
            b"1",
            b"null",
            b"{\"a\":1}",
            b"\x1f\x8b\x08",
            b"\xfb",
            b"tke\xfa",
        ];
        for other in others {
            assert_eq!(read(other), Err(Unreadable::Foreign), "{other:?}");
            let long = [*other, &[0; 100]].concat();
            assert_eq!(read(&long), Err(Unreadable::Foreign), "{other:?}");
        }
        assert_eq!(read(b""), Err(Unreadable::Truncated));
    }

    #[test]
    fn no_bit_can_flip_and_no_end_be_missing() {
        for (frame, seals) in golden() {
            let read = |frame: Vec<u8>| decode(&frame.into(), KEY, seals.as_ref(), BODY_MAX);
            assert!(read(frame.clone()).is_ok());
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(read(flipped).is_err(), "bit {bit}");
            }
            for len in 0..frame.len() {
                let cut = read(frame[..len].to_vec());
                assert_eq!(cut, Err(Unreadable::Truncated), "{len}");
            }
            let longer = [&frame[..], &[0]].concat();
            assert_eq!(read(longer), Err(Unreadable::Corrupt));
        }
    }

    #[test]
    fn the_entry_of_another_key_is_refused_even_under_its_own_hash() {
        for frame in kinds() {
            for other in ["reports:8", "reports:", "reports:77", ""] {
                let read = decode(&frame.clone().into(), other, None, BODY_MAX);
                assert_eq!(read, Err(Unreadable::OtherKey), "{other}");
            }
        }
    }

    #[cfg(feature = "encryption")]
    #[test]
    fn a_sealed_entry_shows_neither_key_nor_tags_nor_body_and_opens_for_its_key_only() {
        let seals = seals();
        let how = Writing {
            squeeze_above: 0,
            seals: seals.as_ref(),
        };
        let frame = written(&header(), b"a body with a secret", &how);
        for hidden in [&b"secret"[..], b"report"] {
            assert!(!frame.windows(hidden.len()).any(|part| part == hidden));
        }
        let read = |frame: Vec<u8>, key, seals| decode(&frame.into(), key, seals, BODY_MAX);
        let opened = read(frame.clone(), KEY, seals.as_ref()).unwrap();
        assert_eq!(opened, (header(), "a body with a secret".into()));
        let refused = Err(Unreadable::Sealed);
        assert_eq!(read(frame.clone(), KEY, None), refused);
        assert_eq!(read(frame.clone(), "reports:8", seals.as_ref()), refused);
        // Whoever can write to Redis can make the checksum right, and still not make an old entry new.
        for at in (5..64).chain(68..frame.len()) {
            let mut forged = frame.clone();
            forged[at] ^= 1;
            write_checksum(&mut forged);
            assert!(read(forged, KEY, seals.as_ref()).is_err(), "{at}");
        }
        let slipped_in = written(&header(), b"mine", &PLAIN);
        let read = read(slipped_in, KEY, seals.as_ref());
        assert_eq!(read, Err(Unreadable::Unsealed));
    }

    /// A frame that says of itself that it is `len` bytes, squeezed into a few.
    fn announcing(len: u32) -> Bytes {
        let mut frame = written(&header(), &body(), &SQUEEZE);
        frame[56..60].copy_from_slice(&len.to_le_bytes());
        write_checksum(&mut frame);
        frame.into()
    }

    #[test]
    fn a_huge_length_is_refused_before_anything_is_allocated() {
        // An allocation of 4 GiB of zeros may well succeed, so what is tested is the reason.
        for max in [0, 511, BODY_MAX] {
            let read = decode(&announcing(u32::MAX), KEY, None, max);
            assert_eq!(read, Err(Unreadable::TooLarge));
        }
        let read = decode(&announcing(u32::MAX), KEY, None, usize::MAX);
        assert_eq!(read, Err(Unreadable::Corrupt), "more than LZ4 can mean");
    }

    #[test]
    fn what_cannot_be_read_is_not_written() {
        let tags = |count: usize, len: usize| Header {
            tags: vec!["t".repeat(len).into(); count],
            ..header()
        };
        let try_write = |header: &Header| encode(header, KEY, b"", &PLAIN).map(drop);
        assert_eq!(try_write(&tags(65, 1)), Err(Unwritable::Tags));
        assert_eq!(try_write(&tags(1, 1025)), Err(Unwritable::Tags));
        let most = tags(64, 1024);
        let frame = written(&most, b"", &PLAIN);
        assert_eq!(read(&frame), Ok((most, Bytes::new())));
        let backwards = Header {
            stale_until_ms: 0,
            ..header()
        };
        assert_eq!(try_write(&backwards), Err(Unwritable::Times));
    }

    #[test]
    fn ten_thousand_random_strings_are_no_entries() {
        let mut dice = Dice(7);
        for _ in 0..10_000 {
            let len = dice.roll(300);
            let mut bytes: Vec<u8> = (0..len).map(|_| dice.byte()).collect();
            assert!(read(&bytes).is_err());
            // And with the beginning of an entry, so that more than the magic says so.
            let start = unhex(GOLDEN_PLAIN);
            let start = &start[..dice.roll(68).min(len)];
            bytes[..start.len()].copy_from_slice(start);
            assert!(read(&bytes).is_err());
        }
    }

    /// Changes a few bytes, cuts, grows or moves others.
    fn mutated(dice: &mut Dice, frame: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        for _ in 0..=dice.roll(4) {
            let (at, to) = (dice.roll(bytes.len()), dice.roll(bytes.len()));
            match dice.roll(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << dice.roll(8),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, dice.byte()),
                3 => bytes.extend_from_slice(&frame[..dice.roll(frame.len())]),
                4 if !bytes.is_empty() => bytes.swap(at, to),
                _ if !bytes.is_empty() => bytes[at] = dice.byte(),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn a_hundred_thousand_mutations_are_refused_and_with_a_right_checksum_do_no_harm() {
        let golden = golden();
        let mut dice = Dice(11);
        let (mut decoded, mut refused) = (0, 0);
        for turn in 0..100_000 {
            let (frame, seals) = &golden[turn % golden.len()];
            let bytes = mutated(&mut dice, frame);
            if bytes != *frame {
                let read = decode(&bytes.clone().into(), KEY, seals.as_ref(), BODY_MAX);
                assert!(read.is_err(), "{bytes:?}");
            }
            assert!(frame_holds(&bytes), "{bytes:?}");
            match read(&mended(&bytes)) {
                Ok(_) => decoded += 1,
                Err(_) => refused += 1,
            }
        }
        // Or the fuzzer does not reach what lies behind the checksum.
        assert!(decoded > 5_000 && refused > 5_000, "{decoded} {refused}");
    }

    prop_compose! {
        fn headers()(
            (inc, seq, made_ms) in any::<(u64, u64, u64)>(),
            times in any::<(u64, u64)>(),
            (cost_us, codec, negative) in any::<(u32, u8, bool)>(),
            tags in prop::collection::vec("\\PC{0,20}", 0..5),
        ) -> Header {
            Header {
                stamp: Stamp::stored(inc, seq),
                made_ms,
                fresh_until_ms: times.0.min(times.1),
                stale_until_ms: times.0.max(times.1),
                cost_us,
                codec,
                negative,
                tags: tags.into_iter().map(Arc::from).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(
            header in headers(),
            key in "\\PC{0,40}",
            body in prop::collection::vec(0_u8..4, 0..2000),
            squeeze_above in 0_usize..1000,
            sealed in any::<bool>(),
        ) {
            let seals = seals().filter(|_| sealed);
            let how = Writing { squeeze_above, seals: seals.as_ref() };
            let frame = Bytes::from(encode(&header, &key, &body, &how).unwrap());
            prop_assert_eq!(peek(&frame), Ok(header.stamp));
            let read = decode(&frame, &key, seals.as_ref(), body.len());
            prop_assert_eq!(read, Ok((header, body.into())));
        }
    }
}
