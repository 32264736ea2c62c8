//! The literal pieces that no key can lack if a pattern matches it, and how a key is searched for them.
//!
//! Keys and patterns are cut into segments at `:` `/` `?` `&` `=` `,` `;` `|` `#` and space. Nothing
//! depends on what these bytes mean, only on cutting both alike.

use crate::pattern::Pattern;

/// By which piece of a key a pattern is found; the cheapest way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A whole segment.
    Segment,
    /// This many bytes at the key's begin.
    Prefix(usize),
    /// This many bytes at the key's end.
    Suffix(usize),
    /// This many bytes anywhere.
    Infix(usize),
    /// For patterns of nothing but stars: the piece without a byte, which every key has.
    Everything,
}

/// The ways by which some pattern is found, so that a key is searched for nothing else.
#[derive(Debug, Default)]
pub(crate) struct Ways(Vec<InUse>);

#[derive(Debug)]
struct InUse {
    way: Way,
    /// The largest number of a pattern that is found this way.
    youngest: u64,
}

impl Way {
    /// Whether `hit` is true of a piece that `key` has in this way. Stops at the first one. A piece that
    /// the key has twice may come twice.
    #[inline]
    pub(crate) fn any_piece(self, key: &[u8], mut hit: impl FnMut(&[u8]) -> bool) -> bool {
        match self {
            Self::Segment => segments(key).any(hit),
            Self::Prefix(len) => key.get(..len).is_some_and(hit),
            Self::Suffix(len) => {
                let start = key.len().checked_sub(len);
                start.is_some_and(|start| hit(&key[start..]))
            }
            Self::Infix(len) => key.windows(len).any(hit),
            Self::Everything => hit(&[]),
        }
    }

    /// Tells pieces of the same bytes apart. The length is no part of it, because the bytes have one.
    pub(crate) const fn kind(self) -> u8 {
        match self {
            Self::Segment => 0,
            Self::Prefix(_) => 1,
            Self::Suffix(_) => 2,
            Self::Infix(_) => 3,
            Self::Everything => 4,
        }
    }
}

impl Ways {
    /// Notes that a pattern of the number `seq` is found this way.
    pub(crate) fn note(&mut self, way: Way, seq: u64) {
        match self.0.iter_mut().find(|in_use| in_use.way == way) {
            Some(in_use) => in_use.youngest = in_use.youngest.max(seq),
            None => self.0.push(InUse { way, youngest: seq }),
        }
    }

    /// The ways that lead to a pattern younger than `born`.
    pub(crate) fn younger(&self, born: u64) -> impl Iterator<Item = Way> {
        let younger = self.0.iter().filter(move |in_use| in_use.youngest > born);
        younger.map(|in_use| in_use.way)
    }

    /// What a way costs beside the comparisons with the patterns at its end, in such comparisons. Most of
    /// it is the search of every key, so it falls on the first pattern that is found this way.
    pub(crate) fn price(&self, way: Way) -> usize {
        let known = self.0.iter().any(|in_use| in_use.way == way);
        match way {
            Way::Segment | Way::Everything => 0,
            Way::Prefix(_) | Way::Suffix(_) | Way::Infix(_) if known => 1,
            Way::Prefix(_) | Way::Suffix(_) => END_PRICE,
            Way::Infix(_) => INFIX_PRICE,
        }
    }

    /// Offers the segments of `pattern`, its begin and its end.
    pub(crate) fn offer_cheap<'p>(
        &self,
        pattern: &'p Pattern,
        mut offer: impl FnMut(Way, &'p [u8]),
    ) {
        let runs = pattern.runs();
        let last = runs.len().saturating_sub(1);
        for (at, run) in runs.iter().enumerate() {
            for segment in complete_segments(run, at > 0, at < last) {
                offer(Way::Segment, segment);
            }
        }
        if let [begin, .., end] | [begin @ end] = runs {
            let (begin, end) = (begin.as_bytes(), end.as_bytes());
            if let Some(len) = self.longest(Way::Prefix, begin.len()) {
                offer(Way::Prefix(len), &begin[..len]);
            }
            if let Some(len) = self.longest(Way::Suffix, end.len()) {
                offer(Way::Suffix(len), &end[end.len() - len..]);
            }
        }
    }

    /// The longest begin or end of a run of `len` bytes that may be looked for: all of it, unless too many
    /// lengths are in use already. Never nothing, which all keys begin with.
    fn longest(&self, way: fn(usize) -> Way, len: usize) -> Option<usize> {
        let lengths = self.0.iter().filter_map(|in_use| match in_use.way {
            Way::Prefix(len) | Way::Suffix(len) if in_use.way == way(len) => Some(len),
            _ => None,
        });
        if lengths.clone().count() < LENGTHS_MAX {
            return Some(len).filter(|len| *len > 0);
        }
        lengths.filter(|used| *used <= len).max()
    }
}

/// Offers what `pattern` has somewhere in a key.
pub(crate) fn offer_infixes<'p>(pattern: &'p Pattern, mut offer: impl FnMut(Way, &'p [u8])) {
    for run in pattern.runs() {
        for &len in infix_lengths(run.len()) {
            for piece in run.as_bytes().windows(len) {
                offer(Way::Infix(len), piece);
            }
        }
    }
}

