//! How fast the origin is asked: as many at once as it bears, and so many in a second.
//!
//! Nobody waits for what is computed ahead of time, so those who do wait must not feel it. As in TCP, one more
//! at once is tried while the origin answers as fast as usual, and half as many are left when it does not
//! (additive increase, multiplicative decrease).
//!
//! **What is usual** is what a computation takes that runs alone. Were it the average of all, the origin could
//! be slowed down step by step, and each step would be usual after a while. If it has become slower for other
//! reasons, that is found out by itself: where it is not as fast as usual for long, one runs at a time for a
//! while, and teaches what is usual now.
//!
//! Computations differ, so it is not the last one that is compared but the average of the last few.

use std::time::Duration;

use crate::clock::Moment;

/// How many may run, and when the next may begin.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How many may run at once; between two whole numbers the smaller.
    limit: f64,
    limit_max: f64,
    running: usize,
    /// How long one takes that runs alone, in seconds.
    usual: Option<f64>,
    /// How long the last few took.
    recent: f64,
    /// How many have ended since more were tried, or fewer left, for the last time.
    unchanged: u32,
    /// When fewer were let run for the last time.
    cut_at: Moment,
    /// When more than one ran for the last time.
    crowded_at: Moment,
    bucket: Bucket,
    paused: bool,
}

/// Whether one may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has begun, and its [`end`](Pace::end) has to be told.
    Go,
    /// Not before this moment.
    Wait(Moment),
    /// Not before one of those that run has ended.
    Full,
    /// Not before [`resume`](Pace::resume).
    Paused,
}

/// How a computation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It brought a result.
    Done,
    /// It failed or took too long.
    Failed,
    /// It was not carried through, which says nothing of the origin: somebody else had the value, or it was
    /// dropped.
    Dropped,
}

impl Pace {
    /// Begins with one at a time. At most `jobs_max` will run at once, and `per_second_max` begin in a second
    /// on average; after a rest, `jobs_max` at once. Both are at least one.
    pub(crate) fn new(jobs_max: usize, per_second_max: u32) -> Self {
        let jobs_max = u32::try_from(jobs_max).unwrap_or(u32::MAX).max(1);
        Self {
            limit: 1.0,
            limit_max: f64::from(jobs_max),
            running: 0,
            usual: None,
            recent: 0.0,
            unchanged: 0,
            cut_at: Moment::default(),
            crowded_at: Moment::default(),
            bucket: Bucket::new(per_second_max, jobs_max),
            paused: false,
        }
    }

    /// How many may run at once now.
    pub(crate) const fn limit(&self) -> usize {
        // Between one and what was given as a whole number.
        self.limit as usize
    }

    /// How many run.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    /// Whether none may begin.
    pub(crate) const fn is_paused(&self) -> bool {
        self.paused
    }

    /// Lets none begin from now on. What runs goes on.
    pub(crate) const fn pause(&mut self) {
        self.paused = true;
    }

    /// Lets them begin again.
    pub(crate) const fn resume(&mut self) {
        self.paused = false;
    }

    /// Begins one, if it may begin now.
    pub(crate) fn begin(&mut self, now: Moment) -> Turn {
        if self.paused {
            return Turn::Paused;
        }
        if self.running >= self.limit() {
            return Turn::Full;
        }
        if let Some(free) = self.bucket.take(now) {
            return Turn::Wait(free);
        }
        self.running += 1;
        self.note_crowd(now);
        Turn::Go
    }

    /// One that began at `began` has ended.
    pub(crate) fn end(&mut self, began: Moment, ending: Ending, now: Moment) {
        self.note_crowd(now);
        let alone = began >= self.crowded_at;
        let was_full = self.running >= self.limit();
        self.running = self.running.saturating_sub(1);
        // What began before the last cut has nothing to say of what was left.
        let counts = began > self.cut_at;
        match ending {
            Ending::Dropped => {}
            Ending::Failed if counts => self.cut(now),
            Ending::Failed => {}
            Ending::Done => {
                self.learn(now.since(began).as_secs_f64(), alone);
                if counts {
                    self.change(was_full, now);
                }
            }
        }
    }

    /// Lets more or fewer run, after one has ended.
    fn change(&mut self, was_full: bool, now: Moment) {
        let usual = self.usual.unwrap_or(self.recent);
        // Those that run alone have to agree first on what is usual: the others will be compared with it.
        let fast = if self.limit() == 1 { AGREED } else { FAST };
        if self.recent <= fast * usual {
            self.unchanged = 0;
            if was_full {
                // One more for each round of as many as there are. Where fewer ran than might have, nothing
                // was learned of more.
                self.limit = (self.limit + 1.0 / self.limit).min(self.limit_max);
            }
            return;
        }
        self.unchanged += 1;
        if self.recent > SLOW * usual {
            self.cut(now);
        } else if self.unchanged >= UNCHANGED_MAX {
            // Is it slow because of those that run, or for other reasons? Alone, it will show.
            (self.limit, self.unchanged, self.cut_at) = (1.0, 0, now);
        }
    }

