//! Patterns that were invalidated, found by a piece of the key instead of compared one by one.
//!
//! A list of patterns costs every look-up a comparison with each of them. Here a pattern is filed under
//! one literal piece that no matching key can lack, and a key is compared only with what is filed under
//! its own pieces. Which piece: the one with the fewest patterns so far, which for `report:*:{id}:*` is
//! the id. [`Pattern::matches`] has the last word, so a piece (or a hash) that two patterns share
//! costs time and never truth.
//!
//! The ways to find a pattern, cheapest first:
//!
//! - By a *complete* segment: both its ends are a separator in the same literal run, or the pattern's
//!   own begin or end. Then it is a segment of each key that matches. In `/users/7*` only `users` is
//!   complete: the key may be `/users/77`.
//! - By how keys begin or end (`abc*`, `*.json`): one look for each length in use.
//! - By 1, 2, 3, 4 or 8 literal bytes anywhere (`*foo*`): a look for every place in the key, hence only
//!   if the other pieces are crowded, and nothing at all while no such pattern is filed.
//! - Only stars: looked at for each key.
//!
//! With 100,000 patterns a key of 40 bytes that none of them matches takes about 50 ns by segments, 80 ns by
//! begins and 230 ns by bytes anywhere. One that matches takes some 600 ns, nearly all of it waiting for
//! memory: the place, what is filed there and its texts are far apart. But then a computation follows.
//!
//! A hostile set of patterns may share all its pieces: `*:a*b*c:*` with the letters permuted, say.
//! Then a look-up compares as many patterns as a list would. It never compares more than twice as
//! many, whatever the key, because a key that leads to crowded places again and again (`a:a:a:a`) ends
//! in one walk over all patterns.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::mem;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::journal::pieces::{Way, Ways, offer_infixes};
use crate::pattern::Pattern;

/// Patterns that were invalidated, and when.
#[derive(Debug)]
pub(crate) struct PatternIndex {
    max: usize,
    /// Seeded at random, so that nobody can send ids of one hash.
    hashes: RandomState,
    filed: Vec<Filed>,
    /// Where each pattern is in `filed`.
    known: HashMap<Name, u32, RandomState>,
    /// What is filed under a piece, by the piece's hash.
    places: HashMap<u64, Place, RandomState>,
    /// The ways in use for patterns that concern every key, and for those of one tenant.
    ways_for_all: Ways,
    ways_for_tenants: Ways,
    /// No pattern's number is below this one.
    oldest: u64,
    /// What the patterns themselves weigh in bytes.
    weight: usize,
}

/// A pattern is told apart by its runs as well as by its text, because [`Pattern::of_targets`] gives
/// one text two meanings.
type Name = (Arc<Pattern>, Option<u64>);

#[derive(Debug)]
struct Filed {
    seq: u64,
    tenant: Option<u64>,
    pattern: Arc<Pattern>,
    way: Way,
    place: u64,
    /// The neighbours in the same place; `END` if there is none.
    younger: u32,
    older: u32,
}

/// All patterns filed under one piece, as a list: the youngest first, so that a look-up stops at the
/// first one that is too old.
#[derive(Debug)]
struct Place {
    youngest: u64,
    first: u32,
    patterns: u32,
}

/// What is asked of one list of ways.
#[derive(Clone, Copy)]
struct Asked<'a> {
    born: u64,
    /// The tenant whose patterns are looked at; `None` for those that concern every key.
    tenant: Option<u64>,
    key: &'a str,
}

