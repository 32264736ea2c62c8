//! What came of looking values up, counted.
//!
//! A hit in memory is counted with its entry, where it costs next to nothing, and added up when the entry goes
//! or somebody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The counts of one tenant, or of what has none.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Hits of entries that are gone.
    hot: AtomicU64,
    /// What computing them as often would have taken, in microseconds.
    saved_us: AtomicU64,
    pub(crate) warm: Count,
    pub(crate) cold: Count,
    pub(crate) misses: Count,
    pub(crate) stale: Count,
    pub(crate) collapsed: Count,
    pub(crate) computed: Count,
    pub(crate) failed: Count,
    computing_us: AtomicU64,
    pub(crate) unreadable: Count,
    pub(crate) too_large: Count,
    pub(crate) early: Count,
}

/// A relaxed counter.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn so_far(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Tally {
    /// Tells tallies apart, as long as they live.
    pub(crate) fn id(tally: &Arc<Self>) -> usize {
        Arc::as_ptr(tally) as usize
    }

    /// An entry goes that was served so often.
    pub(crate) fn leave(&self, hits: u64, cost: Duration) {
        self.hot.fetch_add(hits, Ordering::Relaxed);
        self.saved_us
            .fetch_add(saved(hits, cost), Ordering::Relaxed);
    }

    /// What was found elsewhere need not be computed.
    pub(crate) fn spared(&self, cost: Duration) {
        self.saved_us.fetch_add(saved(1, cost), Ordering::Relaxed);
    }

    /// A computation came to its end.
    pub(crate) fn took(&self, cost: Duration) {
        self.computed.one();
        self.computing_us.fetch_add(micros(cost), Ordering::Relaxed);
    }

    /// The counts, with the hits of entries that are still there.
    pub(crate) fn stats(&self, living: impl Iterator<Item = (u64, Duration)>) -> CacheStats {
        let (mut hot, mut saved_us) = (
            self.hot.load(Ordering::Relaxed),
            self.saved_us.load(Ordering::Relaxed),
        );
        for (hits, cost) in living {
            hot += hits;
            saved_us = saved_us.saturating_add(saved(hits, cost));
        }
        CacheStats {
            hits_hot: hot,
            hits_warm: self.warm.so_far(),
            hits_cold: self.cold.so_far(),
            misses: self.misses.so_far(),
            served_stale: self.stale.so_far(),
            collapsed: self.collapsed.so_far(),
            computed: self.computed.so_far(),
            failed: self.failed.so_far(),
            computing: Duration::from_micros(self.computing_us.load(Ordering::Relaxed)),
            saved: Duration::from_micros(saved_us),
            unreadable: self.unreadable.so_far(),
            too_large: self.too_large.so_far(),
            refreshed_early: self.early.so_far(),
            ..CacheStats::default()
        }
    }
}

fn saved(hits: u64, cost: Duration) -> u64 {
    hits.saturating_mul(micros(cost))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What a cache has done so far, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Values served from this process' memory.
    pub hits_hot: u64,
    /// From Redis. Each has been taken into memory.
    pub hits_warm: u64,
    /// From the cold store. Each has been taken into memory.
    pub hits_cold: u64,
    /// Asked for, and found nowhere.
    pub misses: u64,
    /// Of all that was served: what was past its life.
    pub served_stale: u64,
    /// Callers who waited for somebody else's computation.
    pub collapsed: u64,
    /// Computations that came to a value.
    pub computed: u64,
    /// Computations that did not.
    pub failed: u64,
    /// What they took.
    pub computing: Duration,
    /// What computing would have taken where a value was found.
    pub saved: Duration,
    /// Stored bytes that could not be read: foreign, damaged, of another version or key.
    pub unreadable: u64,
    /// Values that are too large to be stored.
    pub too_large: u64,
    /// Values that were computed anew before their end.
    pub refreshed_early: u64,
    /// Values that had to go for others: of all caches, and 0 for a single one.
    pub evictions: u64,
    /// Values in this process' memory.
    pub entries: u64,
    /// What they take up.
    pub bytes: u64,
}

impl CacheStats {
    /// Adds what another cache has done.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            hits_hot,
            hits_warm,
            hits_cold,
            misses,
            served_stale,
            collapsed,
            computed,
            failed,
            computing,
            saved,
            unreadable,
            too_large,
            refreshed_early,
            evictions,
            entries,
            bytes,
        } = other;
        self.hits_hot += hits_hot;
        self.hits_warm += hits_warm;
        self.hits_cold += hits_cold;
        self.misses += misses;
        self.served_stale += served_stale;
        self.collapsed += collapsed;
        self.computed += computed;
        self.failed += failed;
        self.computing += *computing;
        self.saved = self.saved.saturating_add(*saved);
        self.unreadable += unreadable;
        self.too_large += too_large;
        self.refreshed_early += refreshed_early;
        self.evictions += evictions;
        self.entries += entries;
        self.bytes += bytes;
    }

    /// The share of lookups that were answered without computing, from 0 to 1; `None` before the first.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let hits = self.hits_hot + self.hits_warm + self.hits_cold + self.served_stale;
        let all = hits + self.computed + self.failed;
        (all > 0).then(|| hits as f64 / all as f64)
    }
}
