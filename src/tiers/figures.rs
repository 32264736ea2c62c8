//! What the tiers have done so far, for people to look at.

use std::collections::HashMap;
use std::time::Duration;

use crate::tiers::engine::Tiers;
use crate::tiers::tally::{CacheStats, Tally};

/// What became of the entries for the cold store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ColdFigures {
    /// Entries that wait to be written.
    pub waiting: usize,
    /// Entries that were written.
    pub written: u64,
    /// Entries that never were: there were too many, they had run out, or the store refused them.
    pub dropped: u64,
    /// How often the store failed, or was too slow.
    pub failures: u64,
}

/// What typed caches hold in memory for one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantFigures {
    /// Whose it is.
    pub tenant: String,
    /// Values.
    pub entries: usize,
    /// What they take up.
    pub bytes: u64,
    /// Those that had to go for others.
    pub evictions: u64,
}

impl Tiers {
    /// The `count` tenants with most in memory, the largest first. Looks at all tenants: for people, not for
    /// requests.
    #[must_use]
    pub fn largest_tenants(&self, count: usize) -> Vec<TenantFigures> {
        let mut all = Vec::new();
        self.hot().each(|tenant, space| {
            all.extend(tenant.map(|tenant| TenantFigures {
                tenant: tenant.to_owned(),
                entries: space.len(),
                bytes: space.bytes(),
                evictions: space.evictions(),
            }));
        });
        // By name where they have as much, so that the list does not jump.
        all.sort_unstable_by(|a, b| (b.bytes.cmp(&a.bytes)).then_with(|| a.tenant.cmp(&b.tenant)));
        all.truncate(count);
        all
    }

    /// How many values had to go for others so far: the sum of a count for each tenant, without a look at values.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        let mut all = 0;
        self.hot().each(|_, space| all += space.evictions());
        all
    }

    /// What all typed caches have done so far. Looks at every value in memory, some microseconds for each thousand:
    /// for people, not for requests.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let mut living: HashMap<usize, Vec<(u64, Duration)>> = HashMap::new();
        self.hot().each(|_, space| {
            for (_, kept) in space.iter() {
                let meta = kept.meta();
                let hits = (u64::from(meta.hits()), meta.cost);
                living.entry(meta.tally_id()).or_default().push(hits);
            }
        });
        let tallies = self.tallies();
        let mut all = CacheStats::default();
        for tally in tallies {
            let of_it = living.remove(&Tally::id(&tally)).unwrap_or_default();
            all.add(&tally.stats(of_it.into_iter()));
        }
        all.evictions = self.evictions();
        all.entries = self.len() as u64;
        all.bytes = self.bytes();
        all
    }

    /// What became of the entries that were to be written to the cold store; `None` where there is none.
    #[must_use]
    pub fn cold_figures(&self) -> Option<ColdFigures> {
        let figures = self.cold()?.behind.figures();
        Some(ColdFigures {
            waiting: figures.waiting_entries,
            written: figures.written,
            dropped: figures.dropped,
            failures: figures.failures,
        })
    }
}
