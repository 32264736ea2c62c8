//! What was invalidated, and when: the youngest number per name and pattern, in bounded memory.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::journal::index::PatternIndex;
use crate::journal::marker::{Marker, Subject, Tenant};

/// Names and patterns with the number of the last record that named them.
///
/// Records may be entered in any order: what is kept is the largest number of each.
#[derive(Debug)]
pub(crate) struct Tables {
    names: HashMap<u64, u64, FixedState>,
    names_max: usize,
    patterns: PatternIndex,
    /// Entries born before this position do not hold, because what has been forgotten may concern them.
    floor: u64,
    /// The largest number there is: nothing concerns what was born then, or later.
    newest: u64,
}

impl Tables {
    pub(crate) fn new(names_max: usize, patterns_max: usize) -> Self {
        Self {
            names: HashMap::with_hasher(FixedState::default()),
            names_max,
            patterns: PatternIndex::new(patterns_max),
            floor: 0,
            newest: 0,
        }
    }

    /// Enters what the record `seq` names; for one tenant, or for everybody.
    pub(crate) fn enter(&mut self, seq: u64, markers: &[Marker], tenant: Option<Tenant>) {
        self.newest = self.newest.max(seq);
        for marker in markers {
            match (marker, tenant) {
                (Marker::Name(name), None) => self.enter_name(seq, *name),
                (Marker::Name(name), Some(tenant)) => self.enter_name(seq, tenant.own(*name)),
                (Marker::Pattern(pattern), _) => {
                    let tenant = tenant.map(|Tenant(hash)| hash);
                    if let Some(forgotten) = self.patterns.insert(seq, tenant, pattern) {
                        self.floor = self.floor.max(forgotten);
                    }
                }
                (Marker::Everything, None) => self.raise_floor(seq),
                (Marker::Everything, Some(Tenant(all))) => self.enter_name(seq, all),
            }
        }
        if self.names.len() > self.names_max {
            self.forget_names();
        }
    }

    fn enter_name(&mut self, seq: u64, name: u64) {
        let last = self.names.entry(name).or_insert(seq);
        *last = seq.max(*last);
    }

    /// Whether nothing that names `subject` is younger than `born`.
    pub(crate) fn holds(&self, born: u64, subject: &Subject) -> bool {
        if born >= self.newest {
            return true;
        }
        let younger = |name: u64| self.names.get(&name).is_some_and(|seq| *seq > born);
        let of_tenant = |tenant: Tenant| {
            younger(tenant.0)
                || subject
                    .names()
                    .iter()
                    .any(|name| younger(tenant.own(*name)))
        };
        born >= self.floor
            && !subject.names().iter().any(|name| younger(*name))
            && !subject.tenant().is_some_and(of_tenant)
            && !self.patterns.any_younger(
                born,
                subject.tenant().map(|Tenant(hash)| hash),
                subject.key(),
            )
    }

    /// Entries born before `seq` no longer hold, so what was said up to it need not be kept.
    pub(crate) fn raise_floor(&mut self, seq: u64) {
        self.newest = self.newest.max(seq);
        if seq > self.floor {
            self.floor = seq;
            self.names.retain(|_, named| *named > seq);
            self.patterns.forget_until(seq);
        }
    }

    /// Forgets everything, as if nothing had ever been entered.
    pub(crate) fn clear(&mut self) {
        (self.floor, self.newest) = (0, 0);
        self.names.clear();
        self.patterns.clear();
    }

    /// How many names and patterns are remembered.
    pub(crate) fn len(&self) -> usize {
        self.names.len() + self.patterns.len()
    }