#[inline]
fn segments(text: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    text.split(|byte| {
        matches!(
            byte,
            b':' | b'/' | b'?' | b'&' | b'=' | b',' | b';' | b'|' | b'#' | b' '
        )
    })
}

/// The segments of a literal run that no star can make longer: without the first one if there is a star
/// before the run, and without the last one if there is a star behind it. In `/users/7*` only `users` is
/// complete (and the empty one before it): the key may be `/users/77`.
fn complete_segments(run: &str, after: bool, before: bool) -> impl Iterator<Item = &[u8]> {
    let mut all = segments(run.as_bytes());
    if after {
        all.next();
    }
    if before {
        all.next_back();
    }
    all
}

/// How many bytes of a run of `len` bytes are looked for anywhere in a key. Few different numbers, since
/// each one in use is another walk over the key; long ones, since few keys hold them by chance.
const fn infix_lengths(len: usize) -> &'static [usize] {
    match len {
        0 => &[],
        1 => &[1],
        2 => &[2],
        3 => &[3],
        4..8 => &[4],
        _ => &[4, 8],
    }
}

/// As many different lengths of begins, and of ends, are looked for in each key. Others are cut.
const LENGTHS_MAX: usize = 16;

/// A look for a begin or an end takes about as long as a comparison or two.
const END_PRICE: usize = 2;

/// Looking everywhere in a key takes about as long as this many comparisons.
const INFIX_PRICE: usize = 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offers(pattern: &str) -> Vec<(Way, String)> {
        let pattern = Pattern::parse(pattern).unwrap();
        let mut all = Vec::new();
        let text = |piece: &[u8]| String::from_utf8_lossy(piece).into_owned();
        Ways::default().offer_cheap(&pattern, |way, piece| all.push((way, text(piece))));
        all
    }

    fn offered_segments(pattern: &str) -> Vec<String> {
        let segments = offers(pattern).into_iter();
        segments
            .filter(|(way, _)| *way == Way::Segment)
            .map(|(_, text)| text)
            .collect()
    }

    #[test]
    fn only_a_segment_that_no_star_can_make_longer_is_complete() {
        for (pattern, complete) in [
            ("report:*:7:*", &["report", "7"][..]),
            ("/users/7*", &["", "users"]),
            ("*7/edit", &["edit"]),
            ("search?*q=word*", &["search"]),
            ("*:7*", &[]),
            ("*7:*", &[]),
            ("*:*", &[]),
            ("*::*", &[""]),
            ("a*b", &[]),
            ("a:*:b", &["a", "b"]),
            ("a,b c;d|e#f=g&h", &["a", "b", "c", "d", "e", "f", "g", "h"]),
            (r"\*:*", &["*"]),
            ("**", &[]),
        ] {
            assert_eq!(offered_segments(pattern), complete, "{pattern}");
        }
    }

    #[test]
    fn begins_and_ends_are_offered_unless_they_are_nothing() {
        assert!(offers("ab*cde").ends_with(&[
            (Way::Prefix(2), "ab".to_owned()),
            (Way::Suffix(3), "cde".to_owned())
        ]));
        assert_eq!(offers("*a*"), []);
    }

    #[test]
    fn of_many_lengths_the_longest_in_use_is_taken() {
        let mut ways = Ways::default();
        for len in 1..=LENGTHS_MAX {
            assert_eq!(ways.longest(Way::Prefix, 2 * len), Some(2 * len));
            ways.note(Way::Prefix(2 * len), 1);
        }
        assert_eq!(ways.longest(Way::Prefix, 7), Some(6));
        assert_eq!(ways.longest(Way::Prefix, 1), None);
        assert_eq!(ways.longest(Way::Prefix, 1000), Some(2 * LENGTHS_MAX));
        assert_eq!(ways.longest(Way::Suffix, 7), Some(7), "ends have their own");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What the whole index stands on: whatever of a pattern it is filed under, a key that matches
        /// leads there.
        #[test]
        fn a_key_that_matches_has_every_piece_that_is_offered(
            text in r"[ab*:/é]{1,12}|[ab]{0,9}\*[ab:]{0,9}\*[ab:é]{0,9}|(\\[*\\]|[a*:]){1,6}",
            fillings in prop::collection::vec(r"[ab:/é*\\]{0,3}", 12), in_use in 0usize..30,
        ) {
            let pattern = Pattern::parse(&text).unwrap();
            let mut ways = Ways::default();
            for len in 1..in_use {
                ways.note(Way::Prefix(len), 1);
                ways.note(Way::Suffix(len), 1);
            }
            let mut key = String::new();
            for (at, run) in pattern.runs().iter().enumerate() {
                if at > 0 {
                    key.push_str(&fillings[at - 1]);
                }
                key.push_str(run);
            }
            prop_assert!(pattern.matches(&key));
            let mut missed = Vec::new();
            let mut check = |way: Way, piece: &[u8]| {
                if !way.any_piece(key.as_bytes(), |found| found == piece) {
                    missed.push((way, piece.to_vec()));
                }
            };
            ways.offer_cheap(&pattern, &mut check);
            offer_infixes(&pattern, &mut check);
            prop_assert!(missed.is_empty(), "{} lacks {:?}", key, missed);
            let mut some = pattern.is_everything();
            offer_infixes(&pattern, |_, _| some = true);
            prop_assert!(some, "there is always something to be found by");
        }
    }
}
