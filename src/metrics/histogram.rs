//! A histogram of durations that many threads fill at once.
//!
//! The buckets are log-linear: each octave of nanoseconds is cut into eight equal parts. A bucket is
//! thus an eighth of its lower edge wide, and its middle is at most 1/16 = 6.25 % away from anything
//! in it. Finding the bucket takes one count of leading zeros; recording takes two relaxed additions.
//! Nothing is ever sorted, sampled, decayed or retained per record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of an octave, as a power of two: 2^3 = 8.
const PARTS_LOG2: u32 = 3;
/// Parts of an octave.
const PARTS: usize = 1 << PARTS_LOG2;
/// The first octave begins at 2^9 ns = 512 ns, so that 1 µs still lies within the promised error.
const FIRST_OCTAVE: u32 = 9;
/// 27 octaves end at 2^36 ns = 68.7 s.
const OCTAVES: usize = 27;
/// 216 buckets of 8 bytes.
const BUCKETS: usize = OCTAVES * PARTS;

/// Counts durations from 1 µs to 68 s with a relative error of at most 6.25 %.
///
/// Shorter ones count as half a microsecond, longer ones as about 67 s.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

/// The counts of a [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Box<[u64]>,
    sum_nanos: u64,
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum_nanos: AtomicU64::new(0),
        }
    }

    /// Counts `time`.
    #[inline]
    pub fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(bucket_of(nanos)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        // Most waits in a queue are no waits at all, and adding nothing still costs an atomic.
        if nanos > 0 {
            self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// The counts as they are. Records that arrive meanwhile may be in it or not.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let counts = self.counts.iter();
        HistogramSnapshot {
            counts: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            sum_nanos: self.sum_nanos.load(Ordering::Relaxed),
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl HistogramSnapshot {
    /// One in which nothing is counted.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            counts: vec![0; BUCKETS].into(),
            sum_nanos: 0,
        }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations; exact.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// The duration that the share `q` of all records does not exceed, `0.5` being the median. `q` is
    /// clamped to 0..=1; `None` if nothing was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, here) in self.counts.iter().enumerate() {
            seen += here;
            if seen >= rank {
                return Some(Duration::from_nanos(middle_of(bucket)));
            }
        }
        None
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
    }

    /// How many durations were at most `limit`. A bucket belongs to the side its middle is on, so
    /// records within 6.25 % of `limit` may be counted on its other side. Never falls from one
    /// snapshot to the next.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> u64 {
        let within =
            |(bucket, _): &(usize, &u64)| u128::from(middle_of(*bucket)) <= limit.as_nanos();
        let counts = self.counts.iter().enumerate();
        counts.take_while(within).map(|(_, count)| count).sum()
    }
}

/// The bucket that `nanos` falls into.
#[inline]
const fn bucket_of(nanos: u64) -> usize {
    let first = 1 << FIRST_OCTAVE;
    let nanos = if nanos < first { first } else { nanos };
    let octave = nanos.ilog2();
    let part = (nanos >> (octave - PARTS_LOG2)) as usize & (PARTS - 1);
    let bucket = (octave - FIRST_OCTAVE) as usize * PARTS + part;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// The middle of a bucket in nanoseconds: what is reported for everything in it.
const fn middle_of(bucket: usize) -> u64 {
    let width = 1 << (bucket / PARTS + (FIRST_OCTAVE - PARTS_LOG2) as usize);
    let lower = (PARTS + bucket % PARTS) as u64 * width;
    lower + width / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(nanos: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::new();
        for nanos in nanos {
            histogram.record(Duration::from_nanos(*nanos));
        }
        histogram.snapshot()
    }

    /// From 1 µs to 60 s, each order of magnitude as likely as the next.
    fn latency() -> impl Strategy<Value = u64> {
        (10u32..36, any::<u64>())
            .prop_map(|(octave, rest)| ((1 << octave) | (rest % (1 << octave))).min(60_000_000_000))
            .prop_map(|nanos| nanos.max(1_000))
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_sixteenth_of_the_exact_ones(
            mut nanos in prop::collection::vec(latency(), 1..200),
            q in 0.0f64..=1.0,
        ) {
            let got = filled(&nanos).quantile(q).unwrap().as_nanos() as f64;
            nanos.sort_unstable();
            let rank = ((nanos.len() as f64 * q).ceil() as usize).max(1);
            let exact = nanos[rank - 1] as f64;
            prop_assert!((got - exact).abs() <= exact * 0.0625, "{got} for {exact}");
        }

        #[test]
        fn merging_is_counting_both(
            one in prop::collection::vec(latency(), 0..50),
            two in prop::collection::vec(latency(), 0..50),
        ) {
            let mut merged = filled(&one);
            merged.merge(&filled(&two));
            prop_assert_eq!(merged, filled(&[one, two].concat()));
        }

        #[test]
        fn at_most_is_right_but_for_records_near_the_limit(
            nanos in prop::collection::vec(latency(), 0..100),
            limit in latency(),
        ) {
            let got = filled(&nanos).at_most(Duration::from_nanos(limit));
            let below = |edge: f64| nanos.iter().filter(|n| **n as f64 <= edge).count() as u64;
            prop_assert!(got >= below(limit as f64 * (1.0 - 0.0625)));
            prop_assert!(got <= below(limit as f64 * (1.0 + 0.0625)));
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
        let mut last = 0;
        for nanos in (0..2_000_000).step_by(7) {
            let bucket = bucket_of(nanos);
            assert!(bucket == last || bucket == last + 1, "at {nanos} ns");
            last = bucket;
        }
    }

    #[test]
    fn extremes_land_in_the_outer_buckets() {
        for (time, bucket) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 0),
            (Duration::from_secs(69), BUCKETS - 1),
            (Duration::MAX, BUCKETS - 1),
        ] {
            let histogram = Histogram::new();
            histogram.record(time);
            assert_eq!(histogram.snapshot().counts[bucket], 1, "{time:?}");
        }
    }

    #[test]
    fn an_empty_histogram_has_no_quantiles() {
        assert_eq!(HistogramSnapshot::empty(), Histogram::new().snapshot());
        assert_eq!(HistogramSnapshot::empty().quantile(0.5), None);
    }

    #[test]
    fn the_sum_is_exact() {
        let snapshot = filled(&[1_500, 2_500_000, 123]);
        assert_eq!(snapshot.sum(), Duration::from_nanos(2_501_623));
        assert_eq!(snapshot.count(), 3);
    }
}
