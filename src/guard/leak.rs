//! Tells a leak from the ways in which healthy memory grows.
//!
//! Memory that grows is nothing unusual: caches fill, an allocator warms up, a day has its noon. What
//! is fed here is therefore what the process uses without what its caches hold, and of that only the
//! least of each two minutes, because a request's memory comes and goes and a leak never goes. Over the
//! minima of the last hour, and of the last 24 minutes so that a leak is seen while it is young, five
//! questions are asked:
//!
//! 1. Does nearly every minimum lie above nearly every earlier one (Kendall's tau), at a slope that most
//!    pairs agree on? A step, or a stair, does not look like that.
//! 2. Is the rise (Theil and Sen: the median of the slopes of all pairs) more than noise?
//! 3. Does it go on? The allocator of a young process grows quickly and then less and less.
//! 4. Does the process itself grow? What a cache gives back stays with the allocator, and then the rest
//!    of the process only seems to grow.
//! 5. Would the budget be used up within hours?
//!
//! The last one also keeps the daily tide out: what swings as a sine once a day by up to a third of the
//! budget, and peaks below 80 % of it, is at no time six hours away from 95 % of it at its slope.
//!
//! Pure: no clock and no memory is read here.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// What is known of a suspected leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeakEstimate {
    /// How fast memory outside of the caches grows.
    pub bytes_per_hour: u64,
    /// How long until 95 % of the budget is in use, at that pace: below 6 hours.
    pub until_limit: Duration,
    /// What to do about it, for a person to read.
    pub recommendation: &'static str,
}

/// Watches the memory of a process for leaks: one [`feed`](Self::feed) a second.
///
/// Holds an hour in 30 points. A feed takes some nanoseconds, and every two minutes some 20 µs.
#[derive(Clone, Debug)]
pub struct LeakDetector {
    budget_bytes: u64,
    /// The bucket that is still open.
    open: Option<Bucket>,
    closed: VecDeque<Bucket>,
    estimate: Option<LeakEstimate>,
    told: Option<Moment>,
}

/// The least of two minutes.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Two-minute steps since the clock's first moment.
    number: u64,
    /// Of the process without its caches.
    rest: u64,
    /// Of the whole process.
    used: u64,
}

impl LeakDetector {
    /// A detector for a process that may use `budget_bytes`.
    #[must_use]
    pub const fn new(budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            open: None,
            closed: VecDeque::new(),
            estimate: None,
            told: None,
        }
    }

    /// Takes note that the process uses `used_bytes`, of which its caches hold `cached_bytes`. Returns
    /// a suspicion when it is to be told: as it arises, and then once an hour while it lasts. Moments go forward; one
    /// that goes back by more than two minutes is passed over.
    pub fn feed(
        &mut self,
        now: Moment,
        used_bytes: u64,
        cached_bytes: u64,
    ) -> Option<LeakEstimate> {
        let bucket = Bucket {
            number: now.as_nanos() / BUCKET_NANOS,
            rest: used_bytes.saturating_sub(cached_bytes),
            used: used_bytes,
        };
        match &mut self.open {
            Some(open) if open.number == bucket.number => {
                open.rest = open.rest.min(bucket.rest);
                open.used = open.used.min(bucket.used);
                return None;
            }
            // A moment that lies further back than what was fed before is of no use any more.
            Some(open) if bucket.number < open.number => return None,
            Some(open) => {
                self.closed.push_back(*open);
                *open = bucket;
            }
            None => {
                self.open = Some(bucket);
                return None;
            }
        }
        let oldest = bucket.number.saturating_sub(HOUR);
        while self.closed.front().is_some_and(|b| b.number < oldest) {
            self.closed.pop_front();
        }
        self.estimate = WINDOWS
            .iter()
            .find_map(|buckets| self.judge(bucket.number.saturating_sub(*buckets), *buckets));
        let estimate = self.estimate?;
        if self.told.is_some_and(|told| now.since(told) < AGAIN) {
            return None;
        }
        self.told = Some(now);
        Some(estimate)
    }

    /// The suspicion as it stands.
    #[must_use]
    pub const fn estimate(&self) -> Option<LeakEstimate> {
        self.estimate
    }

    /// Asks the five questions of the buckets from number `first` on, of which there should be `wanted`.
    fn judge(&self, first: u64, wanted: u64) -> Option<LeakEstimate> {
        let points: Vec<_> = self.closed.iter().filter(|b| b.number >= first).collect();
        // A process that is younger, or that slept, has too few to judge by.
        if (points.len() as u64) * 12 < wanted * 11 {
            return None;
        }
        let trend = Trend::of(&points)?;
        let rises =
            trend.tau >= TAU_MIN && trend.steady >= STEADY_MIN && trend.rise >= self.noise();
        let latest = points.last()?.used;
        let limit = self.budget_bytes / 100 * 95;
        let room = limit.saturating_sub(latest) as f64;
        if !rises || !goes_on(&points, room) || !process_grows(&points, trend.rise) {
            return None;
        }
        let per_hour = trend.slope * HOUR as f64;
        let until_limit = Duration::from_secs_f64((room / per_hour * 3600.0).min(1e9));
        (until_limit < HORIZON).then(|| LeakEstimate {
            bytes_per_hour: per_hour as u64,
            until_limit,
            recommendation: recommendation(until_limit),
        })
    }

    /// A rise that means nothing.
    fn noise(&self) -> f64 {
        (self.budget_bytes / 50).max(NOISE_BYTES) as f64
    }
}

