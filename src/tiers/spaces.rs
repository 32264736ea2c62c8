//! One memory for many tenants, of whom none can push out what the others use: a shelf for each, and an
//! allowance that moves between them.
//!
//! What belongs to no tenant has a shelf of its own, the common one. A space that is full asks for more before it
//! evicts, and the rule of [`Shares`] says whose it may have. A hit knows nothing of all this: it is a hit of
//! the space's [`Shelf`]. Allowances change under one lock, which is taken when a full space stores, and that
//! only if something could have become free since it was last refused.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use foldhash::quality::RandomState;
use quick_cache::{Equivalent, Weighter};

use crate::clock::Moment;
use crate::tiers::hashed::HashedKey;
use crate::tiers::shares::{Share, Shares};
use crate::tiers::shelf::{Shelf, Shelved, Turn};

/// How much there is for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// For all together.
    pub(crate) capacity_bytes: u64,
    /// For one tenant. What has no tenant may have everything.
    pub(crate) tenant_bytes_max: u64,
    /// At least one. Whoever comes beyond takes the place of the one that has been idle longest.
    pub(crate) tenants_max: usize,
    /// About so many items are expected in all.
    pub(crate) items: usize,
    /// Parts of the common shelf. A tenant's is in one piece, so that its allowance is not split further.
    pub(crate) shards: usize,
}

/// The spaces of all tenants, and the common one.
#[derive(Debug)]
pub(crate) struct Spaces<K, V, W> {
    bounds: Bounds,
    weigher: W,
    ledger: Arc<Ledger<K, V, W>>,
    common: Arc<Space<K, V, W>>,
    tenants: RwLock<Tenants<K, V, W>>,
}

type Tenants<K, V, W> = HashMap<Box<str>, Arc<Space<K, V, W>>, RandomState>;

/// What one tenant has in memory.
///
/// Whoever still holds the space of a tenant that had to go may go on using it: it is empty, and refuses whatever
/// is to be stored. The tenant gets a new one where it is asked for by name.
#[derive(Debug)]
pub(crate) struct Space<K, V, W> {
    shelf: Shelf<K, V, W>,
    ledger: Arc<Ledger<K, V, W>>,
    id: u64,
    touched: AtomicU64,
    /// The ledger's page on which it was last refused more.
    refused: AtomicU64,
    /// Items stored since then although it was full.
    waited: AtomicU64,
}

impl<K, V, W> Spaces<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// Empty ones. The common space begins with the whole capacity, and gives to those who come.
    pub(crate) fn new(bounds: Bounds, weigher: W) -> Self {
        let ledger = Arc::new(Ledger::new(&bounds));
        let shelf = shelf(&bounds, bounds.shards, weigher.clone());
        let common = ledger.open(shelf, u64::MAX, bounds.capacity_bytes);
        Self {
            bounds,
            weigher,
            ledger,
            common,
            tenants: RwLock::default(),
        }
    }

    /// The space of a tenant, or the common one. A tenant's is made when it is first asked for, and counts as
    /// touched as late as any other. Costs a shared lock and a look into a table if it is there.
    pub(crate) fn space(&self, tenant: Option<&str>) -> Arc<Space<K, V, W>> {
        let Some(tenant) = tenant else {
            return Arc::clone(&self.common);
        };
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = tenants.get(tenant) {
            return Arc::clone(space);
        }
        drop(tenants);
        self.open(tenant)
    }

    /// Shows every space with its tenant, the common one first. No lock is held meanwhile, so that spaces may
    /// come and go.
    pub(crate) fn each(&self, mut show: impl FnMut(Option<&str>, &Space<K, V, W>)) {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = tenants
            .iter()
            .map(|(tenant, space)| (tenant.clone(), Arc::clone(space)))
            .collect();
        drop(tenants);
        show(None, &self.common);
        for (tenant, space) in all {
            show(Some(&tenant), &space);
        }
    }

    /// What all items weigh together: never more than the capacity, as no allowance moves while they are added up.
    pub(crate) fn bytes(&self) -> u64 {
        let book = self.ledger.book();
        let open = book.spaces.iter().filter_map(|(_, space)| space.upgrade());
        open.map(|space| space.bytes()).sum()
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        let mut items = 0;
        self.each(|_, space| items += space.len());
        items
    }

    /// How many tenants have a space.
    pub(crate) fn tenants(&self) -> usize {
        let tenants = self.tenants.read();
        tenants.unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.ledger.book().shares.capacity()
    }

    /// Changes the capacity; what no longer fits goes at once, from those first that have more than the fair
    /// share.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        let mut book = self.ledger.book();
        let changed = book.shares.resize(bytes);
        book.apply(&changed);
        self.ledger.turn_page();
    }

    /// Takes everything out. Spaces and their tenants stay.
    pub(crate) fn clear(&self) {
        self.each(|_, space| space.clear());
    }

    fn open(&self, tenant: &str) -> Arc<Space<K, V, W>> {
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have been faster.
        if let Some(space) = tenants.get(tenant) {
            return Arc::clone(space);
        }
        let latest = tenants.values().map(|space| space.last_touched()).max();
        while tenants.len() >= self.bounds.tenants_max.max(1)
            && let Some(idle) = longest_idle(&tenants)
            && let Some(space) = tenants.remove(&idle)
        {
            self.ledger.close(&space);
        }
        let shelf = shelf(&self.bounds, 1, self.weigher.clone());
        let space = self.ledger.open(shelf, self.bounds.tenant_bytes_max, 0);
        space
            .touched
            .store(latest.unwrap_or_default(), Ordering::Relaxed);
        tenants.insert(tenant.into(), Arc::clone(&space));
        space
    }
}

