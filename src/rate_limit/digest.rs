//! Names that are secret or long, told by their digest.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The first half of a SHA-256: 128 bits, of which no two names have the same by chance, and which do not
/// lead back to a key that could not be guessed.
pub(crate) type Digest = [u8; 16];

/// The digest of a name; the same on every machine. Takes some 100 ns and allocates nothing.
pub(crate) fn digest(name: &str) -> Digest {
    let whole = Sha256::digest(name.as_bytes());
    let mut half = Digest::default();
    for (place, byte) in half.iter_mut().zip(whole) {
        *place = byte;
    }
    half
}

/// Writes a digest as 32 hexadecimal digits: those that `printf %s KEY | sha256sum` begins with.
pub(crate) fn write_hex(digest: &Digest, text: &mut impl fmt::Write) -> fmt::Result {
    digest
        .iter()
        .try_for_each(|byte| write!(text, "{byte:02x}"))
}

/// Reads 32 hexadecimal digits.
pub(crate) fn parse_hex(text: &str) -> Option<Digest> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_begins_with() {
        let mut text = String::new();
        write_hex(&digest("sk_live_1"), &mut text).unwrap();
        assert_eq!(text, "992621cb15795f3e17e7e637aad64ef2");
        assert_eq!(parse_hex(&text), Some(digest("sk_live_1")));
        assert_eq!(parse_hex(&text.to_uppercase()), Some(digest("sk_live_1")));
        for wrong in ["", &text[1..], &format!("{text}0"), &text.replace('1', "+")] {
            assert_eq!(parse_hex(wrong), None, "{wrong}");
        }
    }
}