/// How the minima of a window rise.
struct Trend {
    /// Bytes a bucket: the median of the slopes between all pairs.
    slope: f64,
    /// The lower quartile of those slopes as a part of their median.
    steady: f64,
    /// The slope over the whole window.
    rise: f64,
    /// 1 where each point lies above all earlier ones, 0 where there is no order in them.
    tau: f64,
}

impl Trend {
    fn of(points: &[&Bucket]) -> Option<Self> {
        let (mut slopes, mut order) = (Vec::with_capacity(points.len() * points.len() / 2), 0_i64);
        for (place, late) in points.iter().enumerate() {
            for early in &points[..place] {
                let rise = late.rest as f64 - early.rest as f64;
                slopes.push(rise / (late.number - early.number) as f64);
                order += match late.rest.cmp(&early.rest) {
                    std::cmp::Ordering::Greater => 1,
                    std::cmp::Ordering::Equal => 0,
                    std::cmp::Ordering::Less => -1,
                };
            }
        }
        let span = points.last()?.number - points.first()?.number;
        let slope = quantile(&mut slopes, 2)?;
        let steady = quantile(&mut slopes, 4)? / slope;
        Some(Self {
            slope,
            steady,
            rise: slope * span as f64,
            tau: order as f64 / slopes.len() as f64,
        })
    }
}

/// Whether the growth does not end by itself: not where each third of the window grows less than the
/// one before and, if that went on, there would be enough room for all that is still to come.
fn goes_on(points: &[&Bucket], room: f64) -> bool {
    let Some([early, middle, late]) = thirds(points, |bucket| bucket.rest) else {
        return false;
    };
    let (before, after) = (middle - early, late - middle);
    if before <= 0.0 || after <= 0.0 {
        return false;
    }
    let ratio = after / before;
    ratio >= FLATTENING || after * ratio / (1.0 - ratio) > room
}

/// Whether the whole process has grown by at least half of what its part without caches has.
fn process_grows(points: &[&Bucket], rise: f64) -> bool {
    // From the middle of the first third to that of the last are two thirds of the way.
    thirds(points, |bucket| bucket.used).is_some_and(|[early, _, late]| late - early > rise / 3.0)
}

/// The medians of the window's thirds.
fn thirds(points: &[&Bucket], of: impl Fn(&Bucket) -> u64) -> Option<[f64; 3]> {
    let third = points.len() / 3;
    let part = |from: usize| {
        let part = points.get(from..from + third)?;
        let mut values: Vec<_> = part.iter().map(|bucket| of(bucket) as f64).collect();
        quantile(&mut values, 2)
    };
    Some([
        part(0)?,
        part((points.len() - third) / 2)?,
        part(points.len() - third)?,
    ])
}

/// The value that one part out of `parts` lies below: 2 for the median, 4 for the lower quartile.
fn quantile(values: &mut [f64], parts: usize) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let place = values.len() / parts;
    let (_, value, _) = values.select_nth_unstable_by(place, f64::total_cmp);
    Some(*value)
}

const fn recommendation(until_limit: Duration) -> &'static str {
    if until_limit.as_secs() < 3600 {
        "restart this instance at the next quiet moment, and before that take a heap profile: it holds \
         what is never freed"
    } else {
        "compare two heap profiles taken half an hour apart, and look for maps and channels without a \
         bound and for tasks that never end"
    }
}

/// Long enough that most requests end within, so that the minimum is free of them.
const BUCKET_NANOS: u64 = 120_000_000_000;

/// An hour in buckets.
const HOUR: u64 = 30;

/// The windows in buckets, the longest first because its estimate is the best. 24 minutes are the least
/// in which the growth of 1 MiB a minute stands out from an allocator's own.
const WINDOWS: [u64; 2] = [HOUR, 12];

/// How long until the budget's end is soon.
const HORIZON: Duration = Duration::from_secs(6 * 3600);

/// How long after a suspicion was told it is told again.
const AGAIN: Duration = Duration::from_secs(3600);

/// Three stairs of equal height have 0.73; a leak of 1 MiB a minute under noise of 1 MiB has 0.97.
const TAU_MIN: f64 = 0.9;

