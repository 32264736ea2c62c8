//! A histogram of durations that many threads fill at once.
//!
//! The buckets are log-linear: each octave of nanoseconds is cut into ten equal parts. A bucket is thus a tenth
//! of its octave's beginning wide at most, and the harmonic mean of its edges is at most 1/21 = 4.8 % away from
//! anything in it. Finding the bucket takes one count of leading zeros and a multiplication; recording takes two
//! relaxed additions. Nothing is ever sorted, sampled, decayed or retained per record.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Parts of an octave.
const PARTS: usize = 10;
/// The first octave begins at 2^9 ns = 512 ns, so that 1 µs still lies within the promised error.
const FIRST_OCTAVE: u32 = 9;
/// 27 octaves end at 2^36 ns = 68.7 s.
const OCTAVES: usize = 27;
/// 270 buckets of 8 bytes.
const BUCKETS: usize = OCTAVES * PARTS;

/// Counts durations from 1 µs to 68 s with a relative error of at most 5 %.
///
/// Shorter ones count as half a microsecond, longer ones as about 67 s. Takes 2.1 KiB.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_nanos: AtomicU64,
}

/// The counts of a [`Histogram`] at one moment. Takes 16 bytes for each bucket that anything fell into: most
/// services use some twenty of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// By bucket, none of them empty.
    counts: Vec<(u16, u64)>,
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
        let counts = self.counts.iter().enumerate();
        let counts = counts.filter_map(|(bucket, count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then_some((bucket as u16, count))
        });
        HistogramSnapshot {
            counts: counts.collect(),
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
        Self::default()
    }

    /// One that is read from elsewhere: counts by bucket, in order. Nothing where they are not.
    pub(crate) fn of(counts: Vec<(u16, u64)>, sum_nanos: u64) -> Option<Self> {
        let known = counts
            .iter()
            .all(|(bucket, count)| usize::from(*bucket) < BUCKETS && *count > 0);
        let ordered = counts.is_sorted_by(|(one, _), (two, _)| one < two);
        (known && ordered).then_some(Self { counts, sum_nanos })
    }

    /// The counts by bucket, in order, none of them zero.
    pub(crate) fn buckets(&self) -> &[(u16, u64)] {
        &self.counts
    }

    /// The sum of all durations in nanoseconds.
    pub(crate) const fn sum_nanos(&self) -> u64 {
        self.sum_nanos
    }

    /// What was counted since `earlier`, a snapshot of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut before = earlier.counts.iter().peekable();
        let counts = self.counts.iter().filter_map(|&(bucket, count)| {
            while before.next_if(|(other, _)| *other < bucket).is_some() {}
            let was = before.next_if(|(other, _)| *other == bucket);
            let more = count.saturating_sub(was.map_or(0, |(_, count)| *count));
            (more > 0).then_some((bucket, more))
        });
        Self {
            counts: counts.collect(),
            sum_nanos: self.sum_nanos.wrapping_sub(earlier.sum_nanos),
        }
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
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
        for &(bucket, here) in &self.counts {
            seen += here;
            if seen >= rank {
                return Some(Duration::from_nanos(mean_of(bucket.into())));
            }
        }
        None
    }

    /// Adds what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
        } else {
            let mut at = 0;
            for &(bucket, count) in &other.counts {
                while self.counts.get(at).is_some_and(|(mine, _)| *mine < bucket) {
                    at += 1;
                }
                // Mostly there already: what is slow or fast today was so a minute ago.
                match self.counts.get_mut(at) {
                    Some((mine, sum)) if *mine == bucket => *sum += count,
                    _ => self.counts.insert(at, (bucket, count)),
                }
            }
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
    }

    /// The buckets in rising order: the mean of each in nanoseconds, and how many were counted in it.
    pub(crate) fn means(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.counts.iter();
        counts.map(|(bucket, count)| (mean_of((*bucket).into()), *count))
    }

    /// How many durations were at most `limit`. A bucket belongs to the side its mean is on, so
    /// records within 5 % of `limit` may be counted on its other side. Never falls from one
    /// snapshot to the next.
    #[must_use]
    pub fn at_most(&self, limit: Duration) -> u64 {
        let within =
            |(bucket, _): &&(u16, u64)| u128::from(mean_of((*bucket).into())) <= limit.as_nanos();
        let counts = self.counts.iter();
        counts.take_while(within).map(|(_, count)| count).sum()
    }
}

