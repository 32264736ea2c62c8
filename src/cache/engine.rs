//! The cache itself: what is stored, what is under way, and by which rules.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use foldhash::quality::RandomState;
use http::HeaderName;

use crate::cache::asked::{Asked, Credentials};
use crate::cache::config::{CacheConfig, names};
use crate::cache::entry::Entry;
use crate::cache::fields::FieldRules;
use crate::cache::hot::{HotTier, Slot};
use crate::cache::key::{CacheKey, KeyMaker, KeyPart, KeyView};
use crate::cache::landing::{Boarding, Flights};
use crate::cache::plan::{Plan, RoutePlan};
use crate::cache::policy::Rules;
use crate::cache::probe::probe;
use crate::cache::status::FwdReason;
use crate::cache::vary::VaryRules;
use crate::clock::{Clock, Moment};
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};
use crate::identity::RequestView;
use crate::journal::{Journal, Probing, Stamp, Temperature, Tier, Verdict, Wanted};
use crate::task::Spawner;
use crate::tiers::Tiers;

/// A shared HTTP cache in this process' memory. Cheap to clone; all clones share what is stored.
#[derive(Clone, Debug)]
pub struct Cache {
    shared: Arc<Shared>,
    part: Option<KeyPart>,
}

#[derive(Debug)]
struct Shared {
    config: CacheConfig,
    rules: Rules,
    credentials: Credentials,
    keys: KeyMaker,
    plan: Plan,
    fields: FieldRules,
    tag_fields: Vec<HeaderName>,
    hot: HotTier,
    flights: Arc<Flights>,
    journal: Journal,
    clock: Clock,
    events: Events,
    spawner: Option<Spawner>,
    tiers: Option<Tiers>,
    fingerprint: u64,
    /// Bytes of answers that are being recorded.
    recorded_bytes: AtomicU64,
    /// How many answers are read to their end although their clients have left.
    finishing: AtomicUsize,
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
    /// Where answers are kept behind memory, if they are.
    pub tiers: Option<Tiers>,
}

impl Tier for Shared {
    fn temperature(&self) -> Temperature {
        Temperature::Hot
    }