/// An even rise under noise has more in 49 of 50 windows; where a step comes upon a curve, a quarter of
/// the slopes is far below the median. At 0.7 one healthy start in six was flagged, at this none in 2,400
/// simulated days.
const STEADY_MIN: f64 = 0.85;

/// Allocators round up and keep back by the megabyte.
const NOISE_BYTES: u64 = 8 << 20;

/// Growth below this part of the previous third's is on its way to an end.
const FLATTENING: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = 1_048_576.0;
    const BUDGET: f64 = 450.0 * MIB;

    /// A small generator of its own, so that a seed means the same everywhere and always.
    struct Dice(u64);

    impl Dice {
        /// Evenly from 0 to 1.
        fn roll(&mut self) -> f64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as f64 / (1_u64 << 31) as f64
        }
    }

    /// MiB at a second.
    type Curve = fn(f64) -> f64;

    /// A made-up process, in MiB and seconds.
    struct Process {
        dice: Dice,
        /// What is alive beside the caches at this second, noise aside.
        alive: Curve,
        /// What the caches hold.
        cached: Curve,
        /// What a report takes, once in a hundred seconds.
        report: f64,
        /// Freed memory stays with the allocator, which gives back so little each second.
        given_back: f64,
        resident: f64,
    }

    impl Process {
        fn new(seed: u64, alive: Curve, cached: Curve) -> Self {
            Self {
                dice: Dice(seed),
                alive,
                cached,
                report: 30.0,
                given_back: 0.02,
                resident: 0.0,
            }
        }

        /// What it uses and caches at a second.
        fn at(&mut self, second: f64) -> (u64, u64) {
            // Requests: mostly a few MiB, now and then a report of 30.
            let roll = self.dice.roll();
            let requests = 4.0 * self.dice.roll() + if roll < 0.01 { self.report } else { 0.0 };
            let cached = (self.cached)(second);
            // An entry takes an eighth more than it weighs.
            let live = 60.0 + (self.alive)(second) + requests + cached * 1.125;
            self.resident = (self.resident - self.given_back).max(live);
            ((self.resident * MIB) as u64, (cached * MIB) as u64)
        }
    }

    /// Runs for `hours` and returns what is told, with the minute.
    fn told(mut process: Process, hours: u32) -> Vec<(f64, LeakEstimate)> {
        let mut detector = LeakDetector::new(BUDGET as u64);
        let mut told = Vec::new();
        for second in 0..hours * 3600 {
            let (used, cached) = process.at(f64::from(second));
            let now = Moment::from_nanos(u64::from(second) * 1_000_000_000);
            if let Some(estimate) = detector.feed(now, used, cached) {
                told.push((f64::from(second) / 60.0, estimate));
            }
        }
        told
    }

    fn nothing(_: f64) -> f64 {
        0.0
    }

    /// Fills within two hours.
    fn filling(second: f64) -> f64 {
        64.0 * (second / 7200.0).min(1.0)
    }

    /// An allocator and its tables, warm after half an hour.
    fn warming_up(second: f64) -> f64 {
        40.0 * (1.0 - (-second / 600.0).exp())
    }

    fn leak_from_start(second: f64) -> f64 {
        second / 60.0
    }

    fn leak_after_three_hours(second: f64) -> f64 {
        warming_up(second) + ((second - 3.0 * 3600.0) / 60.0).max(0.0)
    }

    fn slow_leak(second: f64) -> f64 {
        90.0 + second / 60.0 * 0.8
    }

    #[test]
    fn a_leak_of_a_mebibyte_a_minute_is_flagged_within_half_an_hour() {
        let cases: [(&str, Curve, Curve, f64, f64); 5] = [
            ("from the start", leak_from_start, nothing, 0.0, 60.0),
            ("under a filling cache", leak_from_start, filling, 0.0, 60.0),
            ("late", leak_after_three_hours, nothing, 180.0, 60.0),
            (
                "late, under a cache",
                leak_after_three_hours,
                filling,
                180.0,
                60.0,
            ),
            ("a little slower", slow_leak, nothing, 0.0, 48.0),
        ];
        for (case, alive, cached, begins, per_hour) in cases {
            // An allocator that gives back what a report took, and one that keeps all it ever had; there
            // a report would hide the leak for as long as the leak takes to fill its place.
            for (seed, given_back, report) in
                (1..=8).flat_map(|seed| [(seed, 100.0, 30.0), (seed, 0.0, 0.0)])
            {
                let process = Process {
                    given_back,
                    report,
                    ..Process::new(seed, alive, cached)
                };
                let told = told(process, 4);
                let (minute, first) = *told.first().unwrap_or_else(|| panic!("{case}, {seed}"));
                let after = minute - begins;
                assert!(
                    (16.0..=30.0).contains(&after),
                    "{case}, {seed}: after {after} minutes"
                );
                let estimated = first.bytes_per_hour as f64 / MIB;
                let error = (estimated / per_hour - 1.0).abs();
                assert!(error < 0.3, "{case}, {seed}: {estimated} MiB an hour");
                assert!(first.until_limit < HORIZON);
                for pair in told.windows(2) {
                    assert!(
                        pair[1].0 - pair[0].0 >= 60.0,
                        "{case}: told twice within an hour"
                    );
                }
            }
        }
    }

    fn tide(second: f64) -> f64 {
        75.0 * (1.0 - (second / 86_400.0 * std::f64::consts::TAU).cos())
    }

    fn deploy(second: f64) -> f64 {
        warming_up(second) + if second > 5.3 * 3600.0 { 45.0 } else { 0.0 }
    }

    fn stairs(second: f64) -> f64 {
        warming_up(second) + 30.0 * (second / (4.0 * 3600.0)).floor()
    }

    /// A quarter of an hour of heavy exports every hour and a half, rising and falling.
    fn bursts(second: f64) -> f64 {
        let minute = second / 60.0 % 90.0;
        warming_up(second) + (60.0 - (minute - 20.0).abs() * 8.0).max(0.0)
    }

    fn filling_and_evicted(second: f64) -> f64 {
        let hour = second / 3600.0 % 3.0;
        if hour < 2.0 { hour * 40.0 } else { 56.0 }
    }

    /// What was stored by day expires in the evening, within an hour and a half.
    fn draining(second: f64) -> f64 {
        let hour = second / 3600.0;
        if hour < 10.0 {
            (hour * 30.0).min(120.0)
        } else {
            (120.0 - (hour - 10.0) * 80.0).max(5.0)
        }
    }

    #[test]
    fn no_healthy_day_is_flagged() {
        let days: [(&str, Curve, Curve); 8] = [
            ("quiet", nothing, nothing),
            ("warming up", warming_up, filling),
            ("tide", tide, filling),
            ("deploy", deploy, filling),
            ("stairs", stairs, nothing),
            ("bursts", bursts, filling),
            ("eviction", warming_up, filling_and_evicted),
            ("draining", warming_up, draining),
        ];
        for (day, alive, cached) in days {
            for seed in 1..=4 {
                for given_back in [0.0, 0.02, 100.0] {
                    let process = Process {
                        given_back,
                        ..Process::new(seed, alive, cached)
                    };
                    let told = told(process, 24);
                    assert!(told.is_empty(), "{day}, {seed}, {given_back}: {told:?}");
                }
            }
        }
    }

    #[test]
    fn a_leak_that_ends_is_taken_back_and_one_that_stays_is_told_by_the_hour() {
        fn ends(second: f64) -> f64 {
            second.min(40.0 * 60.0) / 60.0
        }
        let mut process = Process {
            given_back: 100.0,
            ..Process::new(3, ends, nothing)
        };
        let mut detector = LeakDetector::new(BUDGET as u64);
        let mut suspected = Vec::new();
        for second in 0..4 * 3600_u32 {
            let (used, cached) = process.at(f64::from(second));
            detector.feed(
                Moment::from_nanos(u64::from(second) * 1_000_000_000),
                used,
                cached,
            );
            suspected.push(detector.estimate().is_some());
        }
        assert!(suspected[35 * 60] && !suspected[4 * 3600 - 1]);
    }

    #[test]
    fn gaps_and_absurd_numbers_are_no_leak() {
        let mut detector = LeakDetector::new(0);
        for (nanos, used, cached) in [
            (0, 0, u64::MAX),
            (u64::MAX / 2, u64::MAX, 0),
            (5, 1, 1),
            (u64::MAX, 3, 9),
            (0, u64::MAX, 0),
        ] {
            assert_eq!(detector.feed(Moment::from_nanos(nanos), used, cached), None);
        }
        let mut detector = LeakDetector::new(0);
        // A minute of growth, then hours of sleep, again and again.
        for hour in 0..40_u64 {
            let now = Moment::from_nanos(hour * 3_600_000_000_000);
            assert_eq!(detector.feed(now, hour << 26, 0), None);
        }
    }

    #[test]
    fn moments_that_go_back_are_passed_over() {
        let at = |second: u64| Moment::from_nanos(second * 1_000_000_000);
        let (mut steady, mut jumpy) = (LeakDetector::new(1 << 30), LeakDetector::new(1 << 30));
        for second in 1800..7200 {
            let used = (100 << 20) + (second << 16);
            steady.feed(at(second), used, 0);
            jumpy.feed(at(second), used, 0);
            jumpy.feed(at(second - 1800), 0, 0);
        }
        assert!(steady.estimate().is_some());
        assert_eq!(jumpy.estimate(), steady.estimate());
    }
}