/// Of those that are equal the oldest.
fn longest_idle<K, V, W>(tenants: &Tenants<K, V, W>) -> Option<Box<str>> {
    let idle = tenants
        .iter()
        .min_by_key(|(_, space)| (space.touched.load(Ordering::Relaxed), space.id))?;
    Some(idle.0.clone())
}

impl<K, V, W> Space<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// Looks up and counts a use, at the price of [`Shelf::get`].
    #[inline]
    pub(crate) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.shelf.get(key)
    }

    /// Looks up without a trace.
    pub(crate) fn peek<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.shelf.peek(key)
    }

    /// Stores a value that was asked for, unless what would have to go is worth more: see [`Turn::put`]. Says
    /// whether it is stored.
    pub(crate) fn put(&self, key: K, value: V, lives: impl Fn(&V) -> bool) -> bool {
        self.make_room(self.shelf.weigh(&key, &value));
        self.shelf.turn(&key).put(key, value, lives)
    }

    /// Stores a value whatever has to go for it in this space. Nothing is stored that is too heavy for it.
    pub(crate) fn set(&self, key: K, value: V) {
        self.make_room(self.shelf.weigh(&key, &value));
        self.shelf.turn(&key).set(key, value);
    }

    /// Takes a value out.
    pub(crate) fn remove(&self, key: &K) {
        self.shelf.turn(key).remove(key);
    }

    /// Waits for the turn to change what is stored under `key`, for whoever has to read before, and sees that
    /// there is room for `bytes`.
    pub(crate) fn turn(&self, key: &K, bytes: u64) -> Turn<'_, K, V, W> {
        self.make_room(bytes);
        self.shelf.turn(key)
    }

    /// Everything, one by one, without a trace.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> + Send
    where
        K: Clone + Send + Sync,
        V: Send + Sync,
        W: Send + Sync,
    {
        self.shelf.iter()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shelf.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.shelf.len()
    }

    /// What it may hold at present.
    pub(crate) fn allowance(&self) -> u64 {
        self.shelf.capacity()
    }

    /// How many items had to go for others.
    pub(crate) fn evictions(&self) -> u64 {
        self.shelf.evictions()
    }

    /// Takes everything out. Its allowance is for others to have until it is used again.
    pub(crate) fn clear(&self) {
        self.shelf.clear();
        self.ledger.turn_page();
    }

    /// Notes that it was used at `now`, if that is new by a second: what all threads read should seldom change.
    pub(crate) fn touched(&self, now: Moment) {
        let (last, now) = (self.last_touched(), now.as_nanos());
        if now.saturating_sub(last) >= NANOS_UNTOUCHED {
            self.touched.fetch_max(now, Ordering::Relaxed);
        }
    }

    fn last_touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }

    /// Asks for more if an item of so many bytes would not fit.
    fn make_room(&self, item: u64) {
        if !self.is_full_for(item) {
            return;
        }
        let page = self.ledger.page.load(Ordering::Relaxed);
        let was_refused = self.refused.load(Ordering::Relaxed) == page;
        // Once in a while others are looked at all the same: what they hold may have become less.
        let waited = self.waited.fetch_add(1, Ordering::Relaxed);
        if was_refused && !waited.is_multiple_of(PUTS_BETWEEN_ASKS) {
            return;
        }
        if !self.ledger.grow(self.id, item) {
            // If the page was turned meanwhile, then it asks once too often rather than once too seldom.
            self.refused.store(page, Ordering::Relaxed);
        }
    }

    fn is_full_for(&self, item: u64) -> bool {
        // The engine takes nothing in that would fill most of a shard.
        self.needs().saturating_add(item) > self.shelf.capacity()
            || item.saturating_mul(2) > self.shelf.shard_capacity()
    }

    /// What it weighs, and a bit more if it is in parts, of which one may be full before the others.
    fn needs(&self) -> u64 {
        let bytes = self.shelf.weight();
        if self.shelf.shards() > 1 {
            bytes.saturating_add(bytes / UNEVEN_PART)
        } else {
            bytes
        }
    }

    /// The engine rounds the capacity of its parts up.
    fn set_allowance(&self, bytes: u64) {
        let shards = (self.shelf.shards() as u64).max(1);
        self.shelf.set_capacity(bytes / shards * shards);
    }
}

