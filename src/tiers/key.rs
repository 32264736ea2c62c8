//! What an entry of a typed cache is stored under.
//!
//! A key is one part or several. In its text the parts stand one behind the other, told apart by colons, and
//! whatever has a meaning in a name is percent-encoded within them: no value can be mistaken for another key.
//! It is the same encoding that invalidation rules and entities use for `report:{id}`, so what they purge is
//! what is stored.

use std::cell::Cell;
use std::fmt::Write;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::Equivalent;
use smol_str::SmolStr;

use crate::encoding::{Place, encoded};
use crate::tiers::hashed::HashedKey;

/// Can be the key of an entry: text, a number, or a tuple of up to six of them.
///
/// ```
/// use tower_keep::tiers::EntryKey;
///
/// assert_eq!("weekly".key_text(), "weekly");
/// assert_eq!((7, "weekly").key_text(), "7:weekly");
/// assert_eq!(("7:weekly",).key_text(), "7%3Aweekly", "a part is one part, whatever is in it");
/// ```
///
/// For a type of your own, write its parts:
///
/// ```
/// use tower_keep::tiers::{EntryKey, KeyText};
///
/// struct ReportId { year: u16, week: u8 }
///
/// impl EntryKey for ReportId {
///     fn write(&self, text: &mut KeyText) {
///         text.part(self.year).part(self.week);
///     }
/// }
/// assert_eq!(ReportId { year: 2026, week: 7 }.key_text(), "2026:7");
/// ```
pub trait EntryKey {
    /// Writes the parts, each with [`KeyText::part`].
    fn write(&self, text: &mut KeyText);

    /// The text as it is, where writing it would only copy it.
    fn plain(&self) -> Option<&str> {
        None
    }

    /// The text of the key: what stands behind the cache's name in `report:7:weekly`.
    fn key_text(&self) -> String {
        let mut text = KeyText::default();
        self.write(&mut text);
        text.text
    }
}

/// The text of a key, being written.
#[derive(Debug, Default)]
pub struct KeyText {
    text: String,
    begun: bool,
}

impl KeyText {
    /// Adds a part, encoded.
    pub fn part(&mut self, part: impl std::fmt::Display) -> &mut Self {
        self.begin();
        // Writing to a String does not fail.
        let _ = write!(Encoding(&mut self.text), "{part}");
        self
    }

    /// Adds a part of digits, which need no encoding.
    fn digits(&mut self, digits: &str) {
        self.begin();
        self.text.push_str(digits);
    }

    fn text(&mut self, part: &str) {
        self.begin();
        match part.plain() {
            Some(plain) => self.text.push_str(plain),
            None => self.text.push_str(&encoded(part, Place::Name)),
        }
    }

    /// Adds what was written before, as it is.
    pub(crate) fn written(&mut self, parts: &str) {
        self.begin();
        self.text.push_str(parts);
    }

    fn begin(&mut self) {
        if self.begun {
            self.text.push(':');
        }
        self.begun = true;
    }
}

/// Encodes what is written to it.
struct Encoding<'a>(&'a mut String);

impl Write for Encoding<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.push_str(&encoded(text, Place::Name));
        Ok(())
    }
}

thread_local! {
    /// Where texts are written that are only looked at: one allocation for all keys of a thread.
    static SPARE: Cell<String> = const { Cell::new(String::new()) };
}

/// A key's text is longer only where somebody sends it.
const SPARE_MAX: usize = 1 << 12;

/// Shows the text of a key without allocating, as a rule.
#[inline]
pub(crate) fn with_text<R>(key: &(impl EntryKey + ?Sized), see: impl FnOnce(&str) -> R) -> R {
    if let Some(plain) = key.plain() {
        return see(plain);
    }
    let mut text = KeyText {
        text: SPARE.take(),
        begun: false,
    };
    text.text.clear();
    key.write(&mut text);
    let seen = see(&text.text);
    if text.text.capacity() <= SPARE_MAX {
        SPARE.set(text.text);
    }
    seen
}

impl EntryKey for str {
    fn write(&self, text: &mut KeyText) {
        text.text(self);
    }

    #[inline]
    fn plain(&self) -> Option<&str> {
        is_plain(self.as_bytes()).then_some(self)
    }
}

/// Whether writing the text would change nothing. Every hit asks, so eight bytes are looked at together.
#[inline]
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |so_far: bool, byte: &u8| so_far & PLAIN[usize::from(*byte)];
    let (eights, rest) = bytes.as_chunks::<8>();
    let whole = eights.iter().all(|eight| eight.iter().fold(true, plain));
    whole && rest.iter().fold(true, plain)
}

