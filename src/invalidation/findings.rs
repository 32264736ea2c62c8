//! What must hold between a sampled invalidation and what the instances say, as plain functions over values.
//!
//! Whether an entry is too old is judged by the record's own number, as the sampler knows it, and not by the
//! mirror of whoever is asked: a broken mirror would vouch for itself.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;

use crate::journal::{Answer, Asked, Found};

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Invariant {
    /// No entry is served that is older than an invalidation that names it.
    Served,
    /// No entry has a stamp that is younger than its computation.
    Stamped,
    /// Who says that nothing is missing has heard of every acknowledged invalidation.
    Heard,
    /// Copies of one value are equal, wherever they are.
    Equal,
    /// A copy is fresh no longer than the one in a colder tier that it came from.
    Expiry,
}

impl Invariant {
    /// The same in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Stamped => "stamped",
            Self::Heard => "heard",
            Self::Equal => "equal",
            Self::Expiry => "expiry",
        }
    }
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CoherencyViolation {
    /// What should.
    pub invariant: Invariant,
    /// How long after the invalidation was acknowledged that was found: `10ms`, `100ms`, `1s`, `10s`, `60s`,
    /// or `on_demand`.
    pub window: &'static str,
    /// The number of the invalidation in the journal.
    pub seq: u64,
    /// Where and how, in words.
    pub detail: String,
}

/// A fault as it is found: the invariant, the place of the record in the question, and where and how.
pub(crate) type Finding = (Invariant, usize, String);

/// How much expiries of two answers may differ because they were given one after the other.
const EXPIRY_SLACK: Duration = Duration::from_secs(1);

/// Everything that does not hold, one for each instance, record and invariant.
pub(crate) fn judge(asked: &[Asked], answers: &[Answer]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for answer in answers {
        for (at, record) in asked.iter().enumerate() {
            findings.extend(judge_one(at, record, answer));
        }
    }
    findings.extend(compare(answers));
    findings
}

/// What one instance says of one record.
fn judge_one(at: usize, asked: &Asked, answer: &Answer) -> Vec<Finding> {
    // Who follows another incarnation has dropped all that is of this one; of its entries the record says
    // nothing.
    if answer.inc != asked.inc {
        return Vec::new();
    }
    let (instance, seq, mut findings) = (answer.instance, asked.seq, Vec::new());
    let mut about = |invariant, detail| findings.push((invariant, at, detail));
    if answer.verified && answer.last < seq {
        let last = answer.last;
        let text =
            format!("instance {instance:016x} says it has heard everything, and is at {last}");
        about(Invariant::Heard, text);
    }
    let mut named = answer
        .found
        .iter()
        .filter(|found| found.named_by & 1 << at != 0);
    let old = |found: &&Found| found.born.0 != asked.inc || found.born.1 < seq;
    if let Some(found) = named.clone().find(old).filter(|_| !answer.in_grace) {
        let (tier, born) = (found.temperature.as_str(), found.born.1);
        let key = found.key;
        let text = format!(
            "instance {instance:016x} serves the entry {key:016x} of {born} from its {tier} tier"
        );
        about(Invariant::Served, text);
    }
    if let Some(found) = named.find(|found| found.late & 1 << at != 0) {
        let (tier, born, key) = (found.temperature.as_str(), found.born.1, found.key);
        let text = format!(
            "instance {instance:016x} has the entry {key:016x} in its {tier} tier, which was begun \
             before the invalidation and is stamped {born}"
        );
        about(Invariant::Stamped, text);
    }
    findings
}

/// Copies of one value beside each other.
fn compare(answers: &[Answer]) -> Vec<Finding> {
    type Copy<'a> = (u64, &'a Found, u64);
    let mut first: HashMap<(u64, (u64, u64), u64), Vec<Copy<'_>>> = HashMap::new();
    let mut findings = Vec::new();
    for answer in answers {
        for found in &answer.found {
            let Some((token, hash)) = found.value else {
                continue;
            };
            let copies = first.entry((found.key, found.born, token)).or_default();
            let (key, at) = (found.key, found.named_by.trailing_zeros() as usize);
            let (here, tier) = (answer.instance, found.temperature.as_str());
            if let Some((there, other, _)) = copies.iter().find(|(.., other)| *other != hash) {
                let other = other.temperature.as_str();
                let text = format!(
                    "the entry {key:016x} in the {tier} tier of instance {here:016x} differs from that \
                     in the {other} tier of {there:016x}"
                );
                findings.push((Invariant::Equal, at, text));
            }
            let outlived = copies.iter().find_map(|(there, other, _)| {
                let (mine, its) = ((here, found), (*there, *other));
                outlives(mine, its).or_else(|| outlives(its, mine))
            });
            if let Some(((hot, hotter), (cold, colder))) = outlived {
                let (hotter, colder) = (hotter.temperature.as_str(), colder.temperature.as_str());
                let text = format!(
                    "the entry {key:016x} is fresh for longer in the {hotter} tier of instance {hot:016x} \
                     than in the {colder} tier of {cold:016x}"
                );
                findings.push((Invariant::Expiry, at, text));
            }
            copies.push((answer.instance, found, hash));
        }
    }
    findings
}

