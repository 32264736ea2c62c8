//! Whether a runtime lags behind, from how late tasks are woken.
//!
//! The rule is CoDel's (RFC 8289), for tasks in the place of packets: a queue that is empty now and then
//! does no harm however long it becomes in between, so what counts is the **least** lag of an interval.
//! If for a whole interval nobody was woken in time, there is more work than the runtime gets done.
//!
//! Pure: time is a parameter.

use std::time::Duration;

use crate::clock::Moment;

/// Judges one lag after another.
#[derive(Debug)]
pub(crate) struct LagJudge {
    target: Duration,
    /// Since when no lag was below the target.
    late_since: Option<Moment>,
    /// Since when none was above half of it.
    calm_since: Option<Moment>,
    lagging: bool,
    /// When it last lagged.
    lagged: Option<Moment>,
    /// When it was last judged.
    judged: Moment,
}

/// How a runtime fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lag {
    /// Tasks run when they are ready.
    Calm,
    /// It has as much to do as it can bear.
    Steady,
    /// Tasks that are ready wait.
    Lagging,
}

/// What a lag means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) lag: Lag,
    /// Whether it is to be told: lagging again within [`CALM`] is the same episode.
    pub(crate) begins: bool,
}

impl LagJudge {
    pub(crate) const fn new(target: Duration) -> Self {
        Self {
            target,
            late_since: None,
            calm_since: None,
            lagging: false,
            lagged: None,
            judged: Moment::from_nanos(0),
        }
    }

    /// Judges that at `now` a task was woken `lag` late.
    ///
    /// # Lagging
    ///
    /// Once every lag of [`INTERVAL`] was above the target, or one alone was longer than that.
    ///
    /// # Not lagging
    ///
    /// With the first that is not; and calm once none of an interval was above half the target.
    pub(crate) fn judge(&mut self, now: Moment, lag: Duration) -> Verdict {
        if lag <= self.target {
            self.late_since = None;
            self.lagging = false;
        } else {
            let since = *self.late_since.get_or_insert(now);
            self.lagging = now.since(since) >= INTERVAL || lag > self.overdue();
        }
        self.judged = now;
        self.calm_since = match lag * 2 > self.target {
            true => None,
            false => self.calm_since.or(Some(now)),
        };
        let is_calm = |since| now.since(since) >= INTERVAL;
        let verdict = match self.lagging {
            true => Lag::Lagging,
            false if self.calm_since.is_some_and(is_calm) => Lag::Calm,
            false => Lag::Steady,
        };
        let calm = self.lagged.is_none_or(|lagged| now.since(lagged) > CALM);
        let begins = self.lagging && calm;
        if self.lagging {
            self.lagged = Some(now);
        }
        Verdict {
            lag: verdict,
            begins,
        }
    }

    /// What one delay alone must last to count as lagging.
    pub(crate) fn overdue(&self) -> Duration {
        INTERVAL.max(self.target)
    }

    /// How long to wait until the next look: soon while something is wrong, so that a verdict takes an
    /// interval and not two, and for some time after, while slots that were taken away are given back.
    pub(crate) fn pause(&self) -> Duration {
        let lately = |lagged| self.judged.since(lagged) < RECOVERY;
        if self.late_since.is_some() || self.lagged.is_some_and(lately) {
            WARY
        } else {
            RELAXED
        }
    }
}

/// The delays of the last 10 s.
#[derive(Debug, Default)]
pub(crate) struct LagWindow {
    /// In microseconds, each with its moment. Never more than what fits into [`WINDOW`] at the faster
    /// pace, so it stops growing.
    lags: std::collections::VecDeque<(Moment, u32)>,
}

impl LagWindow {
    pub(crate) fn note(&mut self, now: Moment, lag: Duration) {
        while self
            .lags
            .front()
            .is_some_and(|(at, _)| now.since(*at) >= WINDOW)
            || self.lags.len() >= LAGS_MAX
        {
            self.lags.pop_front();
        }
        let micros = u32::try_from(lag.as_micros()).unwrap_or(u32::MAX);
        self.lags.push_back((now, micros));
    }