/// Letters, digits and what commonly stands between them; each byte of the table stands for itself in a name.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < plain.len() {
        let it = byte as u8;
        plain[byte] = it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
        byte += 1;
    }
    plain
};

macro_rules! like_text {
    ($($type:ty),+) => {$(
        impl EntryKey for $type {
            fn write(&self, text: &mut KeyText) {
                text.text(self);
            }

            #[inline]
            fn plain(&self) -> Option<&str> {
                (**self).plain()
            }
        }
    )+};
}

like_text!(String, Arc<str>, Box<str>, std::borrow::Cow<'_, str>);

impl<K: EntryKey + ?Sized> EntryKey for &K {
    fn write(&self, text: &mut KeyText) {
        (**self).write(text);
    }

    #[inline]
    fn plain(&self) -> Option<&str> {
        (**self).plain()
    }
}

macro_rules! digits {
    ($($type:ty),+) => {$(
        impl EntryKey for $type {
            fn write(&self, text: &mut KeyText) {
                text.digits(itoa::Buffer::new().format(*self));
            }
        }
    )+};
}

digits!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize
);

impl EntryKey for bool {
    fn write(&self, text: &mut KeyText) {
        text.digits(if *self { "true" } else { "false" });
    }
}

macro_rules! tuples {
    ($($($part:ident)+;)+) => {$(
        impl<$($part: EntryKey),+> EntryKey for ($($part,)+) {
            #[expect(non_snake_case, reason = "a part is named as its type is")]
            fn write(&self, text: &mut KeyText) {
                let ($($part,)+) = self;
                $($part.write(text);)+
            }
        }
    )+};
}

tuples! {
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
}

/// The key of an entry in the hot tier: which cache, and the text. Compared in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HotKey {
    hash: u64,
    cache: u32,
    text: SmolStr,
}

/// The same, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotKeyView<'a> {
    pub(crate) hash: u64,
    pub(crate) cache: u32,
    pub(crate) text: &'a str,
}

impl HotKeyView<'_> {
    pub(crate) fn to_owned(self) -> HotKey {
        HotKey {
            hash: self.hash,
            cache: self.cache,
            text: self.text.into(),
        }
    }
}

impl HotKey {
    pub(crate) const fn cache(&self) -> u32 {
        self.cache
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl HashedKey for HotKey {
    fn hash_value(&self) -> u64 {
        self.hash
    }
}

impl Hash for HotKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for HotKeyView<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<HotKey> for HotKeyView<'_> {
    #[inline]
    fn equivalent(&self, key: &HotKey) -> bool {
        self.hash == key.hash && self.cache == key.cache && *self.text == *key.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_part_never_becomes_two() {
        assert_eq!(("a", "b").key_text(), "a:b");
        assert_eq!(("a:b",).key_text(), "a%3Ab");
        assert_eq!("a b\n{}".key_text(), "a%20b%0A%7B%7D");
        assert_eq!((-1_i8, true, 7_u64).key_text(), "-1:true:7");
        assert_eq!(("", "").key_text(), ":");
        assert_eq!("".key_text(), "");
    }

    #[test]
    fn text_that_means_nothing_is_taken_as_it_is() {
        for (text, plain) in [
            ("weekly", true),
            ("a:b", false),
            ("é", false),
            ("a%b", false),
        ] {
            assert_eq!(text.plain().is_some(), plain, "{text}");
            with_text(text, |seen| assert_eq!(seen, text.key_text()));
        }
        let long = "x:".repeat(10 << 10);
        with_text(&long, |seen| assert_eq!(seen, long.key_text()));
        with_text(&(1, 2), |seen| assert_eq!(seen, "1:2"));
        // Asked for a key while another one is looked at.
        with_text(&(1, 2), |outer| {
            with_text(&(3, 4), |inner| assert_eq!((outer, inner), ("1:2", "3:4")));
        });
    }

    proptest! {
        #[test]
        fn different_parts_have_different_texts(
            one in proptest::collection::vec(".{0,6}", 1..4),
            other in proptest::collection::vec(".{0,6}", 1..4),
        ) {
            let text = |parts: &[String]| {
                let mut text = KeyText::default();
                for part in parts {
                    text.part(part);
                }
                text.text
            };
            prop_assert_eq!(one == other, text(&one) == text(&other));
        }

        #[test]
        fn plain_text_is_what_would_be_written(text in ".{0,20}") {
            with_text(&*text, |seen| assert_eq!(seen, text.key_text()));
        }
    }
}
