//! All or nothing: a request is counted by every rule that speaks of it, or by none.

use std::sync::Arc;

use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::table::Table;
use crate::rate_limit::terms::Terms;

/// What one rule would count: which bucket, on what terms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge<'a> {
    pub(crate) key: u64,
    pub(crate) rule: &'a Arc<CompiledRule>,
    pub(crate) plan: &'a Arc<Plan>,
    /// The plan's limit as it stands now.
    pub(crate) limit: Limit,
    /// How many tokens it takes.
    pub(crate) cost: u32,
    /// What Redis calls the bucket.
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "only Redis knows buckets by name")
    )]
    pub(crate) bucket: &'a Arc<str>,
}

impl<'a> Charge<'a> {
    /// What is said of the quota.
    pub(crate) fn terms(&self) -> &'a Arc<Terms> {
        &self.plan.terms
    }
}

/// As many charges as a request usually meets.
pub(crate) const FEW: usize = 4;

/// The charges of one request. Allocates only if there are more than four.
#[derive(Debug, Default)]
pub(crate) struct Charges<'a> {
    few: [Option<Charge<'a>>; FEW],
    count: usize,
    more: Vec<Charge<'a>>,
}

impl<'a> Charges<'a> {
    pub(crate) fn push(&mut self, charge: Charge<'a>) {
        match self.few.get_mut(self.count) {
            Some(place) => *place = Some(charge),
            None => self.more.push(charge),
        }
        self.count += 1;
    }

    #[cfg(feature = "redis")]
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    #[cfg(feature = "redis")]
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Those whose verdict counts.
    pub(crate) fn enforced(&self) -> impl Iterator<Item = &Charge<'a>> + Clone {
        self.all().filter(|charge| !charge.rule.shadow)
    }

    /// Those that only watch.
    pub(crate) fn watching(&self) -> impl Iterator<Item = &Charge<'a>> + Clone {
        self.all().filter(|charge| charge.rule.shadow)
    }

    fn all(&self) -> impl Iterator<Item = &Charge<'a>> + Clone {
        self.few.iter().flatten().chain(&self.more)
    }
}

/// Counts a request in all these buckets or, if one of them is used up, in none. Says so with the
/// charge that is nearest to its end or, for a denial, lasts longest; nothing if there are none.
///
/// Several buckets are looked at before any is charged, so that requests which one rule keeps
/// refusing do not weigh on the others even for a moment. Where another thread takes the last of
/// one in between, what was charged is given back; requests that come at that very moment may find
/// a little less than there is, never more.
///
/// `charged` hears of each charge, and how far ahead it has moved its bucket's time; also of those that
/// are given back when another is refused.
pub(crate) fn take_each<'c, 'a: 'c>(
    table: &Table,
    now: u64,
    charges: impl Iterator<Item = &'c Charge<'a>> + Clone,
    mut charged: impl FnMut(&'c Charge<'a>, u64),
) -> Option<(&'c Charge<'a>, Verdict)> {
    let mut ahead = charges.clone();
    let only = ahead.next()?;
    if ahead.next().is_none() {
        let verdict = table.charge(only.key, now, only.limit, only.cost);
        charged(only, verdict.ahead());
        return Some((only, verdict));
    }
    let denied = charges
        .clone()
        .map(|charge| {
            (
                charge,
                table.peek(charge.key, now, charge.limit, charge.cost),
            )
        })
        .filter(|(_, verdict)| !verdict.is_allow())
        .inspect(|(charge, _)| table.cut_back(charge.key, now, charge.limit))
        .max_by_key(|(charge, verdict)| charge.limit.wait(verdict.ahead(), charge.cost));
    if denied.is_some() {
        return denied;
    }
    let mut spoken: Option<(&Charge<'a>, u64)> = None;
    for (taken, charge) in charges.clone().enumerate() {
        let verdict = table.charge(charge.key, now, charge.limit, charge.cost);
        if !verdict.is_allow() {
            for given in charges.take(taken) {
                table.refund(given.key, now, given.limit, given.cost);
            }
            return Some((charge, verdict));
        }
        charged(charge, verdict.ahead());
        spoken = nearest(spoken.into_iter().chain([(charge, verdict.ahead())]));
    }
    spoken.map(|(charge, ahead)| (charge, Verdict::Allow { ahead }))
}

/// The same where nobody wants to hear of each.
#[cfg(any(feature = "redis", test))]
pub(crate) fn take_all<'c, 'a: 'c>(
    table: &Table,
    now: u64,
    charges: impl Iterator<Item = &'c Charge<'a>> + Clone,
) -> Option<(&'c Charge<'a>, Verdict)> {
    take_each(table, now, charges, |_, _| {})
}

/// The charge of whose burst the smallest part remains; the first of several.
pub(crate) fn nearest<'c, 'a: 'c>(
    charges: impl Iterator<Item = (&'c Charge<'a>, u64)>,
) -> Option<(&'c Charge<'a>, u64)> {
    charges.reduce(|known, other| {
        let nearer = is_nearer((other.0.limit, other.1), (known.0.limit, known.1));
        if nearer { other } else { known }
    })
}