/// Who may have how much, and the shelves that are held to it.
#[derive(Debug)]
struct Ledger<K, V, W> {
    book: Mutex<Book<K, V, W>>,
    /// Changes when something becomes free, so that those who were refused ask again.
    page: AtomicU64,
}

#[derive(Debug)]
struct Book<K, V, W> {
    shares: Shares,
    /// In the order of their numbers.
    spaces: Vec<(u64, Weak<Space<K, V, W>>)>,
    next_id: u64,
}

impl<K, V, W> Ledger<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    fn new(bounds: &Bounds) -> Self {
        let spaces_max = (bounds.tenants_max as u64).saturating_add(1);
        let least = bounds.capacity_bytes / spaces_max.saturating_mul(LEASTS_PER_FAIR_SHARE);
        let book = Book {
            shares: Shares::new(bounds.capacity_bytes, least),
            spaces: Vec::new(),
            next_id: 0,
        };
        Self {
            book: Mutex::new(book),
            page: AtomicU64::new(1),
        }
    }

    fn open(
        self: &Arc<Self>,
        shelf: Shelf<K, V, W>,
        quota: u64,
        bytes: u64,
    ) -> Arc<Space<K, V, W>> {
        let mut book = self.book();
        let id = book.next_id;
        book.next_id += 1;
        let space = Arc::new(Space {
            shelf,
            ledger: Arc::clone(self),
            id,
            touched: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        });
        book.spaces.push((id, Arc::downgrade(&space)));
        let changed = book.shares.open(id, quota, bytes);
        book.apply(&changed);
        space
    }

    /// A space takes nothing any more, and what it had is free.
    fn close(&self, space: &Space<K, V, W>) {
        let mut book = self.book();
        book.shares.close(space.id);
        book.spaces.retain(|(id, _)| *id != space.id);
        // From here on nobody gives it a capacity, so what a writer brings late is refused by the engine.
        space.shelf.set_capacity(0);
        self.turn_page();
        drop(book);
        space.shelf.clear();
    }

    /// Gives a space more, if there is more to have. Says whether there was.
    fn grow(&self, id: u64, item: u64) -> bool {
        let mut book = self.book();
        let wanted = book.shares.step().max(item);
        let has_trimmed = book.shares.free() < wanted && book.trim_others(id);
        let changed = book.shares.ask(id, item);
        book.apply(&changed);
        if has_trimmed && book.shares.free() > 0 {
            self.turn_page();
        }
        changed.last().is_some_and(|last| last.id == id)
    }

    fn turn_page(&self) {
        self.page.fetch_add(1, Ordering::Relaxed);
    }
}

