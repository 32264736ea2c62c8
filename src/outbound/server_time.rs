//! Times on the Redis server's clock, and on ours.
//!
//! What is told to others lies in the past, and nobody knows how long a call takes to the server, or
//! whether it is carried out late as a ghost. So it is told in the server's time, which is known from
//! the last answer as well as that took to come and go: bounds are rounded to the safe side.

use std::time::Duration;

use crate::clock::Moment;

/// What the server's clock showed at some moment between two of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerTime {
    /// Milliseconds since the server's epoch.
    pub(crate) shown: u64,
    /// When it was asked.
    pub(crate) asked: Moment,
    /// When the answer was there.
    pub(crate) answered: Moment,
}

impl ServerTime {
    /// No later than what the server's clock shows at `moment`.
    pub(crate) fn at_least(&self, moment: Moment) -> u64 {
        self.server(moment, self.answered, 0)
    }

    /// No earlier than what the server's clock shows at `moment`.
    pub(crate) fn at_most(&self, moment: Moment) -> u64 {
        self.server(moment, self.asked, 1)
    }

    /// The time at the server when it is `moment` here, had it shown its time at `then`.
    fn server(&self, moment: Moment, then: Moment, up: u64) -> u64 {
        let later = millis(moment.since(then)) + up;
        let earlier = millis(then.since(moment) + Duration::from_micros(999));
        if moment > then {
            self.shown.saturating_add(later)
        } else {
            self.shown.saturating_sub(earlier.saturating_sub(up))
        }
    }

    /// No later than when the server's clock shows `time`.
    pub(crate) fn no_later(&self, time: u64) -> Moment {
        self.here(time, self.asked)
    }

    /// No earlier than when the server's clock shows `time`.
    pub(crate) fn no_earlier(&self, time: u64) -> Moment {
        self.here(time.saturating_add(1), self.answered)
    }

    fn here(&self, time: u64, then: Moment) -> Moment {
        let ahead = Duration::from_millis(time.saturating_sub(self.shown));
        let behind = Duration::from_millis(self.shown.saturating_sub(time));
        then.plus(ahead).minus(behind)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the two clocks show, and whenever between question and answer the server looked.
        #[test]
        fn bounds_hold_and_are_as_close_as_the_answer_was_quick(
            asked in 0_u64..10_000_000_000,
            way in 0_u64..100_000_000,
            part in 0_u64..=1000,
            skew in 10_000_000_000_000_u64..20_000_000_000_000,
            moment in 0_u64..20_000_000_000,
        ) {
            // In nanoseconds: the server's clock is `skew` ahead of ours.
            let looked = asked + way / 1000 * part;
            let time = ServerTime {
                shown: (looked + skew) / 1_000_000,
                asked: Moment::from_nanos(asked),
                answered: Moment::from_nanos(asked + way),
            };
            let truth = moment + skew;
            let (least, most) = (
                time.at_least(Moment::from_nanos(moment)),
                time.at_most(Moment::from_nanos(moment)),
            );
            prop_assert!(least * 1_000_000 <= truth, "{least}");
            prop_assert!((most + 1) * 1_000_000 >= truth, "{most}");
            let width = most.saturating_sub(least);
            prop_assert!(width <= way / 1_000_000 + 3, "{width}");
            // There and back, nothing has become safer than it was.
            prop_assert!(time.no_later(least) <= Moment::from_nanos(moment));
            prop_assert!(time.no_earlier(most) >= Moment::from_nanos(moment));
        }
    }
}