    fn note_crowd(&mut self, now: Moment) {
        if self.running > 1 {
            self.crowded_at = self.crowded_at.max(now);
        }
    }

    /// Half as many from now on.
    fn cut(&mut self, now: Moment) {
        self.unchanged = 0;
        self.cut_at = now;
        if self.limit() > 1 {
            self.limit = (self.limit / 2.0).max(1.0);
            self.recent = self.usual.unwrap_or(self.recent);
        }
    }

    /// Learns how long one took.
    fn learn(&mut self, took: f64, alone: bool) {
        let Some(usual) = &mut self.usual else {
            (self.usual, self.recent) = (Some(took), took);
            return;
        };
        self.recent += (took - self.recent) * RECENT_SHARE;
        if alone {
            *usual += (took - *usual) * ALONE_SHARE;
        }
        if self.recent < *usual {
            // Among others it cannot be faster than alone.
            *usual += (self.recent - *usual) * FASTER_SHARE;
        }
    }
}

/// So many in a second on average, and a few at once after a rest: the times at which each would begin at an
/// even pace, of which one may be ahead by a little.
#[derive(Debug)]
struct Bucket {
    spacing: Duration,
    ahead_max: Duration,
    next: Moment,
}

impl Bucket {
    fn new(per_second: u32, at_once: u32) -> Self {
        let spacing = Duration::from_secs(1) / per_second.max(1);
        Self {
            spacing,
            ahead_max: spacing.saturating_mul(at_once.saturating_sub(1)),
            next: Moment::default(),
        }
    }

    /// Takes one, or says when there will be one.
    fn take(&mut self, now: Moment) -> Option<Moment> {
        let free = self.next.minus(self.ahead_max);
        if free > now {
            return Some(free);
        }
        self.next = self.next.max(now).plus(self.spacing);
        None
    }
}

/// Up to so many times what is usual, one more is tried.
const FAST: f64 = 1.5;

/// The same while there is one at a time.
const AGREED: f64 = 1.1;

/// Beyond so many times what is usual, half as many are left. In between all stays as it is.
const SLOW: f64 = 2.0;

/// But only for so many in a row.
const UNCHANGED_MAX: u32 = 64;

/// How much the last one counts in the average of the last few: one that takes nine times as long as usual is
/// enough.
const RECENT_SHARE: f64 = 1.0 / 8.0;

/// How much one that ran alone changes what is usual.
const ALONE_SHARE: f64 = 1.0 / 16.0;