/// A copy, and whose it is.
type Owned<'a> = (u64, &'a Found);

/// The two, if `one` is in a hotter tier than `other` and fresh for longer.
fn outlives<'a>(one: Owned<'a>, other: Owned<'a>) -> Option<(Owned<'a>, Owned<'a>)> {
    let is_hotter = one.1.temperature < other.1.temperature;
    let is_longer = one.1.lasts > other.1.lasts.saturating_add(EXPIRY_SLACK);
    (is_hotter && is_longer).then_some((one, other))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::{Marker, Record, Temperature};

    fn asked(seq: u64) -> Asked {
        let record = Arc::new(Record::of([Marker::key("k")]));
        Asked {
            inc: 1,
            seq,
            record,
        }
    }

    fn found(seq: u64) -> Found {
        Found {
            temperature: Temperature::Hot,
            key: 7,
            born: (1, seq),
            value: None,
            lasts: Duration::from_secs(60),
            named_by: 1,
            late: 0,
        }
    }

    fn answer(instance: u64, last: u64, found: &[Found]) -> Answer {
        Answer {
            instance,
            inc: 1,
            last,
            verified: true,
            in_grace: false,
            work: 0,
            found: found.to_vec(),
        }
    }

    fn broken(answers: &[Answer]) -> Vec<Invariant> {
        let findings = judge(&[asked(5)], answers);
        findings
            .into_iter()
            .map(|(invariant, ..)| invariant)
            .collect()
    }

    #[test]
    fn each_invariant_is_broken_by_what_it_forbids_and_by_nothing_else() {
        let valued = |hash| Found {
            value: Some((3, hash)),
            ..found(5)
        };
        let warm = |secs| Found {
            temperature: Temperature::Warm,
            lasts: Duration::from_secs(secs),
            ..valued(1)
        };
        let late = Found {
            late: 1,
            ..found(5)
        };
        let foreign = Found {
            born: (9, 100),
            ..found(5)
        };
        let cases: [(&[Answer], &[Invariant]); 12] = [
            (&[answer(1, 5, &[]), answer(2, 9, &[])], &[]),
            (&[answer(1, 5, &[found(5)]), answer(2, 9, &[found(8)])], &[]),
            (&[answer(1, 5, &[found(4)])], &[Invariant::Served]),
            // The mirror of whoever serves it is at the record, and swears that it holds.
            (&[answer(1, 9, &[found(0)])], &[Invariant::Served]),
            (&[answer(1, 5, &[foreign])], &[Invariant::Served]),
            (&[answer(1, 5, &[late])], &[Invariant::Stamped]),
            (&[answer(1, 4, &[])], &[Invariant::Heard]),
            (
                &[answer(1, 5, &[valued(1)]), answer(2, 5, &[valued(1)])],
                &[],
            ),
            (
                &[answer(1, 5, &[valued(1)]), answer(2, 5, &[valued(2)])],
                &[Invariant::Equal],
            ),
            // Another stamp, another value.
            (
                &[
                    answer(1, 6, &[valued(1)]),
                    answer(
                        2,
                        6,
                        &[Found {
                            born: (1, 6),
                            ..valued(2)
                        }],
                    ),
                ],
                &[],
            ),
            (&[answer(1, 5, &[valued(1), warm(60)])], &[]),
            (
                &[answer(1, 5, &[warm(30), valued(1)])],
                &[Invariant::Expiry],
            ),
        ];
        for (at, (answers, expected)) in cases.iter().enumerate() {
            assert_eq!(broken(answers), *expected, "case {at}");
        }
    }

    #[test]
    fn who_doubts_itself_or_follows_another_incarnation_breaks_nothing() {
        let mut doubting = answer(1, 4, &[]);
        doubting.verified = false;
        let mut other = answer(2, 0, &[found(0)]);
        other.inc = 2;
        // The settings allow it to serve although it knows that it is cut off.
        let mut in_grace = answer(3, 4, &[found(0)]);
        (in_grace.verified, in_grace.in_grace) = (false, true);
        assert_eq!(broken(&[doubting, other, in_grace]), []);
    }

    #[test]
    fn an_entry_is_held_against_the_records_that_name_it_only() {
        let entry = Found {
            named_by: 0b10,
            ..found(6)
        };
        let of = |entry: &Found| judge(&[asked(9), asked(5)], &[answer(1, 9, &[*entry])]);
        assert_eq!(of(&entry), []);
        let both = Found {
            named_by: 0b11,
            ..entry
        };
        let findings = of(&both);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].0, findings[0].1), (Invariant::Served, 0));
    }
}
