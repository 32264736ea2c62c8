//! When a queue stands instead of flowing: controlled delay.
//!
//! A queue is there for bursts. One that empties again within an interval has done its work, however long
//! it was; one in which even the least wait of a whole interval was above the target only makes everybody
//! late, and the longer it is the less it helps. Nichols and Jacobson, "Controlling Queue Delay" (2012), in
//! the form that Maurer describes for servers ("Fail at Scale", 2015): while the queue stands, nobody waits
//! for more than twice the target.

use std::time::Duration;

use crate::clock::Moment;

/// Judges one queue by the waits it sees.
#[derive(Debug)]
pub(crate) struct Codel {
    target: Duration,
    interval: Duration,
    /// When the present interval is over.
    until: Moment,
    /// The least wait in it so far.
    least: Duration,
    stands: bool,
}

impl Codel {
    pub(crate) const fn new(target: Duration, interval: Duration) -> Self {
        Self {
            target,
            interval,
            until: Moment::from_nanos(0),
            least: Duration::ZERO,
            stands: false,
        }
    }

    /// Takes note of how long the oldest one has waited by `now`; how long anybody may wait for, if the
    /// queue stands.
    pub(crate) fn observe(&mut self, waited: Duration, now: Moment) -> Option<Duration> {
        if now >= self.until {
            self.stands = self.least > self.target;
            self.until = now.plus(self.interval);
            self.least = waited;
        } else {
            self.least = self.least.min(waited);
        }
        self.stands.then(|| self.target * 2)
    }

    /// The queue is empty: it flows.
    pub(crate) const fn emptied(&mut self) {
        self.least = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn at(millis: u64) -> Moment {
        Moment::default().plus(ms(1_000 + millis))
    }

    #[test]
    fn a_burst_that_flows_off_within_an_interval_is_left_alone() {
        let mut codel = Codel::new(ms(20), ms(100));
        for step in 0..9 {
            assert_eq!(codel.observe(ms(50 + step), at(10 * step)), None);
        }
        codel.emptied();
        assert_eq!(codel.observe(ms(90), at(150)), None, "it was empty since");
    }

    #[test]
    fn a_queue_that_stands_for_an_interval_bounds_the_wait_until_it_flows_again() {
        let mut codel = Codel::new(ms(20), ms(100));
        for step in 0..10 {
            assert_eq!(codel.observe(ms(21), at(10 * step)), None, "{step}");
        }
        assert_eq!(codel.observe(ms(21), at(100)), Some(ms(40)));
        assert_eq!(codel.observe(ms(19), at(150)), Some(ms(40)), "flows");
        assert_eq!(codel.observe(ms(60), at(200)), None, "and was seen to");
        assert_eq!(codel.observe(ms(60), at(300)), Some(ms(40)));
        codel.emptied();
        assert_eq!(codel.observe(ms(60), at(400)), None);
    }

    #[test]
    fn a_long_silence_is_no_standing_queue() {
        let mut codel = Codel::new(ms(20), ms(100));
        assert_eq!(codel.observe(ms(30), at(0)), None);
        codel.emptied();
        assert_eq!(codel.observe(ms(30), at(60_000)), None);
        assert_eq!(codel.observe(ms(30), at(60_050)), None);
    }
}
