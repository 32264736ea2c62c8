//! The normal form of a request's target, so that one resource has one name.
//!
//! `/contacts/%37` and `/contacts/7` are equivalent (RFC 3986 §6.2.2.2) and reach the same handler, so an
//! invalidation of one must reach what is stored for the other. A path that was written by hand, with a
//! space or a letter that no URI has, stands for the one that a client would send.

use std::borrow::Cow;

/// `target` with percent-encoded unreserved characters decoded, the digits of all other encodings in
/// capitals, and what may not stand in a URI encoded. Allocates only where there is something to change.
#[must_use]
pub fn normal_form(target: &str) -> Cow<'_, str> {
    if target.bytes().all(|byte| byte != b'%' && may_stand(byte)) {
        return Cow::Borrowed(target);
    }
    let target = encoded(target);
    let mut normal = String::with_capacity(target.len());
    let mut rest = &*target;
    while let Some((plain, encoded)) = rest.split_once('%') {
        normal.push_str(plain);
        rest = match encoded.get(..2).and_then(byte_of) {
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    normal.push(char::from(byte));
                } else {
                    normal.push('%');
                    normal.extend(encoded[..2].chars().map(|digit| digit.to_ascii_uppercase()));
                }
                &encoded[2..]
            }
            // A `%` that encodes nothing stays what it is.
            None => {
                normal.push('%');
                encoded
            }
        };
    }
    normal.push_str(rest);
    Cow::Owned(normal)
}

/// `target` with everything encoded that may not stand in a URI (RFC 3986 §2).
fn encoded(target: &str) -> String {
    let mut all = String::with_capacity(target.len());
    for byte in target.bytes() {
        if may_stand(byte) {
            all.push(char::from(byte));
        } else {
            all.push('%');
            all.push(char::from(HEX[usize::from(byte >> 4)]));
            all.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    all
}

/// Reserved and unreserved characters, and the `%` itself.
const fn may_stand(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}'
        )
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn byte_of(digits: &str) -> Option<u8> {
    // `from_str_radix` would take a sign.
    let hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equivalent_targets_have_one_name() {
        for (target, normal) in [
            ("/contacts/7", "/contacts/7"),
            ("/contacts/%37", "/contacts/7"),
            ("/%7Eanna?q=%61", "/~anna?q=a"),
            ("/a%2fb", "/a%2Fb"),
            ("/100%", "/100%"),
            ("/%+1", "/%+1"),
            ("/%ä", "/%%C3%A4"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a b", "/a%20b"),
            ("/%2537", "/%2537"),
        ] {
            assert_eq!(normal_form(target), normal, "{target}");
        }
    }

    /// All percent-encodings decoded.
    fn decoded(target: &str) -> Vec<u8> {
        let mut parts = target.split('%');
        let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn the_meaning_stays_and_a_normal_form_is_its_own(target in "(%[0-9a-fA-F]{2}|[a-z/?]){0,12}") {
            let normal = normal_form(&target).into_owned();
            prop_assert_eq!(decoded(&normal), decoded(&target));
            prop_assert_eq!(&normal_form(&normal), &normal);
        }

        #[test]
        fn malformed_encodings_never_panic(target in "(%|[0-9a-f+]|ä){0,12}") {
            let _ = normal_form(&target);
        }
    }
}