    /// What 99 of 100 did not exceed; zero if there are none.
    pub(crate) fn p99(&self) -> Duration {
        let mut lags: Vec<_> = self.lags.iter().map(|(_, micros)| *micros).collect();
        if lags.is_empty() {
            return Duration::ZERO;
        }
        let place = (lags.len() * 99).div_ceil(100) - 1;
        let (_, lag, _) = lags.select_nth_unstable(place);
        Duration::from_micros(u64::from(*lag))
    }
}

/// How long every lag must be above the target.
const INTERVAL: Duration = Duration::from_millis(100);

const RELAXED: Duration = Duration::from_millis(100);
const WARY: Duration = Duration::from_millis(20);

/// How long it takes until all slots are there again, or nearly.
const RECOVERY: Duration = Duration::from_secs(3);

/// How long it must have been well before lagging is told again.
const CALM: Duration = Duration::from_secs(10);

const WINDOW: Duration = Duration::from_secs(10);

/// Ten seconds at the faster pace, and some.
const LAGS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn only_an_interval_in_which_every_lag_is_long_is_lagging() {
        let mut judge = LagJudge::new(TARGET);
        for (millis, lag_ms, lagging, begins) in [
            (0, 0, false, false),
            (100, 20, false, false),
            // One stall that is not too long, and then all is well.
            (900, 99, false, false),
            (920, 0, false, false),
            // Late again and again, but once in time.
            (1000, 21, false, false),
            (1060, 40, false, false),
            (1099, 20, false, false),
            (1140, 30, false, false),
            (1239, 30, false, false),
            (1240, 30, true, true),
            (1300, 90, true, false),
            (1320, 5, false, false),
            // The same episode once more, and another one later.
            (1400, 50, false, false),
            (1500, 50, true, false),
            (1520, 1, false, false),
            (11_510, 50, false, false),
            (11_610, 50, true, true),
            (11_630, 5, false, false),
            // A whole interval's worth at once.
            (25_000, 101, true, true),
        ] {
            let verdict = judge.judge(at(millis), Duration::from_millis(lag_ms));
            let found = (verdict.lag == Lag::Lagging, verdict.begins);
            assert_eq!(found, (lagging, begins), "at {millis} ms");
        }
    }

    #[test]
    fn it_is_calm_again_when_an_interval_was_well_below_the_target() {
        let mut judge = LagJudge::new(TARGET);
        let mut lag = |millis, lag_ms| judge.judge(at(millis), Duration::from_millis(lag_ms)).lag;
        assert_eq!(lag(0, 0), Lag::Steady);
        assert_eq!(lag(100, 10), Lag::Calm);
        assert_eq!(lag(120, 11), Lag::Steady);
        assert_eq!(lag(140, 10), Lag::Steady);
        assert_eq!(lag(239, 1), Lag::Steady);
        assert_eq!(lag(240, 1), Lag::Calm);
        assert_eq!(lag(400, 101), Lag::Lagging);
        assert_eq!(lag(420, 1), Lag::Steady);
    }

    #[test]
    fn it_looks_more_often_while_something_is_wrong() {
        let mut judge = LagJudge::new(TARGET);
        assert_eq!(judge.pause(), RELAXED);
        judge.judge(at(1), Duration::from_millis(50));
        assert_eq!(judge.pause(), WARY);
        judge.judge(at(2), Duration::ZERO);
        assert_eq!(judge.pause(), RELAXED);
    }

    #[test]
    fn the_window_forgets_what_is_older_than_ten_seconds_and_stays_bounded() {
        let mut window = LagWindow::default();
        assert_eq!(window.p99(), Duration::ZERO);
        for millis in 1..=100 {
            window.note(at(millis), Duration::from_millis(millis));
        }
        assert_eq!(window.p99(), Duration::from_millis(99));
        window.note(at(10_100), Duration::from_millis(3));
        assert_eq!(window.p99(), Duration::from_millis(3));
        for millis in 0..10_000 {
            window.note(at(10_200 + millis / 100), Duration::MAX);
        }
        assert_eq!(window.lags.len(), LAGS_MAX);
    }
}
