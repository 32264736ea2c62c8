//! When a circuit opens and for how long it stays so: numbers, and what follows from them.

use std::time::Duration;

/// The settings as the machine asks them.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Failures in a row that open the circuit; `u64::MAX` if none do.
    pub(crate) consecutive: u64,
    /// The share of failures that opens it.
    pub(crate) failure_percent: Option<u64>,
    /// The share of slow calls that opens it.
    pub(crate) slow_percent: Option<u64>,
    /// How many calls within the window make a share.
    pub(crate) calls_min: u64,
    /// How long it stays open.
    pub(crate) open: Duration,
    /// How long at the most, where it stays open for longer each time that a probe has failed.
    pub(crate) open_max: Option<Duration>,
    /// How many probes must succeed to close it.
    pub(crate) probes: u8,
    /// How long the last probe may take before it counts as failed.
    pub(crate) probe: Duration,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    /// Of both.
    pub(crate) slow: u64,
}

impl Sums {
    pub(crate) const fn calls(&self) -> u64 {
        self.succeeded + self.failed
    }
}

impl Rules {
    /// Whether so much opens a circuit. Shares are reached, not passed: half of the calls are enough for 50 %.
    pub(crate) fn trip(&self, in_a_row: u64, sums: &Sums) -> bool {
        let calls = sums.calls();
        let reached = |part: u64, percent: Option<u64>| {
            percent.is_some_and(|percent| part * 100 >= calls * percent)
        };
        let enough = calls >= self.calls_min;
        in_a_row >= self.consecutive
            || (enough && reached(sums.failed, self.failure_percent))
            || (enough && reached(sums.slow, self.slow_percent))
    }

    /// How long it stays open after probes have failed so many times since it was closed: twice as long each
    /// time, where that is wanted.
    pub(crate) fn open_for(&self, probes_failed: u64) -> Duration {
        let Some(most) = self.open_max else {
            return self.open;
        };
        let doublings = u32::try_from(probes_failed).unwrap_or(u32::MAX).min(30);
        self.open.saturating_mul(1 << doublings).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            consecutive: 5,
            failure_percent: Some(50),
            slow_percent: Some(80),
            calls_min: 20,
            open: Duration::from_secs(30),
            open_max: None,
            probes: 3,
            probe: Duration::from_secs(30),
        }
    }

    #[test]
    fn a_circuit_opens_after_failures_in_a_row_or_by_share() {
        for (in_a_row, succeeded, failed, slow, opens) in [
            (4, 0, 4, 0, false),
            (5, 1000, 5, 0, true),
            (1, 10, 9, 0, false),
            (1, 10, 10, 0, true),
            (1, 11, 10, 0, false),
            (0, 20, 0, 15, false),
            (0, 20, 0, 16, true),
            (0, 19, 0, 19, false),
        ] {
            let sums = Sums {
                succeeded,
                failed,
                slow,
            };
            assert_eq!(rules().trip(in_a_row, &sums), opens, "{in_a_row} {sums:?}");
        }
        let none = Rules {
            consecutive: u64::MAX,
            failure_percent: None,
            slow_percent: None,
            ..rules()
        };
        let sums = Sums {
            succeeded: 0,
            failed: 1000,
            slow: 1000,
        };
        assert!(!none.trip(1000, &sums));
    }

    #[test]
    fn it_stays_open_for_twice_as_long_up_to_a_cap_where_that_is_wanted() {
        let growing = Rules {
            open_max: Some(Duration::from_secs(300)),
            ..rules()
        };
        for (failed, secs) in [
            (0, 30),
            (1, 60),
            (2, 120),
            (3, 240),
            (4, 300),
            (u64::MAX, 300),
        ] {
            assert_eq!(growing.open_for(failed), Duration::from_secs(secs));
            assert_eq!(rules().open_for(failed), Duration::from_secs(30));
        }
    }
}
