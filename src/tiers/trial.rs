//! Any bytes as an entry, for fuzzers: the unit test of the format and `fuzz/`. Only in tests and with the
//! feature `fault-injection`.

use bytes::Bytes;

use crate::tiers::frame::{self, Writing};
use crate::tiers::seal::Seals;

pub(crate) const KEY: &str = "reports:7";
/// Short, so that a length beyond it is common.
pub(crate) const BODY_MAX: usize = 1 << 16;

/// Whether all that is promised of the entry format holds of these bytes: reading them does not panic, no body is
/// longer than allowed, and what can be read is written and read again as the same.
///
/// The checksum would turn nearly all bytes away at the door, so they are tried a second time with what a
/// door looks at put right.
#[must_use]
#[doc(hidden)]
pub fn frame_holds(bytes: &[u8]) -> bool {
    let raw = Bytes::copy_from_slice(bytes);
    let mended = Bytes::from(mended(bytes));
    let seals = seals();
    let seals = [None, seals.as_ref()];
    let tried = |bytes: &Bytes| seals.iter().all(|seals| holds(bytes, *seals));
    tried(&raw) && tried(&mended)
}

fn holds(bytes: &Bytes, seals: Option<&Seals>) -> bool {
    let Ok((header, body)) = frame::decode(bytes, KEY, seals, BODY_MAX) else {
        return true;
    };
    let how = Writing {
        squeeze_above: body.len() / 2,
        seals,
    };
    let again = frame::encode(&header, KEY, &body, &how).map(Bytes::from);
    let again = again.map(|again| frame::decode(&again, KEY, seals, BODY_MAX));
    body.len() <= BODY_MAX
        && frame::peek(bytes) == Ok(header.stamp)
        && again == Ok(Ok((header, body)))
}

/// The same bytes with magic, version, lengths, key and checksum of a frame. A sealed one keeps its seal, which
/// cannot be put right.
pub(crate) fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    frame.resize(bytes.len().max(68 + KEY.len()), 0);
    let sealed = frame[5] & 4 != 0;
    let key = if sealed { "" } else { KEY };
    let rest = frame.len() - 68 - key.len();
    frame[..5].copy_from_slice(&[0xFA, b't', b'k', b'e', 1]);
    frame[5] &= 7;
    frame[7] &= 63;
    // Else one in two would be stale before it is not fresh.
    frame[47] |= 128;
    frame[39] &= 127;
    frame[52..56].copy_from_slice(&(key.len() as u32).to_le_bytes());
    frame[58] &= 1;
    frame[59] = 0;
    frame[60..64].copy_from_slice(&(rest as u32).to_le_bytes());
    frame[68..68 + key.len()].copy_from_slice(key.as_bytes());
    frame::write_checksum(&mut frame);
    frame
}

#[cfg(feature = "encryption")]
pub(crate) fn seals() -> Option<Seals> {
    use crate::tiers::seal_keys::SealKeys;

    Seals::of(&SealKeys::new(7, [7; 32]))
}

#[cfg(not(feature = "encryption"))]
pub(crate) const fn seals() -> Option<Seals> {
    None
}