impl PatternIndex {
    /// An index of at most `max` different patterns, where one pattern for two tenants counts as two.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max.min(END as usize - 1),
            hashes: RandomState::default(),
            filed: Vec::new(),
            known: HashMap::default(),
            places: HashMap::default(),
            ways_for_all: Ways::default(),
            ways_for_tenants: Ways::default(),
            oldest: u64::MAX,
            weight: 0,
        }
    }

    /// Notes that the record `seq` named `pattern`, for keys of the tenant with this hash or, with
    /// `None`, for all keys. Named again, a pattern's number only ever rises, because records may come
    /// out of order.
    ///
    /// Where there are too many patterns, forgets the older half and returns the largest number that was
    /// forgotten: nothing is known any more of keys born before it. That one call is linear in the number of
    /// patterns; any other looks at the pattern's own bytes, and walks past the younger ones
    /// in its place where it comes late.
    pub(crate) fn insert(
        &mut self,
        seq: u64,
        tenant: Option<u64>,
        pattern: &Arc<Pattern>,
    ) -> Option<u64> {
        let name = (Arc::clone(pattern), tenant);
        if let Some(&at) = self.known.get(&name) {
            self.raise(at, seq);
            return None;
        }
        let (way, place) = self.roomiest(tenant, pattern);
        let filed = Filed {
            seq,
            tenant,
            pattern: name.0,
            way,
            place,
            younger: END,
            older: END,
        };
        self.file(filed);
        if self.filed.len() <= self.max {
            return None;
        }
        let mut seqs: Vec<u64> = self.filed.iter().map(|filed| filed.seq).collect();
        let middle = (seqs.len() / 2).saturating_sub(1);
        let (_, median, _) = seqs.select_nth_unstable(middle);
        let median = *median;
        self.forget_until(median);
        Some(median)
    }

    /// Whether a pattern with a number above `born` matches `key`, which belongs to `tenant`.
    ///
    /// Takes a hash and a look for each segment of the key, and one for each other way in use. Locks
    /// nothing and allocates nothing.
    pub(crate) fn any_younger(&self, born: u64, tenant: Option<u64>, key: &str) -> bool {
        let any = |ways, tenant| self.any_in(ways, Asked { born, tenant, key });
        any(&self.ways_for_all, None) || (tenant.is_some() && any(&self.ways_for_tenants, tenant))
    }

    /// Forgets all patterns up to and including `seq`. Linear in the number of patterns unless all of
    /// them are younger, so it is for floors that rise in steps.
    pub(crate) fn forget_until(&mut self, seq: u64) {
        if seq < self.oldest {
            return;
        }
        let mut kept = mem::take(&mut self.filed);
        self.clear();
        kept.retain(|filed| filed.seq > seq);
        // In the order of their numbers each one goes to the front of its place.
        kept.sort_unstable_by_key(|filed| filed.seq);
        self.known.reserve(kept.len());
        self.places.reserve(kept.len());
        for filed in kept {
            self.file(filed);
        }
    }

    /// Forgets all patterns, and gives their memory back.
    pub(crate) fn clear(&mut self) {
        *self = Self {
            hashes: self.hashes.clone(),
            ..Self::new(self.max)
        };
    }

    /// How many patterns are known.
    pub(crate) fn len(&self) -> usize {
        self.filed.len()
    }

    /// Roughly how many bytes of the heap this takes, the patterns' own included.
    pub(crate) fn bytes(&self) -> usize {
        // A table keeps one more byte for each place.
        self.filed.capacity() * size_of::<Filed>()
            + self.known.capacity() * (size_of::<(Name, u32)>() + 1)
            + self.places.capacity() * (size_of::<(u64, Place)>() + 1)
            + self.weight
    }

    fn any_in(&self, ways: &Ways, asked: Asked<'_>) -> bool {
        let mut left = Some(self.filed.len());
        ways.younger(asked.born).any(|way| {
            way.any_piece(asked.key.as_bytes(), |piece| {
                self.place_matches(self.hash(way, asked.tenant, piece), asked, &mut left)
            })
        })
    }

    /// Whether something filed at `place` matches. `left` is how many more patterns may be compared
    /// before it is cheaper to compare all; `None` once all have been.
    fn place_matches(&self, place: u64, asked: Asked<'_>, left: &mut Option<usize>) -> bool {
        let Some(place) = self.places.get(&place) else {
            return false;
        };
        if place.youngest <= asked.born {
            return false;
        }
        let mut at = place.first;
        while let Some(filed) = self.filed.get(at as usize)
            && filed.seq > asked.born
            && let Some(more) = *left
        {
            *left = more.checked_sub(1);
            if left.is_none() {
                return self.filed.iter().any(|filed| filed.answers(asked));
            }
            if filed.answers(asked) {
                return true;
            }
            at = filed.older;
        }
        false
    }

    /// The way and the place where the fewest patterns lie that a look-up would have to compare.
    fn roomiest(&self, tenant: Option<u64>, pattern: &Pattern) -> (Way, u64) {
        let ways = match tenant {
            None => &self.ways_for_all,
            Some(_) => &self.ways_for_tenants,
        };
        let mut best = (Way::Everything, self.hash(Way::Everything, tenant, &[]));
        let mut least = usize::MAX;
        let mut offer = |way, piece: &[u8]| {
            let place = self.hash(way, tenant, piece);
            let patterns = self.places.get(&place).map_or(0, |it| it.patterns as usize);
            let cost = ways.price(way) + patterns;
            // Of equals the last one: ids stand behind what they are ids of.
            if cost <= least {
                (least, best) = (cost, (way, place));
            }
            least
        };
        let mut cheapest = usize::MAX;
        ways.offer_cheap(pattern, |way, piece| cheapest = offer(way, piece));
        if cheapest > CROWD {
            offer_infixes(pattern, |way, piece| {
                offer(way, piece);
            });
        }
        best
    }

    fn file(&mut self, filed: Filed) {
        let at = self.filed.len() as u32;
        self.oldest = self.oldest.min(filed.seq);
        self.weight += weight(&filed.pattern);
        self.known
            .insert((Arc::clone(&filed.pattern), filed.tenant), at);
        let place = self.places.entry(filed.place).or_insert(Place {
            youngest: 0,
            first: END,
            patterns: 0,
        });
        place.patterns += 1;
        self.filed.push(filed);
        self.link(at);
    }

    /// Gives the pattern a higher number, and its place among the younger ones.
    fn raise(&mut self, at: u32, seq: u64) {
        let Some(filed) = self.filed.get_mut(at as usize).filter(|it| it.seq < seq) else {
            return;
        };
        filed.seq = seq;
        let (younger, older, place) = (filed.younger, filed.older, filed.place);
        self.join(place, younger, older);
        self.link(at);
    }

    /// Enters the pattern into the list of its place, before the first one that is not younger.
    fn link(&mut self, at: u32) {
        let Some(&Filed {
            seq,
            tenant,
            way,
            place,
            ..
        }) = self.filed.get(at as usize)
        else {
            return;
        };
        let ways = match tenant {
            None => &mut self.ways_for_all,
            Some(_) => &mut self.ways_for_tenants,
        };
        ways.note(way, seq);
        let Some(found) = self.places.get_mut(&place) else {
            return;
        };
        found.youngest = found.youngest.max(seq);
        let (mut younger, mut older) = (END, found.first);
        while let Some(filed) = self.filed.get(older as usize)
            && filed.seq > seq
        {
            (younger, older) = (older, filed.older);
        }
        self.join(place, younger, at);
        self.join(place, at, older);
    }

    /// Makes the two neighbours in the list of `place`; `END` stands for either end of it.
    fn join(&mut self, place: u64, younger: u32, older: u32) {
        if let Some(filed) = self.filed.get_mut(younger as usize) {
            filed.older = older;
        } else if let Some(place) = self.places.get_mut(&place) {
            place.first = older;
        }
        if let Some(filed) = self.filed.get_mut(older as usize) {
            filed.younger = younger;
        }
    }

    /// The place of a piece. Each tenant has its own, so that the patterns of one are no burden to the
    /// others.
    fn hash(&self, way: Way, tenant: Option<u64>, piece: &[u8]) -> u64 {
        let mut hasher = self.hashes.build_hasher();
        hasher.write(piece);
        hasher.write_u8(way.kind());
        hasher.write_u64(tenant.unwrap_or(0));
        hasher.finish()
    }
}

