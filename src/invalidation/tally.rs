//! What the checks have come to: how many were clean, by how long after the invalidation they were made.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::invalidation::findings::{CoherencyViolation, Invariant};

/// What checks have shown. See [`Coherency::report`](crate::invalidation::Coherency::report) and
/// [`Coherency::check`](crate::invalidation::Coherency::check).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CoherencyReport {
    /// Invalidations that were followed.
    pub samples: u64,
    /// Questions that were asked of all instances.
    pub probes: u64,
    /// Answers to them.
    pub answers: u64,
    /// Answers that did not come in time.
    pub silent: u64,
    /// What looking for the answers took, in stored entries (100 ns each, roughly), all instances together.
    pub looks: u64,
    /// Checks by how long after the acknowledgement they were made, the soonest first.
    pub windows: Vec<CoherencyWindow>,
    /// How often each invariant did not hold.
    pub violations: BTreeMap<Invariant, u64>,
    /// The last violations, oldest first, 32 at most.
    pub last: Vec<CoherencyViolation>,
}

impl CoherencyReport {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// The checks of one time scale.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CoherencyWindow {
    /// How long after the acknowledgement: `10ms`, `100ms`, `1s`, `10s`, `60s`, or `on_demand`.
    pub window: &'static str,
    /// Invalidations that were checked.
    pub checks: u64,
    /// Those of them of which every invariant held, wherever an answer came from.
    pub clean: u64,
    /// The share of clean ones as a number of nines: 3.0 for 99.9 %. Where all are clean, it is what so many
    /// checks can show: 3.0 for a thousand of them.
    pub nines: f64,
}

/// Counts checks.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) samples: u64,
    pub(crate) probes: u64,
    pub(crate) answers: u64,
    pub(crate) silent: u64,
    pub(crate) looks: u64,
    windows: Vec<(&'static str, u64, u64)>,
    violations: BTreeMap<Invariant, u64>,
    last: VecDeque<CoherencyViolation>,
}

/// How many violations are remembered.
const LAST_MAX: usize = 32;

impl Tally {
    /// So many records were checked, and so many of them were clean.
    pub(crate) fn checked(&mut self, window: &'static str, checks: u64, clean: u64) {
        match self.windows.iter_mut().find(|(of, ..)| *of == window) {
            Some((_, all, good)) => {
                *all += checks;
                *good += clean;
            }
            None => self.windows.push((window, checks, clean)),
        }
    }

    pub(crate) fn found(&mut self, violation: CoherencyViolation) {
        *self.violations.entry(violation.invariant).or_default() += 1;
        if self.last.len() >= LAST_MAX {
            self.last.pop_front();
        }
        self.last.push_back(violation);
    }

    pub(crate) fn report(&self) -> CoherencyReport {
        let window = |(window, checks, clean): &(&'static str, u64, u64)| CoherencyWindow {
            window,
            checks: *checks,
            clean: *clean,
            nines: nines(*checks, *clean),
        };
        CoherencyReport {
            samples: self.samples,
            probes: self.probes,
            answers: self.answers,
            silent: self.silent,
            looks: self.looks,
            windows: self.windows.iter().map(window).collect(),
            violations: self.violations.clone(),
            last: self.last.iter().cloned().collect(),
        }
    }
}

fn nines(checks: u64, clean: u64) -> f64 {
    if checks == 0 {
        return 0.0;
    }
    // One unclean check more than were seen would be no surprise where none was.
    let unclean = checks.saturating_sub(clean).max(1);
    (checks as f64 / unclean as f64).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nines_are_what_so_many_checks_can_show() {
        for (checks, clean, expected) in [
            (0, 0, 0.0),
            (1, 1, 0.0),
            (1_000, 1_000, 3.0),
            (1_000, 999, 3.0),
            (1_000, 990, 2.0),
            (10, 0, 0.0),
        ] {
            let found = nines(checks, clean);
            assert!(
                (found - expected).abs() < 1e-9,
                "{clean} of {checks}: {found}"
            );
        }
    }

    #[test]
    fn only_the_last_violations_are_remembered_and_all_are_counted() {
        let mut tally = Tally::default();
        for seq in 0..100 {
            tally.found(CoherencyViolation {
                invariant: Invariant::Served,
                window: "10ms",
                seq,
                detail: String::new(),
            });
        }
        let report = tally.report();
        assert_eq!(report.violations[&Invariant::Served], 100);
        assert_eq!(report.last.len(), LAST_MAX);
        assert_eq!(report.last.last().unwrap().seq, 99);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["violations"], serde_json::json!({"served": 100}));
    }
}
