//! The cache itself: what is stored, what is under way, and by which rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cache::config::CacheConfig;
use crate::cache::entry::Entry;
use crate::cache::flight::{Boarding, Flights};
use crate::cache::hot::{HotTier, Slot};
use crate::cache::key::{CacheKey, KeyView};
use crate::cache::policy::Rules;
use crate::clock::{Clock, Moment};
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::journal::Journal;
use crate::task::Spawner;

/// A shared HTTP cache in this process' memory. Cheap to clone; all clones share what is stored.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: CacheConfig,
    rules: Rules,
    hot: HotTier,
    flights: Arc<Flights>,
    journal: Journal,
    clock: Clock,
    events: Events,
    spawner: Option<Spawner>,
    /// Bytes of answers that are being recorded.
    recorded_bytes: AtomicU64,
}

/// What a cache is built from beside its own settings.
#[derive(Clone, Debug)]
pub struct CacheParts {
    /// Where invalidations are recorded; share it with the invalidator.
    pub journal: Journal,
    /// Reads time.
    pub clock: Clock,
    /// Hears of hits and misses.
    pub events: Events,
    /// Starts background refreshes. Without one, `stale-while-revalidate` is not offered.
    pub spawner: Option<Spawner>,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    ///
    /// Names every setting that is out of range.
    pub fn new(config: &CacheConfig, parts: CacheParts) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("cache", &mut faults);
        faults.into_result()?;
        let CacheParts {
            journal,
            clock,
            events,
            spawner,
        } = parts;
        let shared = Shared {
            config: config.clone(),
            rules: config.rules(),
            hot: HotTier::new(config),
            flights: Flights::new(),
            journal,
            clock,
            events,
            spawner,
            recorded_bytes: AtomicU64::new(0),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Takes `bytes` more for recordings, if they fit: all of them together have half of the capacity,
    /// beside what is stored. Slow clients could hold any number of large ones otherwise.
    pub(crate) fn hold(&self, bytes: u64) -> bool {
        let held = &self.shared.recorded_bytes;
        let before = held.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.capacity_bytes() / 2;
        if !fits {
            self.release(bytes);
        }
        fits
    }

    pub(crate) fn release(&self, bytes: u64) {
        self.shared
            .recorded_bytes
            .fetch_sub(bytes, Ordering::Relaxed);
    }

    /// How many URLs something is stored for, markers of uncacheable ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.hot.len()
    }

    /// Whether nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory taken up by what is stored, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.hot.bytes()
    }

    /// The most that may be stored, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.shared.hot.capacity()
    }

    /// Changes the capacity at once; what no longer fits is evicted before this returns.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.shared.hot.set_capacity(bytes);
    }

    /// Back to the configured capacity.
    pub fn restore_capacity(&self) {
        self.set_capacity_bytes(self.shared.config.capacity_bytes);
    }

    /// Forgets everything that is stored, to free memory. To make sure that nothing old is served, use
    /// the invalidator instead: it also reaches answers that are still being fetched.
    pub fn clear(&self) {
        self.shared.hot.clear();
    }

    /// The journal that judges what is stored.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &CacheConfig {
        &self.shared.config
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn spawner(&self) -> Option<&Spawner> {
        self.shared.spawner.as_ref()
    }

    pub(crate) fn emit(&self, event: Event<'_>) {
        self.shared.events.emit(event);
    }

    #[inline]
    pub(crate) fn slot(&self, key: KeyView<'_>) -> Option<Arc<Slot>> {
        self.shared.hot.slot(key)
    }

    pub(crate) fn board(&self, key: &CacheKey, variant: u64, now: Moment) -> Boarding {
        self.shared.flights.board(key, variant, now)
    }

    pub(crate) fn put(&self, key: CacheKey, entry: Entry) {
        let bytes = entry.bytes();
        self.shared.hot.put(key, entry);
        self.emit(Event::CacheStored { bytes });
    }

    /// Remembers for a while that the answers of this URL cannot be stored.
    pub(crate) fn pass(&self, key: CacheKey, now: Moment) {
        self.shared
            .hot
            .pass(key, now.plus(self.shared.config.pass_ttl));
    }

    pub(crate) fn flight_wait(&self) -> Duration {
        self.shared.config.flight_wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::JournalConfig;

    #[test]
    fn recordings_have_half_of_the_capacity_and_no_more() {
        let config = CacheConfig {
            capacity_bytes: 1 << 20,
            body_bytes_max: 1 << 18,
            ..CacheConfig::default()
        };
        let parts = CacheParts {
            journal: Journal::new(&JournalConfig::default(), Events::none()).unwrap(),
            clock: Clock::system(),
            events: Events::none(),
            spawner: None,
        };
        let cache = Cache::new(&config, parts).unwrap();
        let capacity = cache.capacity_bytes();
        assert!(cache.hold(capacity / 2 - 1));
        assert!(!cache.hold(2), "refused as a whole");
        assert!(cache.hold(1));
        cache.release(capacity / 2);
        assert!(cache.hold(capacity / 2));
    }
}