impl Filed {
    fn answers(&self, asked: Asked<'_>) -> bool {
        self.seq > asked.born && self.tenant == asked.tenant && self.pattern.matches(asked.key)
    }
}

/// What a pattern weighs in bytes: the lengths of its texts, two words to find each, and the counts of its
/// `Arc`.
fn weight(pattern: &Pattern) -> usize {
    let runs = pattern.runs().iter();
    let runs = runs.map(|run| run.len() + size_of::<Box<str>>());
    size_of::<(usize, usize, Pattern)>() + pattern.as_str().len() + runs.sum::<usize>()
}

/// No pattern: behind the last one.
const END: u32 = u32::MAX;

/// Where fewer patterns than this would have to be compared, it is not worth trying each few bytes of a
/// pattern for a better place.
const CROWD: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    /// What was ever said, never forgotten: number, tenant, pattern.
    type History = Vec<(u64, Option<u64>, Arc<Pattern>)>;

    fn pattern(text: &str) -> Arc<Pattern> {
        Arc::new(Pattern::parse(text).unwrap())
    }

    fn index_of(texts: &[&str]) -> PatternIndex {
        let mut index = PatternIndex::new(1000);
        for text in texts {
            assert_eq!(index.insert(1, None, &pattern(text)), None);
        }
        index
    }

    /// Matches by trying every length for every star; slow and plainly right.
    fn naive(pattern: &[char], key: &[char]) -> bool {
        match pattern {
            [] => key.is_empty(),
            ['*', rest @ ..] => (0..=key.len()).any(|skip| naive(rest, &key[skip..])),
            ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
                key.first() == Some(literal) && naive(rest, &key[1..])
            }
        }
    }

    /// The truth about a key: every pattern of the past, compared by two matchers.
    fn judged_by_history(history: &History, born: u64, tenant: Option<u64>, key: &str) -> bool {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        history.iter().any(|(seq, whose, pattern)| {
            let matches = pattern.matches(key);
            assert_eq!(matches, naive(&chars(pattern.as_str()), &chars(key)));
            *seq > born && (whose.is_none() || *whose == tenant) && matches
        })
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Insert(u64, Option<u64>, String),
        InsertAgain(u64, Index),
        Forget(u64),
        Clear,
    }

    fn tenant() -> impl Strategy<Value = Option<u64>> {
        prop_oneof![3 => Just(None), 1 => Just(Some(0)), 1 => Just(Some(1))]
    }

    /// Few different pieces, so that segments meet, repeat, are empty, and begin alike.
    fn pattern_text() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            5 => Just("*"), 3 => Just("a"), 2 => Just("b"), 3 => Just(":"), 1 => Just("/"),
            1 => Just(r"\*"), 1 => Just(r"\\"), 1 => Just(r"\a"), 1 => Just("é"), 1 => Just("ab"),
            1 => Just(":ab:"), 1 => Just("日本"), 1 => Just("abababababab"),
        ];
        prop::collection::vec(token, 1..8).prop_map(|tokens| tokens.concat())
    }

    fn key_text() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            4 => Just("a"), 3 => Just("b"), 4 => Just(":"), 1 => Just("/"), 1 => Just("*"),
            1 => Just("\\"), 1 => Just("é"), 1 => Just("日本"), 1 => Just("abababababab"),
        ];
        prop::collection::vec(token, 0..9).prop_map(|tokens| tokens.concat())
    }

    /// A key made for the pattern: something in place of each star.
    fn key_of(pattern: &Pattern, fillings: &[String]) -> String {
        let mut key = String::new();
        for (at, run) in pattern.runs().iter().enumerate() {
            if at > 0 {
                key.push_str(&fillings[at % fillings.len()]);
            }
            key.push_str(run);
        }
        key
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            20 => (0u64..40, tenant(), pattern_text()).prop_map(|(seq, tenant, text)| {
                Deed::Insert(seq, tenant, text)
            }),
            6 => (0u64..40, any::<Index>()).prop_map(|(seq, which)| Deed::InsertAgain(seq, which)),
            1 => (0u64..20).prop_map(Deed::Forget),
        ]
    }

    /// The index, what it was told, and the position below which it has nothing to say.
    #[derive(Debug)]
    struct Twin {
        index: PatternIndex,
        history: History,
        floor: u64,
    }

    impl Twin {
        fn after(max: usize, deeds: &[Deed]) -> Self {
            let index = PatternIndex::new(max);
            let mut twin = Self {
                index,
                history: Vec::new(),
                floor: 0,
            };
            for deed in deeds {
                twin.does(deed);
                assert!(twin.index.len() <= max);
                twin.lists_are_sound();
            }
            twin
        }

        fn does(&mut self, deed: &Deed) {
            let (seq, tenant, pattern) = match deed {
                Deed::Insert(seq, tenant, text) => (*seq, *tenant, pattern(text)),
                Deed::InsertAgain(seq, which) if !self.history.is_empty() => {
                    let (_, tenant, pattern) = which.get(&self.history);
                    (*seq, *tenant, Arc::clone(pattern))
                }
                Deed::InsertAgain(..) => return,
                Deed::Forget(seq) => {
                    self.index.forget_until(*seq);
                    self.floor = self.floor.max(*seq);
                    return;
                }
                Deed::Clear => {
                    self.index.clear();
                    self.history.clear();
                    return;
                }
            };
            let known = self.index.len();
            if let Some(forgotten) = self.index.insert(seq, tenant, &pattern) {
                let half = (known + 1).div_ceil(2);
                assert!(known - self.index.len() + 1 >= half / 2, "about half goes");
                assert!(
                    forgotten
                        <= self
                            .history
                            .iter()
                            .map(|it| it.0)
                            .max()
                            .unwrap_or(0)
                            .max(seq)
                );
                self.floor = self.floor.max(forgotten);
            }
            self.history.push((seq, tenant, pattern));
        }

        /// Each place's list holds all its patterns, youngest first, linked both ways.
        fn lists_are_sound(&self) {
            let mut seen = 0;
            for place in self.index.places.values() {
                let (mut before, mut at, mut seq) = (END, place.first, place.youngest);
                while let Some(filed) = self.index.filed.get(at as usize) {
                    assert_eq!(filed.younger, before);
                    assert!(filed.seq <= seq && filed.seq >= self.index.oldest);
                    (before, at, seq) = (at, filed.older, filed.seq);
                    seen += 1;
                }
                assert_eq!(at, END);
            }
            let patterns = self.index.places.values().map(|place| place.patterns);
            assert_eq!(seen, self.index.len());
            assert_eq!(patterns.sum::<u32>() as usize, self.index.len());
            assert_eq!(self.index.known.len(), self.index.len());
        }

        fn agrees_on(
            &self,
            born: u64,
            tenant: Option<u64>,
            key: &str,
        ) -> Result<(), TestCaseError> {
            let born = born.max(self.floor);
            let truth = judged_by_history(&self.history, born, tenant, key);
            let found = self.index.any_younger(born, tenant, key);
            prop_assert_eq!(found, truth, "{} of {:?} born {}", key, tenant, born);
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// From the floor up the index knows neither more nor less than all of history.
        #[test]
        fn the_index_agrees_with_history(
            deeds in prop::collection::vec(prop_oneof![30 => deed(), 1 => Just(Deed::Clear)], 1..60),
            keys in prop::collection::vec(key_text(), 4),
            fillings in prop::collection::vec(key_text(), 3),
            asker in tenant(), born in 0u64..40,
            max in prop_oneof![0usize..4, 4usize..30, Just(100)],
        ) {
            let twin = Twin::after(max, &deeds);
            for key in &keys {
                twin.agrees_on(born, asker, key)?;
            }
            for (_, whose, pattern) in &twin.history {
                let key = key_of(pattern, &fillings);
                twin.agrees_on(born, asker, &key)?;
                twin.agrees_on(0, *whose, &key)?;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        /// Many patterns over few pieces: places are crowded, so all ways come into use, lengths run out and
        /// look-ups end in a walk over everything.
        #[test]
        fn a_crowded_index_agrees_with_history(
            texts in prop::collection::vec(r"[ab*]{0,3}[*:][ab:]{0,12}[*:][ab*]{1,3}", 100..300),
            keys in prop::collection::vec("[ab:]{0,24}", 20),
            fillings in prop::collection::vec("[ab:]{0,6}", 3),
            born in 0u64..300,
        ) {
            let mut twin = Twin { index: PatternIndex::new(1000), history: Vec::new(), floor: 0 };
            for (seq, text) in texts.iter().enumerate() {
                twin.does(&Deed::Insert(seq as u64 + 1, None, text.clone()));
            }
            twin.lists_are_sound();
            for key in &keys {
                twin.agrees_on(born, None, key)?;
                twin.agrees_on(0, Some(1), key)?;
            }
            for at in (0..twin.history.len()).step_by(5) {
                let key = key_of(&twin.history[at].2, &fillings);
                twin.agrees_on(born, None, &key)?;
                twin.agrees_on(at as u64, None, &key)?;
            }
        }
    }

    #[test]
    fn a_segment_beside_a_star_is_not_complete() {
        for (text, key, matches) in [
            ("/users/7*", "/users/77", true),
            ("/users/7*", "/users/8", false),
            ("*7/edit", "/users/77/edit", true),
            ("*:7:*", "a:7:b", true),
            ("*:7:*", "a:77:b", false),
            ("*:7:*", ":7:", true),
            ("a*b", "ab", true),
            ("a*b", "a:b", true),
            ("a*b", "a:b:", false),
            ("*é*", "crème brûlée:é", true),
            ("*é*", "e", false),
            (r"a:\**", "a:*b", true),
            (r"a:\**", "a:b", false),
            (r"*:\\:*", r"a:\:b", true),
            (r"*:\\:*", "a:/:b", false),
            ("a::b*", "a::b", true),
            ("a::b*", "a:b", false),
            ("*", "", true),
            ("***", "anything", true),
            ("*a*", "", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            let index = index_of(&[text]);
            assert_eq!(index.any_younger(0, None, key), matches, "{text} on {key}");
            assert!(!index.any_younger(1, None, key), "no younger than itself");
        }
    }

    /// One text means two things: as it is, and for targets, which are kept in normal form.
    #[test]
    fn a_pattern_of_targets_is_another_pattern() {
        let plain = Pattern::parse("/%7Efoo/*").unwrap();
        let mut index = PatternIndex::new(10);
        index.insert(1, None, &Arc::new(plain.clone()));
        index.insert(2, None, &Arc::new(plain.of_targets()));
        assert_eq!(index.len(), 2);
        assert!(index.any_younger(0, None, "/%7Efoo/x"));
        assert!(index.any_younger(1, None, "/~foo/x"));
    }

    #[test]
    fn a_tenant_s_pattern_is_for_its_keys_only() {
        let mut index = PatternIndex::new(10);
        index.insert(1, Some(0), &pattern("a:*"));
        index.insert(2, Some(7), &pattern("a:*"));
        assert_eq!(index.len(), 2, "one pattern of two tenants");
        assert!(index.any_younger(0, Some(0), "a:1") && index.any_younger(0, Some(7), "a:1"));
        assert!(!index.any_younger(0, Some(8), "a:1") && !index.any_younger(0, None, "a:1"));
        assert!(!index.any_younger(1, Some(0), "a:1") && index.any_younger(1, Some(7), "a:1"));
        index.insert(3, None, &pattern("a:*"));
        assert!(index.any_younger(2, Some(8), "a:1") && index.any_younger(2, None, "a:1"));
    }

    #[test]
    fn a_late_record_does_not_lower_a_number() {
        let mut index = index_of(&["a:*"]);
        index.insert(9, None, &pattern("a:*"));
        index.insert(4, None, &pattern("a:*"));
        assert_eq!(index.len(), 1);
        assert!(index.any_younger(8, None, "a:1"));
        assert!(!index.any_younger(9, None, "a:1"));
    }

    #[test]
    fn overflow_forgets_the_older_half_and_says_up_to_where() {
        let mut index = PatternIndex::new(4);
        for seq in [30, 10, 40, 20] {
            assert_eq!(index.insert(seq, None, &pattern(&format!("{seq}:*"))), None);
        }
        assert_eq!(
            index.insert(40, None, &pattern("40:*")),
            None,
            "nothing new"
        );
        assert_eq!(index.insert(50, None, &pattern("50:*")), Some(20));
        assert_eq!(index.len(), 3);
        for (key, known) in [("10:", false), ("20:", false), ("30:", true), ("50:", true)] {
            assert_eq!(index.any_younger(0, None, key), known, "{key}");
        }
        let mut one_record = PatternIndex::new(3);
        let floors =
            ["a*", "b*", "c*", "d*"].map(|text| one_record.insert(7, None, &pattern(text)));
        assert_eq!(
            floors,
            [None, None, None, Some(7)],
            "one number goes as a whole"
        );
        assert_eq!(one_record.len(), 0);
        assert_eq!(
            PatternIndex::new(0).insert(3, None, &pattern("a*")),
            Some(3)
        );
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut index = PatternIndex::new(500);
        let mut most = 0;
        for seq in 0..20_000_u64 {
            let tenant = (seq % 3 == 0).then_some(seq);
            let text = match seq % 4 {
                0 => format!("report:*:{seq}:*"),
                1 => format!("*{seq}*"),
                2 => format!("a{}{seq}*", "b".repeat(seq as usize % 300)),
                _ => format!("*{seq}.json"),
            };
            index.insert(seq, tenant, &pattern(&text));
            most = most.max(index.bytes());
            assert!(index.len() <= 500);
            let ways = [&index.ways_for_all, &index.ways_for_tenants];
            let in_use = ways.map(|ways| ways.younger(0).count());
            assert!(in_use.iter().all(|ways| *ways <= 2 * 16 + 7), "{in_use:?}");
        }
        assert!((100_000..1_000_000).contains(&most), "{most} bytes");
        index.clear();
        assert_eq!((index.len(), index.bytes()), (0, 0));
    }

    #[test]
    fn the_id_is_what_a_pattern_is_filed_under() {
        let mut index = PatternIndex::new(10_000);
        for id in 0..1000 {
            index.insert(id, None, &pattern(&format!("report:*:{id}:*")));
            index.insert(id, None, &pattern(&format!("/users/{id}/*")));
            index.insert(id, None, &pattern(&format!("/posts/{id}*")));
        }
        let crowd = index.places.values().map(|place| place.patterns).max();
        assert!(crowd <= Some(8), "{crowd:?}");
        let mut ways = index.ways_for_all.younger(0);
        assert!(
            !ways.any(|way| matches!(way, Way::Infix(_))),
            "nobody walks the key"
        );
    }

    /// Beyond that many lengths the begins are cut, and what is no shorter than any still gets a place.
    #[test]
    fn more_lengths_than_are_looked_for_lose_no_pattern() {
        let mut index = PatternIndex::new(1000);
        let begins: Vec<String> = (1..60).rev().map(|len| "a".repeat(len)).collect();
        for begin in &begins {
            index.insert(1, None, &pattern(&format!("{begin}b*")));
            index.insert(1, None, &pattern(&format!("*b{begin}")));
        }
        for begin in &begins {
            assert!(index.any_younger(0, None, &format!("{begin}b")), "{begin}");
            assert!(index.any_younger(0, None, &format!("b{begin}")), "{begin}");
        }
        assert!(!index.any_younger(0, None, &"a".repeat(60)));
    }

    /// `*a*b*c*` and its like share all their pieces, and the key leads to each place many times.
    #[test]
    fn a_key_that_leads_to_crowded_places_again_and_again_is_judged_right() {
        let mut index = PatternIndex::new(1000);
        for at in 0..200_u32 {
            let bits: String = (0..8)
                .map(|bit| if at >> bit & 1 == 0 { "*:a:" } else { "*:b:" })
                .collect();
            index.insert(1, None, &pattern(&format!("{bits}*c")));
        }
        let key = ":a::b:".repeat(100);
        assert!(!index.any_younger(0, None, &key));
        assert!(index.any_younger(0, None, &format!("{key}c")));
    }
}
