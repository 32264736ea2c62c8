//! The markers of the past, youngest number per name, in bounded memory.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::journal::marker::{Marker, Subject};
use crate::pattern::Pattern;

/// What has been invalidated, and when.
#[derive(Debug)]
pub(crate) struct Mirror {
    /// Names' hashes and the number of the last record that named them.
    names: HashMap<u64, u64, FixedState>,
    names_max: usize,
    /// Patterns, oldest record first.
    patterns: Vec<(u64, Arc<Pattern>)>,
    patterns_max: usize,
    /// Entries born before this position do not hold, because what has been pruned may concern them.
    floor: u64,
}

impl Mirror {
    pub(crate) fn new(names_max: usize, patterns_max: usize) -> Self {
        let (names, patterns) = (HashMap::with_hasher(FixedState::default()), Vec::new());
        Self {
            names,
            names_max,
            patterns,
            patterns_max,
            floor: 0,
        }
    }

    /// Takes in the record `seq`.
    pub(crate) fn apply(&mut self, seq: u64, markers: &[Marker]) {
        for marker in markers {
            match marker {
                Marker::Name(name) => {
                    self.names.insert(*name, seq);
                }
                Marker::Pattern(pattern) => self.remember_pattern(seq, pattern),
                Marker::Everything => self.raise_floor(seq),
            }
        }
        if self.names.len() > self.names_max {
            self.prune_names();
        }
    }

    /// Whether nothing that names `subject` is younger than `born`.
    pub(crate) fn holds(&self, born: u64, subject: &Subject) -> bool {
        let younger = |name: &u64| self.names.get(name).is_some_and(|seq| *seq > born);
        let matches =
            |(seq, pattern): &(u64, Arc<Pattern>)| *seq > born && pattern.matches(subject.key());
        born >= self.floor
            && !subject.names().iter().any(younger)
            // The youngest patterns stand last; older ones than the entry are not even looked at.
            && !self.patterns.iter().rev().take_while(|(seq, _)| *seq > born).any(matches)
    }

    fn remember_pattern(&mut self, seq: u64, pattern: &Arc<Pattern>) {
        // A pattern that comes again only moves to the end: memory goes by different patterns.
        self.patterns
            .retain(|(_, known)| known.as_str() != pattern.as_str());
        self.patterns.push((seq, Arc::clone(pattern)));
        if self.patterns.len() > self.patterns_max {
            let half = self.patterns.len() / 2;
            let pruned = self.patterns.drain(..half).map(|(seq, _)| seq).max();
            self.floor = self.floor.max(pruned.unwrap_or(0));
        }
    }

    /// Forgets the older half of the names.
    fn prune_names(&mut self) {
        let mut seqs: Vec<u64> = self.names.values().copied().collect();
        let middle = seqs.len() / 2;
        let (_, median, _) = seqs.select_nth_unstable(middle);
        let median = *median;
        self.raise_floor(median);
    }

    /// Entries born before `seq` no longer hold, so what was said up to it need not be kept.
    fn raise_floor(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
        self.names.retain(|_, named| *named > seq);
        self.patterns.retain(|(named, _)| *named > seq);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every record ever made, judged by walking all of them.
    fn judged_by_history(history: &[Vec<Marker>], born: u64, subject: &Subject) -> bool {
        let after = history.iter().skip(born as usize).flatten();
        !after.into_iter().any(|marker| match marker {
            Marker::Name(name) => subject.names().contains(name),
            Marker::Pattern(pattern) => pattern.matches(subject.key()),
            Marker::Everything => true,
        })
    }

    fn marker() -> impl Strategy<Value = Marker> {
        prop_oneof![
            6 => "[ab]{1,2}".prop_map(|key| Marker::key(&key)),
            6 => "[xy]{1,2}".prop_map(|tag| Marker::tag(&tag)),
            3 => r"[ab]{0,1}\*[ab]{0,1}".prop_map(|text| Marker::pattern(Pattern::parse(&text).unwrap())),
            1 => Just(Marker::Everything),
        ]
    }

    proptest! {
        /// Pruned memory may forget an entry that still holds, but never keeps one that does not.
        #[test]
        fn what_history_refutes_never_holds(
            history in prop::collection::vec(prop::collection::vec(marker(), 1..4), 0..30),
            key in "[ab]{1,2}", tag in "[xy]{1,2}", born in 0u64..30, names_max in 2usize..40,
            patterns_max in 2usize..10,
        ) {
            let subject = Subject::of(key, &[tag.into()]);
            let mut mirror = Mirror::new(names_max, patterns_max);
            for (at, record) in history.iter().enumerate() {
                mirror.apply(at as u64 + 1, record);
            }
            let born = born.min(history.len() as u64);
            let truth = judged_by_history(&history, born, &subject);
            let holds = mirror.holds(born, &subject);
            prop_assert!(truth || !holds, "serves what was invalidated");
            if names_max == 39 && patterns_max == 9 && history.len() < 8 {
                prop_assert_eq!(truth, holds, "nothing was pruned, so nothing may be lost");
            }
        }
    }

    #[test]
    fn memory_stays_bounded_and_overflow_only_costs_misses() {
        let mut mirror = Mirror::new(1_000, 16);
        for seq in 1..=100_000_u64 {
            mirror.apply(seq, &[Marker::Name(seq)]);
            assert!(mirror.names.len() <= 1_000);
        }
        let other = Subject::of("other", &[]);
        assert!(mirror.holds(100_000, &other));
        assert!(
            !mirror.holds(1, &other),
            "what was pruned may have named it"
        );
        for at in 0..100_u64 {
            let pattern = Pattern::parse(&format!("p{at}*")).unwrap();
            mirror.apply(100_001 + at, &[Marker::pattern(pattern)]);
            assert!(mirror.patterns.len() <= 16);
        }
    }
}