    /// Roughly what it takes up, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        // A key, a value, and a byte of the table's own for each place.
        self.names.capacity() * 17 + self.patterns.bytes()
    }

    /// Forgets the older half of the names.
    fn forget_names(&mut self) {
        let mut seqs: Vec<u64> = self.names.values().copied().collect();
        let middle = seqs.len() / 2;
        let (_, median, _) = seqs.select_nth_unstable(middle);
        let median = *median;
        self.raise_floor(median);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::pattern::Pattern;

    /// Every record ever made, judged by walking all of them.
    fn judged_by_history(
        history: &[(Vec<Marker>, Option<&str>)],
        born: u64,
        (key, tag, tenant): (&str, &str, Option<&str>),
    ) -> bool {
        let after = history.iter().skip(born as usize);
        let names = [Marker::key(key), Marker::tag(tag)];
        !after
            .filter(|(_, scope)| scope.is_none() || *scope == tenant)
            .flat_map(|(markers, _)| markers)
            .any(|marker| match marker {
                Marker::Name(_) => {
                    names.contains(marker) || tenant.map(Marker::tenant).as_ref() == Some(marker)
                }
                Marker::Pattern(pattern) => pattern.matches(key),
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

    fn tenant() -> impl Strategy<Value = Option<&'static str>> {
        prop_oneof![2 => Just(None), 1 => Just(Some("acme")), 1 => Just(Some("zeta"))]
    }

    proptest! {
        /// What was forgotten may make an entry go that still holds, but never keeps one that does not.
        #[test]
        fn what_history_refutes_never_holds(
            history in prop::collection::vec((prop::collection::vec(marker(), 1..4), tenant()), 0..30),
            key in "[ab]{1,2}", tag in "[xy]{1,2}", owner in tenant(), born in 0u64..30,
            names_max in 2usize..40, patterns_max in 2usize..10, order in any::<prop::sample::Index>(),
        ) {
            let subject = Subject::of(&*key, &[Arc::from(&*tag)]);
            let subject = match owner {
                Some(owner) => subject.of_tenant(owner),
                None => subject,
            };
            let mut tables = Tables::new(names_max, patterns_max);
            // In any order, because what is read of the past comes beside what is heard.
            let turn = if history.is_empty() { 0 } else { order.index(history.len()) };
            let numbered = history.iter().zip(1..);
            for ((markers, scope), seq) in numbered.clone().skip(turn).chain(numbered.take(turn)) {
                tables.enter(seq, markers, scope.map(Tenant::of));
            }
            let born = born.min(history.len() as u64);
            let truth = judged_by_history(&history, born, (&key, &tag, owner));
            let holds = tables.holds(born, &subject);
            prop_assert!(truth || !holds, "serves what was invalidated");
            if names_max == 39 && patterns_max == 9 && history.len() < 8 {
                prop_assert_eq!(truth, holds, "nothing was forgotten, so nothing may be lost");
            }
        }
    }

    #[test]
    fn memory_stays_bounded_and_overflow_only_costs_misses() {
        let mut tables = Tables::new(1_000, 16);
        for seq in 1..=100_000_u64 {
            tables.enter(seq, &[Marker::Name(seq)], None);
            assert!(tables.names.len() <= 1_000);
        }
        let other = Subject::of("other", &[]);
        assert!(tables.holds(100_000, &other));
        assert!(
            !tables.holds(1, &other),
            "what was forgotten may have named it"
        );
        for at in 0..100_u64 {
            let pattern = Pattern::parse(&format!("p{at}*")).unwrap();
            tables.enter(100_001 + at, &[Marker::pattern(pattern)], None);
            assert!(tables.patterns.len() <= 16);
        }
    }

    #[test]
    fn a_record_that_comes_late_does_not_make_a_name_older() {
        let mut tables = Tables::new(1_000, 16);
        tables.enter(7, &[Marker::key("k")], None);
        tables.enter(3, &[Marker::key("k")], None);
        assert!(!tables.holds(5, &Subject::of("k", &[])));
        assert!(tables.holds(7, &Subject::of("k", &[])));
    }

    #[test]
    fn everything_of_one_tenant_is_nothing_of_another() {
        let mut tables = Tables::new(1_000, 16);
        tables.enter(1, &[Marker::Everything], Some(Tenant::of("acme")));
        let of = |tenant| Subject::of("k", &[]).of_tenant(tenant);
        assert!(!tables.holds(0, &of("acme")));
        assert!(tables.holds(0, &of("zeta")));
        assert!(tables.holds(0, &Subject::of("k", &[])));
    }
}
