//! Names as parts of keys and lines: escaped, so that whatever a client is called, its name ends where it
//! ends.

use std::fmt::{self, Write};

/// `text` with everything percent-encoded (RFC 3986 §2.1) that is neither unreserved nor one of `:./`.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    // Cannot fail: it is written into memory.
    let _ = write_escaped(text, &mut safe);
    safe
}

/// Writes what [`escaped`] returns.
pub(crate) fn write_escaped(text: &str, safe: &mut impl Write) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            safe.write_char(char::from(byte))?;
        } else {
            safe.write_char('%')?;
            safe.write_char(digit(byte >> 4))?;
            safe.write_char(digit(byte & 15))?;
        }
    }
    Ok(())
}

/// What was escaped; anything that is no escape stands for itself. `None` if the bytes are no text.
pub(crate) fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escape = match (byte, behind) {
            (b'%', [high, low, behind @ ..]) => value(*high)
                .zip(value(*low))
                .map(|(high, low)| (high << 4 | low, behind)),
            _ => None,
        };
        let (byte, behind) = escape.unwrap_or((byte, behind));
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

fn digit(half: u8) -> char {
    char::from_digit(u32::from(half), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

fn value(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_plain_stands_for_itself() {
        for (text, safe) in [
            ("alice", "alice"),
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8::/64", "2001:db8::/64"),
            ("a@b.c d", "a%40b.c%20d"),
            ("{tag}", "%7Btag%7D"),
            ("50%", "50%25"),
            ("\u{e4}\n", "%C3%A4%0A"),
            ("", ""),
        ] {
            assert_eq!(escaped(text), safe);
            assert_eq!(unescaped(safe).as_deref(), Some(text));
        }
    }

    #[test]
    fn what_is_no_escape_stands_for_itself() {
        for (text, plain) in [
            ("a@b.c", Some("a@b.c")),
            ("50%", Some("50%")),
            ("%4", Some("%4")),
            ("%zz%4a", Some("%zzJ")),
            ("%ff", None),
        ] {
            assert_eq!(unescaped(text).as_deref(), plain, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_comes_back(text in any::<String>()) {
            let safe = escaped(&text);
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%".contains(&byte);
            prop_assert!(safe.bytes().all(plain));
            prop_assert_eq!(unescaped(&safe), Some(text));
        }
    }
}