/// The bucket that `nanos` falls into.
#[inline]
const fn bucket_of(nanos: u64) -> usize {
    let first = 1 << FIRST_OCTAVE;
    let nanos = if nanos < first { first } else { nanos };
    let octave = nanos.ilog2();
    // The octaves that count end far below the product's overflow.
    let part = ((nanos - (1 << octave)).wrapping_mul(PARTS as u64) >> octave) as usize;
    let bucket = (octave - FIRST_OCTAVE) as usize * PARTS + part;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// The harmonic mean of a bucket's edges in nanoseconds, which is what is reported for everything in it: as far
/// from the one as from the other, as a share of either.
const fn mean_of(bucket: usize) -> u64 {
    let octave = 1 << (bucket / PARTS + FIRST_OCTAVE as usize);
    // The edges are so many tenths of the octave's beginning.
    let (lower, upper) = (
        (PARTS + bucket % PARTS) as u64,
        (PARTS + bucket % PARTS + 1) as u64,
    );
    octave * 2 * lower * upper / (lower + upper) / PARTS as u64
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
        fn quantiles_are_within_a_twentieth_of_the_exact_ones(
            mut nanos in prop::collection::vec(latency(), 1..200),
            q in 0.0f64..=1.0,
        ) {
            let got = filled(&nanos).quantile(q).unwrap().as_nanos() as f64;
            nanos.sort_unstable();
            let rank = ((nanos.len() as f64 * q).ceil() as usize).max(1);
            let exact = nanos[rank - 1] as f64;
            prop_assert!((got - exact).abs() <= exact * 0.05, "{got} for {exact}");
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
        fn what_came_later_is_the_difference(
            one in prop::collection::vec(latency(), 0..50),
            two in prop::collection::vec(latency(), 0..50),
        ) {
            let (early, later) = (filled(&one), filled(&two));
            let mut both = early.clone();
            both.merge(&later);
            prop_assert_eq!(both.since(&early), later);
        }

        #[test]
        fn at_most_is_right_but_for_records_near_the_limit(
            nanos in prop::collection::vec(latency(), 0..100),
            limit in latency(),
        ) {
            let got = filled(&nanos).at_most(Duration::from_nanos(limit));
            let below = |edge: f64| nanos.iter().filter(|n| **n as f64 <= edge).count() as u64;
            prop_assert!(got >= below(limit as f64 * (1.0 - 0.05)));
            prop_assert!(got <= below(limit as f64 * (1.0 + 0.05)));
        }
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(mean_of(bucket)), bucket);
        }
        let mut last = 0;
        for nanos in (0..2_000_000).step_by(7) {
            let bucket = bucket_of(nanos);
            assert!(bucket == last || bucket == last + 1, "at {nanos} ns");
            last = bucket;
        }
    }

    /// The hardest values there are: those at both edges of each bucket.
    #[test]
    fn the_error_is_bounded_at_every_edge() {
        let mut edge = 1_000;
        while edge < 60_000_000_000 {
            for nanos in [edge - 1, edge, edge + 1] {
                let got = filled(&[nanos]).quantile(1.0).unwrap().as_nanos() as f64;
                let exact = nanos as f64;
                assert!((got - exact).abs() <= exact * 0.05, "{got} for {exact}");
            }
            // The next value of another bucket, found by halving.
            let (mut here, mut there) = (edge, edge * 2);
            while there - here > 1 {
                let middle = here + (there - here) / 2;
                if bucket_of(middle) == bucket_of(edge) {
                    here = middle;
                } else {
                    there = middle;
                }
            }
            edge = there;
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
            assert_eq!(
                histogram.snapshot().counts,
                [(bucket as u16, 1)],
                "{time:?}"
            );
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