/// Whether a smaller part of `left`'s burst remains than of `right`'s, so far ahead as they lie.
///
/// By whole tokens, as clients are told. By ticks, of two rules of which the same part is used up now this
/// one would speak and now the other, as it happened to grow back a moment longer.
pub(crate) fn is_nearer(left: (Limit, u64), right: (Limit, u64)) -> bool {
    let remaining = |(limit, ahead): (Limit, u64)| u64::from(limit.remaining(ahead));
    let all = |(limit, _): (Limit, u64)| u64::from(limit.remaining(0));
    remaining(left) * all(right) < remaining(right) * all(left)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::rate_limit::mode::Mode;
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;

    fn rule(name: &str, requests: u32) -> Arc<CompiledRule> {
        let quota = Quota::requests(requests).per(Duration::from_secs(60));
        let rule = Rule::new(name, quota);
        Arc::new(CompiledRule::new(&rule, Mode::Exact).unwrap())
    }

    fn charge(key: u64, rule: &Arc<CompiledRule>) -> Charge<'_> {
        Charge {
            key: key << 45 | key,
            rule,
            plan: &rule.base,
            limit: rule.base.terms.limit,
            cost: 1,
            bucket: &rule.base.bucket,
        }
    }

    #[test]
    fn a_denial_charges_nothing_in_whatever_order_the_rules_stand() {
        let (wide, narrow) = (rule("wide", 10), rule("narrow", 2));
        for flip in [false, true] {
            let table = Table::new(64, true, 0);
            let mut both = [charge(1, &wide), charge(2, &narrow)];
            if flip {
                both.reverse();
            }
            for _ in 0..2 {
                assert!(take_all(&table, 0, both.iter()).unwrap().1.is_allow());
            }
            for _ in 0..5 {
                let (by, verdict) = take_all(&table, 0, both.iter()).unwrap();
                assert_eq!((&*by.terms().rule, verdict.is_allow()), ("narrow", false));
            }
            let alone = [charge(1, &wide)];
            let left = (0..20)
                .filter(|_| take_all(&table, 0, alone.iter()).unwrap().1.is_allow())
                .count();
            assert_eq!(left, 8);
        }
    }

    #[test]
    fn the_rule_nearest_to_its_end_speaks_and_the_longest_denial() {
        let table = Table::new(64, true, 0);
        let (ten, four, two) = (rule("ten", 10), rule("four", 4), rule("two", 2));
        let all = [charge(1, &ten), charge(2, &two), charge(3, &four)];
        let spoke = |at: u64| {
            let (by, verdict) = take_all(&table, at, all.iter()).unwrap();
            (by.terms().rule.to_string(), verdict.is_allow())
        };
        assert_eq!(spoke(0), ("two".to_owned(), true));
        assert_eq!(spoke(0), ("two".to_owned(), true));
        assert_eq!(spoke(0), ("two".to_owned(), false));
        for _ in 0..2 {
            table.charge(all[2].key, 0, four.base.terms.limit, 1);
        }
        // 15 s until four lets one more through, 30 s until two does.
        assert_eq!(spoke(0), ("two".to_owned(), false));
        assert_eq!(spoke(30_000_000), ("two".to_owned(), true));
    }

    #[test]
    fn more_charges_than_a_few_are_all_taken() {
        let one = rule("one", 1);
        let quota = Quota::requests(1).per(Duration::from_secs(60));
        let watching = Rule::new("watching", quota).shadow(true);
        let watching = Arc::new(CompiledRule::new(&watching, Mode::Exact).unwrap());
        let mut charges = Charges::default();
        for key in 1..=9 {
            let rule = if key % 3 == 0 { &watching } else { &one };
            charges.push(charge(key, rule));
        }
        assert_eq!(
            (charges.enforced().count(), charges.watching().count()),
            (6, 3)
        );
        let table = Table::new(64, true, 0);
        assert!(
            take_all(&table, 0, charges.enforced())
                .unwrap()
                .1
                .is_allow()
        );
        for charge in charges.enforced() {
            assert!(
                !table
                    .peek(charge.key, 0, one.base.terms.limit, 1)
                    .is_allow()
            );
        }
    }

    /// Or who changes to a plan of shorter windows would be kept waiting for what the longer ones had taken.
    #[test]
    fn a_bucket_too_far_ahead_is_cut_back_by_a_denial_of_several_rules() {
        let (left, right) = (rule("left", 2), rule("right", 3));
        let table = Table::new(64, true, 0);
        let both = [charge(1, &left), charge(2, &right)];
        let day = Limit::new(86_400_000_000, 1);
        assert!(table.charge(both[0].key, 0, day, 1).is_allow());
        let (_, denied) = take_all(&table, 0, both.iter()).unwrap();
        let wait = left.base.terms.limit.wait(denied.ahead(), 1);
        assert_eq!(
            wait, 90_000_000,
            "two quotas of debt, and one of two requests"
        );
        let (_, passed) = take_all(&table, wait, both.iter()).unwrap();
        assert!(passed.is_allow());
    }

    /// Two rules whose last requests are fought over from both ends.
    #[test]
    fn in_a_race_for_two_buckets_both_count_exactly_what_passed() {
        for _ in 0..200 {
            let (left, right) = (rule("left", 50), rule("right", 60));
            let table = Table::new(64, true, 0);
            let there = [charge(1, &left), charge(2, &right)];
            let back = [charge(2, &right), charge(1, &left)];
            let passed = AtomicU32::new(0);
            std::thread::scope(|scope| {
                for way in [&there, &back, &there, &back] {
                    let (table, passed) = (&table, &passed);
                    scope.spawn(move || {
                        for _ in 0..40 {
                            if take_all(table, 0, way.iter()).unwrap().1.is_allow() {
                                passed.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    });
                }
            });
            let passed = passed.into_inner();
            assert!(passed <= 50);
            let (key, limit) = (there[1].key, right.base.terms.limit);
            let rest = (0..100)
                .filter(|_| table.charge(key, 0, limit, 1).is_allow())
                .count();
            assert_eq!(u32::try_from(rest).unwrap(), 60 - passed);
        }
    }
}