impl<K, V, W> Ledger<K, V, W> {
    /// Every change is complete before the next may panic, so what is found is true.
    fn book(&self) -> MutexGuard<'_, Book<K, V, W>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V, W> Book<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// Those who gave come first, so that at no time is more allowed than there is.
    fn apply(&self, changed: &[Share]) {
        for share in changed {
            if let Some(space) = self.space(share.id) {
                space.set_allowance(share.bytes);
            }
        }
    }

    /// What others were allowed and do not use becomes free. Says whether there was any.
    fn trim_others(&mut self, asker: u64) -> bool {
        let mut has_trimmed = false;
        for (id, space) in &self.spaces {
            if *id != asker
                && let Some(space) = space.upgrade()
                && let Some(share) = self.shares.trim(*id, space.needs())
            {
                space.set_allowance(share.bytes);
                has_trimmed = true;
            }
        }
        has_trimmed
    }

    fn space(&self, id: u64) -> Option<Arc<Space<K, V, W>>> {
        let place = self.spaces.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.spaces[place].1.upgrade()
    }
}

/// Made for everything, and cut before it is used: the engine remembers keys that went in proportion to its
/// capacity, and takes its measure when it is built.
fn shelf<K, V, W>(bounds: &Bounds, shards: usize, weigher: W) -> Shelf<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    Shelf::new(bounds.capacity_bytes, bounds.items, shards, weigher)
}

/// If every tenant came that may come, each would have this part of its fair share for certain. Not nothing:
/// the engine forgets its measure where its capacity is zero.
const LEASTS_PER_FAIR_SHARE: u64 = 4;

/// A full space that was refused looks again after so many stored items.
const PUTS_BETWEEN_ASKS: u64 = 256;

/// By this part of its mean may a part of a shelf be fuller than the others.
const UNEVEN_PART: u64 = 8;