    fn probe<'a>(&'a self, wanted: &'a Wanted) -> Probing<'a> {
        Box::pin(probe(&self.hot, &self.journal, || self.clock.now(), wanted))
    }
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
        let plan = Plan::compile(
            &config.rules,
            &config.query_rules(),
            "cache.rules",
            &mut Faults::new(),
        );
        let CacheParts {
            journal,
            clock,
            events,
            spawner,
            tiers,
        } = parts;
        let tiers = tiers.filter(|tiers| tiers.config().http && !tiers.is_alone());
        let shared = Shared {
            config: config.clone(),
            rules: config.policy(),
            credentials: config.credentials(),
            keys: KeyMaker {
                authority: config.key_authority,
                query: config.query_rules(),
                hasher: RandomState::default(),
            },
            plan,
            fields: config.field_rules(),
            tag_fields: names(&config.tag_fields),
            hot: HotTier::new(config),
            flights: Flights::new(),
            journal,
            clock,
            events,
            spawner,
            tiers,
            fingerprint: config.fingerprint(),
            recorded_bytes: AtomicU64::new(0),
            finishing: AtomicUsize::new(0),
        };
        let shared = Arc::new(shared);
        let tier: Weak<Shared> = Arc::downgrade(&shared);
        shared.journal.watch(tier);
        Ok(Self { shared, part: None })
    }

    /// The same cache, where `part` tells answers apart beside host and target: a tenant, a plan, a
    /// namespace. Requests for which it says `None` go past the cache.
    #[must_use]
    pub fn with_key_part(mut self, part: KeyPart) -> Self {
        self.part = Some(part);
        self
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

    #[inline]
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    pub(crate) fn field_rules(&self) -> &FieldRules {
        &self.shared.fields
    }

    pub(crate) fn tag_fields(&self) -> &[HeaderName] {
        &self.shared.tag_fields
    }

    pub(crate) fn vary_rules(&self) -> VaryRules {
        self.shared.config.vary_rules()
    }

    /// The rule of a path's route.
    #[inline]
    pub(crate) fn route(&self, path: &str) -> Option<&Arc<RoutePlan>> {
        self.shared.plan.route(path)
    }

    pub(crate) fn keys(&self) -> &KeyMaker {
        &self.shared.keys
    }

    /// The key of a request, if it has one.
    #[inline]
    pub(crate) fn key<'a>(
        &self,
        request: &RequestView<'a>,
        asked: &Asked<'a>,
    ) -> Option<KeyView<'a>> {
        let route = self.shared.plan.key_route(request.uri.path());
        let query = route.and_then(|route| route.query());
        self.shared
            .keys
            .key(request, asked, self.part.as_ref(), query)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    pub(crate) fn spawner(&self) -> Option<&Spawner> {
        self.shared.spawner.as_ref()
    }

    /// Tells settings apart that decide which request a stored answer is for.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.shared.fingerprint
    }

    /// What is behind memory, if something is.
    pub(crate) fn tiers(&self) -> Option<&Tiers> {
        self.shared.tiers.as_ref()
    }

    pub(crate) fn emit(&self, event: Event<'_>) {
        self.shared.events.emit(event);
    }

    /// Tells that a request goes on to the service. Whether one for which nothing is stored is a miss, its answer
    /// will say.
    pub(crate) fn tell_forwarded(&self, reason: FwdReason) {
        self.emit(Event::CacheForwarded {
            reason: reason.as_str(),
        });
        if reason == FwdReason::Stale {
            self.emit(Event::CacheMissed { stale: true });
        }
    }

    #[inline]
    pub(crate) fn slot(&self, key: &KeyView<'_>) -> Option<Slot> {
        self.shared.hot.slot(key)
    }

    /// The same for people to look at, without counting as a use.
    pub(crate) fn peek(&self, key: &KeyView<'_>) -> Option<Slot> {
        self.shared.hot.peek(key)
    }

    pub(crate) fn board(&self, flight: u64, now: Moment) -> Boarding {
        self.shared.flights.board(flight, now, self.flight_wait())
    }

    /// How many answers are being fetched that others may wait for.
    pub(crate) fn flights(&self) -> usize {
        self.shared.flights.len()
    }

    pub(crate) fn finishing(&self) -> &AtomicUsize {
        &self.shared.finishing
    }

    /// How many bytes are being recorded.
    pub(crate) fn recorded_bytes(&self) -> u64 {
        self.shared.recorded_bytes.load(Ordering::Relaxed)
    }

    /// Where the journal stands for the answers of a key.
    pub(crate) fn position(&self, key: &CacheKey) -> Stamp {
        match key.part() {
            Some(tenant) => self.journal().position_for(tenant),
            None => self.journal().position(),
        }
    }

    /// Stores an answer, unless it has been invalidated while it was made: then it would only drive out
    /// what holds. Nor is it stored if it would drive out what was asked for more often.
    pub(crate) fn put(&self, key: CacheKey, entry: Entry) -> Arc<Entry> {
        #[cfg(feature = "fault-injection")]
        let entry = entry.stamped_late(self.journal().stamps_late(), self.position(&key));
        let now = self.shared.clock.now();
        if entry.verdict(self.journal(), now) == Verdict::Gone {
            return Arc::new(entry);
        }
        let bytes = entry.bytes();
        let part_bytes_max = self.shared.config.body_bytes_max;
        // What would have to be asked about in any case is not worth refusing anything for.
        let lives = |entry: &Entry| {
            // One of which that is not known yet may still turn out to be fresh.
            let verdict = entry.verdict(self.journal(), now);
            now < entry.fresh_until && matches!(verdict, Verdict::Fresh | Verdict::Unverified)
        };
        let (entry, is_stored) = self.shared.hot.put(key, entry, part_bytes_max, lives);
        if is_stored {
            self.emit(Event::CacheStored { bytes });
        }
        entry
    }

    /// Puts `new` in the place of `old`, if that is still stored.
    pub(crate) fn replace(&self, key: CacheKey, old: &Arc<Entry>, new: Arc<Entry>) {
        self.shared.hot.replace(key, old, new);
    }

    /// Forgets `old`, if it is still stored.
    pub(crate) fn take_out(&self, key: CacheKey, old: &Arc<Entry>) {
        self.shared.hot.take_out(key, old);
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
            tiers: None,
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