/// How much of being faster than usual becomes usual.
const FASTER_SHARE: f64 = 1.0 / 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    /// An origin that computes `at_once` as fast as one, and more of them the slower the more there are.
    struct Origin {
        at_once: usize,
        /// How long the numbered job takes, in ms, while there is room.
        takes: fn(u64) -> u64,
    }

    /// What became of a pace in front of an origin.
    struct Run {
        pace: Pace,
        now: u64,
        number: u64,
        running: Vec<(u64, u64)>,
    }

    impl Run {
        fn new(jobs_max: usize) -> Self {
            Self {
                pace: Pace::new(jobs_max, 1_000_000),
                now: MILLI,
                number: 0,
                running: Vec::new(),
            }
        }

        /// Lets `jobs` more end. Returns the limits met after each.
        fn on(&mut self, origin: &Origin, jobs: usize, ending: Ending) -> Vec<usize> {
            let mut limits = Vec::new();
            while limits.len() < jobs {
                let moment = Moment::from_nanos;
                match self.pace.begin(moment(self.now)) {
                    Turn::Go => {
                        self.number += 1;
                        let crowd = (self.running.len() + 1).div_ceil(origin.at_once) as u64;
                        let takes = (origin.takes)(self.number) * crowd * MILLI;
                        self.running.push((self.now + takes, self.now));
                    }
                    Turn::Wait(free) => self.now = free.as_nanos(),
                    Turn::Full => {
                        self.running.sort_unstable_by(|one, other| other.cmp(one));
                        let (ends, began) = self.running.pop().unwrap();
                        self.now = self.now.max(ends);
                        self.pace.end(moment(began), ending, moment(self.now));
                        limits.push(self.pace.limit());
                    }
                    Turn::Paused => panic!("nobody paused it"),
                }
                assert!((1..=16).contains(&self.pace.limit()));
                assert!(self.pace.running() == self.running.len());
            }
            limits
        }
    }

    fn mean(limits: &[usize]) -> f64 {
        limits.iter().sum::<usize>() as f64 / limits.len() as f64
    }

    #[test]
    fn it_settles_where_the_origin_begins_to_slow_down() {
        let mut run = Run::new(16);
        let origin = Origin {
            at_once: 4,
            takes: |number| 9 + number % 3,
        };
        run.on(&origin, 300, Ending::Done);
        let settled = run.on(&origin, 2_000, Ending::Done);
        assert!(settled.iter().all(|limit| *limit <= 9), "{settled:?}");
        let mean = mean(&settled);
        assert!((3.0..=7.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_quick_origin_is_asked_by_as_many_as_may_and_a_busy_one_by_few() {
        let mut run = Run::new(16);
        let quick = Origin {
            at_once: 100,
            takes: |_| 10,
        };
        run.on(&quick, 300, Ending::Done);
        assert_eq!(run.pace.limit(), 16);
        let busy = Origin {
            at_once: 1,
            takes: |_| 10,
        };
        run.on(&busy, 50, Ending::Done);
        let few = run.on(&busy, 200, Ending::Done);
        assert!(mean(&few) < 2.5, "{few:?}");
    }

    #[test]
    fn an_origin_that_is_slower_for_good_becomes_usual() {
        let origin = |takes| Origin {
            at_once: 100,
            takes,
        };
        let slower: [fn(u64) -> u64; 4] = [|_| 17, |_| 30, |_| 50, |_| 500];
        for takes in slower {
            let mut run = Run::new(8);
            run.on(&origin(|_| 10), 200, Ending::Done);
            assert_eq!(run.pace.limit(), 8);
            let after = run.on(&origin(takes), 400, Ending::Done);
            assert!(after.contains(&1), "it did not look at it alone: {after:?}");
            assert_eq!(run.pace.limit(), 8, "{after:?}");
            // And back.
            run.on(&origin(|_| 10), 400, Ending::Done);
            assert_eq!(run.pace.limit(), 8);
        }
    }

    #[test]
    fn computations_of_different_lengths_are_no_slow_origin() {
        let mut run = Run::new(8);
        let origin = Origin {
            at_once: 100,
            takes: |number| if number % 5 == 0 { 40 } else { 10 },
        };
        run.on(&origin, 200, Ending::Done);
        let limits = run.on(&origin, 1_000, Ending::Done);
        assert!(mean(&limits) > 5.0, "{}", mean(&limits));
    }

    #[test]
    fn failures_leave_one_at_a_time_and_one_burst_of_them_counts_once() {
        let mut run = Run::new(16);
        let origin = Origin {
            at_once: 100,
            takes: |_| 10,
        };
        run.on(&origin, 300, Ending::Done);
        // All sixteen began before the first of them failed.
        let burst = run.on(&origin, 16, Ending::Failed);
        assert_eq!(burst, [8; 16]);
        run.on(&origin, 100, Ending::Failed);
        assert_eq!(run.pace.limit(), 1);
        run.on(&origin, 100, Ending::Dropped);
        assert_eq!(run.pace.limit(), 1, "what was dropped says nothing");
        run.on(&origin, 300, Ending::Done);
        assert_eq!(run.pace.limit(), 16);
    }

    #[test]
    fn with_little_to_do_no_more_are_tried() {
        let mut pace = Pace::new(16, 1_000_000);
        let mut now = 0;
        for _ in 0..1_000 {
            now += 20 * MILLI;
            let began = Moment::from_nanos(now);
            assert_eq!(pace.begin(began), Turn::Go);
            pace.end(began, Ending::Done, Moment::from_nanos(now + 10 * MILLI));
        }
        // One at a time was all there ever was.
        assert_eq!(pace.limit(), 2);
    }

    #[test]
    fn so_many_begin_in_a_second_and_a_few_at_once_after_a_rest() {
        let mut pace = Pace::new(3, 10);
        (pace.limit, pace.running) = (3.0, 0);
        let begin = |pace: &mut Pace, now| {
            let now = Moment::from_nanos(now * MILLI);
            let turn = pace.begin(now);
            if turn == Turn::Go {
                pace.end(now, Ending::Dropped, now);
            }
            turn
        };
        for _ in 0..3 {
            assert_eq!(begin(&mut pace, 1_000), Turn::Go);
        }
        let soon = Turn::Wait(Moment::from_nanos(1_100 * MILLI));
        assert_eq!(begin(&mut pace, 1_000), soon);
        assert_eq!(begin(&mut pace, 1_099), soon);
        assert_eq!(begin(&mut pace, 1_100), Turn::Go);
        let begun = (1_101..11_101).filter(|now| begin(&mut pace, *now) == Turn::Go);
        assert_eq!(begun.count(), 100);
    }

    #[test]
    fn none_begins_while_it_is_paused_and_what_runs_may_end() {
        let mut pace = Pace::new(2, 10);
        let now = Moment::from_nanos(MILLI);
        assert_eq!(pace.begin(now), Turn::Go);
        pace.pause();
        assert_eq!(pace.begin(now), Turn::Paused);
        pace.end(now, Ending::Done, now);
        assert_eq!((pace.begin(now), pace.running()), (Turn::Paused, 0));
        pace.resume();
        assert_eq!(pace.begin(now), Turn::Go);
    }
}