const NANOS_UNTOUCHED: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use crate::tiers::uses::Uses;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Key(u64);

    impl Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u64(self.hash_value());
        }
    }

    impl HashedKey for Key {
        fn hash_value(&self) -> u64 {
            (self.0 + 1)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29)
                .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        }
    }

    #[derive(Clone, Debug)]
    struct Value(Arc<(Uses, u64)>);

    impl Shelved for Value {
        fn uses(&self) -> Option<&Uses> {
            Some(&self.0.0)
        }
    }

    fn weighing(weight: u64) -> Value {
        Value(Arc::new((Uses::default(), weight)))
    }

    #[derive(Clone, Copy, Debug)]
    struct ByWeight;

    impl Weighter<Key, Value> for ByWeight {
        fn weight(&self, _: &Key, value: &Value) -> u64 {
            value.0.1
        }
    }

    type TestSpaces = Spaces<Key, Value, ByWeight>;
    type TestSpace = Space<Key, Value, ByWeight>;

    const CAPACITY: u64 = 64_000;

    fn spaces(tenant_bytes_max: u64, tenants_max: usize) -> TestSpaces {
        let bounds = Bounds {
            capacity_bytes: CAPACITY,
            tenant_bytes_max,
            tenants_max,
            items: 6400,
            shards: 1,
        };
        Spaces::new(bounds, ByWeight)
    }

    fn fill(space: &TestSpace, keys: std::ops::Range<u64>) {
        for key in keys {
            if space.get(&Key(key)).is_none() {
                space.put(Key(key), weighing(10), |_| true);
            }
        }
    }

    fn found(space: &TestSpace, keys: std::ops::Range<u64>) -> usize {
        keys.filter(|key| space.peek(&Key(*key)).is_some()).count()
    }

    #[test]
    fn one_tenant_cannot_evict_what_others_have_within_their_fair_share() {
        let spaces = spaces(u64::MAX, 10);
        let (quiet, loud) = (spaces.space(Some("quiet")), spaces.space(Some("loud")));
        fill(&quiet, 0..1500);
        fill(&spaces.common, 0..1500);
        for round in 0..20 {
            fill(&loud, round * 10_000..round * 10_000 + 10_000);
        }
        assert_eq!(found(&quiet, 0..1500), 1500);
        assert_eq!(found(&spaces.common, 0..1500), 1500);
        assert_eq!(quiet.evictions() + spaces.common.evictions(), 0);
        assert!(loud.evictions() > 100_000);
        assert!(loud.bytes() > 30_000, "{}", loud.bytes());
        assert!(spaces.bytes() <= CAPACITY);
    }

    #[test]
    fn a_tenant_keeps_to_its_quota_although_there_is_room() {
        let spaces = spaces(5000, 10);
        let tenant = spaces.space(Some("a"));
        fill(&tenant, 0..2000);
        assert_eq!((tenant.bytes(), tenant.allowance()), (5000, 5000));
    }

    #[test]
    fn whoever_is_alone_has_nearly_everything() {
        let spaces = spaces(u64::MAX, 10);
        let tenant = spaces.space(Some("a"));
        fill(&tenant, 0..6200);
        assert_eq!(found(&tenant, 0..6200), 6200, "{spaces:?}");
        assert_eq!(tenant.evictions(), 0);
    }

    #[test]
    fn the_common_space_has_everything_from_the_start_and_gives_to_those_who_come() {
        let spaces = spaces(u64::MAX, 10);
        fill(&spaces.common, 0..6400);
        assert_eq!(spaces.common.len(), 6400);
        let tenant = spaces.space(Some("a"));
        fill(&tenant, 0..3300);
        assert_eq!(tenant.allowance(), CAPACITY / 2);
        assert!(spaces.common.bytes() <= CAPACITY / 2);
        assert!(spaces.common.evictions() >= 3200);
    }

    #[test]
    fn what_a_tenant_no_longer_holds_others_may_have() {
        let spaces = spaces(u64::MAX, 10);
        let (old, new) = (spaces.space(Some("old")), spaces.space(Some("new")));
        fill(&old, 0..6400);
        fill(&new, 0..6400);
        // But for what the common space is left with.
        assert!(new.allowance().abs_diff(CAPACITY / 2) < 1000);
        old.clear();
        fill(&new, 10_000..16_400);
        assert!(new.allowance() > CAPACITY * 9 / 10, "{}", new.allowance());
        // One by one is noticed as well, if later.
        fill(&old, 0..3200);
        assert!(old.bytes() > CAPACITY * 4 / 10);
        for key in 0..3200 {
            old.remove(&Key(key));
        }
        for round in 2..4 {
            fill(&new, round * 10_000..round * 10_000 + 6400);
        }
        assert!(new.allowance() > CAPACITY * 9 / 10, "{}", new.allowance());
    }

    #[test]
    fn beyond_the_most_the_tenant_that_was_idle_longest_goes() {
        let spaces = spaces(u64::MAX, 3);
        let at = |seconds| Moment::default().plus(Duration::from_secs(seconds));
        let held = ["a", "b", "c"].map(|tenant| spaces.space(Some(tenant)));
        for (space, seconds) in held.iter().zip([20, 10, 30]) {
            space.touched(at(seconds));
            fill(space, 0..100);
        }
        spaces.space(Some("d"));
        spaces.space(Some("e"));
        assert_eq!(spaces.tenants(), 3);
        let [a, b, c] = held;
        assert_eq!((a.len(), b.len(), c.len()), (0, 0, 100));
        assert!(!b.put(Key(1), weighing(1), |_| true));
        b.set(Key(1), weighing(1));
        assert_eq!((b.len(), b.allowance()), (0, 0));
        let again = spaces.space(Some("b"));
        assert!(again.put(Key(1), weighing(1), |_| true));
    }

    #[test]
    fn a_space_that_was_touched_a_moment_ago_is_not_written_to() {
        let spaces = spaces(u64::MAX, 3);
        let at = |millis| Moment::default().plus(Duration::from_millis(millis));
        let space = spaces.space(None);
        space.touched(at(5000));
        space.touched(at(5999));
        assert_eq!(space.last_touched(), at(5000).as_nanos());
        space.touched(at(6000));
        assert_eq!(space.last_touched(), at(6000).as_nanos());
    }

    #[test]
    fn the_capacity_falls_at_the_cost_of_the_large_and_comes_back() {
        let spaces = spaces(u64::MAX, 10);
        let small = spaces.space(Some("small"));
        fill(&small, 0..400);
        fill(&spaces.common, 0..6000);
        spaces.set_capacity(CAPACITY / 4);
        assert_eq!(spaces.capacity(), CAPACITY / 4);
        assert!(spaces.bytes() <= CAPACITY / 4);
        assert_eq!(found(&small, 0..400), 400);
        spaces.set_capacity(CAPACITY);
        fill(&spaces.common, 0..5900);
        assert!(spaces.common.len() > 5800, "{}", spaces.common.len());
        spaces.clear();
        assert_eq!((spaces.len(), spaces.bytes()), (0, 0));
    }

    #[test]
    fn who_takes_a_turn_has_room_made_and_sees_what_is_there() {
        let spaces = spaces(u64::MAX, 10);
        let tenant = spaces.space(Some("a"));
        let mut turn = tenant.turn(&Key(1), 5000);
        assert!(tenant.peek(&Key(1)).is_none());
        turn.set(Key(1), weighing(5000));
        drop(turn);
        let all: Vec<_> = tenant.iter().map(|(key, value)| (key, value.0.1)).collect();
        assert_eq!(all, [(Key(1), 5000)]);
    }

    #[test]
    fn a_large_item_finds_room_that_a_step_would_not_have_made() {
        let spaces = spaces(u64::MAX, 10);
        let tenant = spaces.space(Some("a"));
        assert!(tenant.put(Key(1), weighing(CAPACITY / 5), |_| true));
        assert!(!tenant.put(Key(2), weighing(CAPACITY * 2), |_| true));
        assert_eq!(tenant.len(), 1);
    }

    #[test]
    fn a_shelf_in_parts_is_filled_before_it_evicts() {
        let bounds = Bounds {
            shards: 4,
            ..spaces(u64::MAX, 10).bounds
        };
        let spaces = Spaces::new(bounds, ByWeight);
        spaces.set_capacity(CAPACITY / 16);
        spaces.set_capacity(CAPACITY);
        fill(&spaces.common, 0..5200);
        assert_eq!(spaces.common.evictions(), 0);
        assert_eq!(spaces.common.len(), 5200);
    }

    /// Threads that fill spaces, make them come and go, and change the capacity, while another looks.
    #[test]
    fn at_no_time_is_more_held_than_there_is_room() {
        let spaces = spaces(CAPACITY / 2, 4);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (spaces, done) = (&spaces, &done);
            let writers: Vec<_> = (0..4_u64)
                .map(|writer| {
                    scope.spawn(move || {
                        for key in 0..20_000_u64 {
                            let names = ["a", "b", "c", "d", "e", "f"];
                            let name = names.get((key as usize / 50 + writer as usize) % 7);
                            let space = spaces.space(name.copied());
                            space.touched(Moment::from_nanos(key << 31));
                            space.put(Key(key * 4 + writer), weighing(key % 40), |_| true);
                            if key % 5000 == 4999 {
                                let part = 1 + (key / 5000) % 2;
                                spaces.set_capacity(CAPACITY / part);
                            }
                        }
                    })
                })
                .collect();
            let samples = scope.spawn(move || {
                let mut samples = 0;
                while !done.load(Ordering::Relaxed) {
                    assert!(spaces.bytes() <= CAPACITY);
                    samples += 1;
                }
                samples
            });
            writers
                .into_iter()
                .for_each(|writer| writer.join().unwrap());
            done.store(true, Ordering::Relaxed);
            assert!(samples.join().unwrap() > 0);
        });
        let mut allowed = 0;
        spaces.each(|_, space| allowed += space.allowance());
        assert!(allowed <= spaces.capacity() && spaces.bytes() <= spaces.capacity());
        assert!(spaces.tenants() <= 4 && spaces.len() > 0);
    }
}
