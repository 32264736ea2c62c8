//! A value on its way into a name: nothing that has a meaning at its place gets there from a value.

use std::borrow::Cow;

/// Where in what a template names a value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In a tag.
    Tag,
    /// In a segment of a path.
    Path,
    /// In the query behind a path.
    Query,
    /// In a key that is no path, `cache:search:7`, whose parts are told apart by colons.
    Name,
}

/// `text` with everything percent-encoded that would not be a part of a value at `place`.
pub(crate) fn encoded(text: &str, place: Place) -> Cow<'_, str> {
    if text.bytes().all(|byte| stands(byte, place)) {
        return Cow::Borrowed(text);
    }
    let mut all = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if stands(byte, place) {
            all.push(char::from(byte));
        } else {
            all.push('%');
            all.push(char::from(HEX[usize::from(byte >> 4)]));
            all.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    Cow::Owned(all)
}

/// Whether a byte of a value stays as it is (RFC 3986 §3.3, `pchar`; in a query without what parts it).
fn stands(byte: u8, place: Place) -> bool {
    match byte {
        byte if byte.is_ascii_alphanumeric() => true,
        b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b',' | b'@' => true,
        b'&' | b'=' | b'+' | b';' => place == Place::Path,
        b':' => place != Place::Name,
        _ => false,
    }
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";
