//! One tenant's part of a memory that many share, and the ledger of who may have how much of it: see
//! [`spaces`](crate::tiers::spaces).
//!
//! A space that is full asks for more before it evicts, and the rule of [`Shares`] says whose it may have. A hit
//! knows nothing of all this: it is a hit of the space's [`Shelf`]. Allowances change under one lock, which is
//! taken when a full space stores, and that only if something could have become free since it was last refused.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use quick_cache::{Equivalent, Weighter};

use crate::clock::Moment;
use crate::tiers::hashed::HashedKey;
use crate::tiers::shares::{Share, Shares};
use crate::tiers::shelf::{Shelf, Shelved, Turn};

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
    #[cfg(test)]
    pub(crate) fn put(&self, key: K, value: V, lives: impl Fn(&V) -> bool) -> bool {
        self.make_room(self.shelf.weigh(&key, &value));
        self.shelf.turn(&key).put(key, value, lives)
    }

    /// Stores a value whatever has to go for it in this space. Nothing is stored that is too heavy for it.
    #[cfg(test)]
    pub(crate) fn set(&self, key: K, value: V) {
        self.make_room(self.shelf.weigh(&key, &value));
        self.shelf.turn(&key).set(key, value);
    }

    /// Takes a value out.
    #[cfg(test)]
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
    #[cfg(test)]
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

    /// Which of two is older: its number rises with every space that is made.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Notes that it was used at `now`, if that is new by a second: what all threads read should seldom change.
    pub(crate) fn touched(&self, now: Moment) {
        let (last, now) = (self.last_touched(), now.as_nanos());
        if now.saturating_sub(last) >= NANOS_UNTOUCHED {
            self.touched.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// When that was, in nanoseconds of the clock.
    pub(crate) fn last_touched(&self) -> u64 {
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

    /// What it weighs, and a bit more if it is in parts, of which one may be full before the others: items fall
    /// into parts at random, so that one of `n` on average has seldom more than four roots of `n` beyond.
    fn needs(&self) -> u64 {
        let (bytes, shards) = (self.shelf.weight(), self.shelf.shards());
        if shards < 2 {
            return bytes;
        }
        let root = (self.shelf.len() / shards).isqrt().max(ROOTS);
        bytes.saturating_add(bytes / (root / ROOTS) as u64)
    }

    /// The engine rounds the capacity of its parts up.
    fn set_allowance(&self, bytes: u64) {
        let shards = (self.shelf.shards() as u64).max(1);
        self.shelf.set_capacity(bytes / shards * shards);
    }
}

/// Who may have how much, and the shelves that are held to it.
#[derive(Debug)]
pub(crate) struct Ledger<K, V, W> {
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
    /// Of `capacity` bytes for at most so many spaces, of which there are none yet.
    pub(crate) fn new(capacity: u64, spaces_max: usize) -> Self {
        let spaces_max = (spaces_max as u64).max(1);
        let least = capacity / spaces_max.saturating_mul(LEASTS_PER_FAIR_SHARE);
        let book = Book {
            shares: Shares::new(capacity, least),
            spaces: Vec::new(),
            next_id: 0,
        };
        Self {
            book: Mutex::new(book),
            page: AtomicU64::new(1),
        }
    }

    /// A new space with a quota, which begins with `bytes` if they are free, and with the least allowance if not.
    /// It counts as touched at `touched`, in nanoseconds of the clock.
    pub(crate) fn open(
        self: &Arc<Self>,
        shelf: Shelf<K, V, W>,
        quota: u64,
        bytes: u64,
        touched: u64,
    ) -> Arc<Space<K, V, W>> {
        let mut book = self.book();
        let id = book.next_id;
        book.next_id += 1;
        let space = Arc::new(Space {
            shelf,
            ledger: Arc::clone(self),
            id,
            touched: AtomicU64::new(touched),
            refused: AtomicU64::new(0),
            waited: AtomicU64::new(0),
        });
        book.spaces.push((id, Arc::downgrade(&space)));
        let changed = book.shares.open(id, quota, bytes);
        book.apply(&changed);
        space
    }

    /// A space takes nothing any more, and what it had is free.
    pub(crate) fn close(&self, space: &Space<K, V, W>) {
        let mut book = self.book();
        book.shares.close(space.id);
        book.spaces.retain(|(id, _)| *id != space.id);
        // From here on nobody gives it a capacity, so what a writer brings late is refused by the engine.
        space.shelf.set_capacity(0);
        self.turn_page();
        drop(book);
        space.shelf.clear();
    }

    /// What all items weigh together: never more than the capacity, as no allowance moves while they are added up.
    pub(crate) fn bytes(&self) -> u64 {
        let book = self.book();
        let open = book.spaces.iter().filter_map(|(_, space)| space.upgrade());
        open.map(|space| space.bytes()).sum()
    }

    /// Changes the capacity; what no longer fits goes at once.
    pub(crate) fn resize(&self, bytes: u64) {
        let mut book = self.book();
        let changed = book.shares.resize(bytes);
        book.apply(&changed);
        self.turn_page();
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
    pub(crate) fn capacity(&self) -> u64 {
        self.book().shares.capacity()
    }

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

/// If every tenant came that may come, each would have this part of its fair share for certain. Not nothing:
/// the engine forgets its measure where its capacity is zero.
const LEASTS_PER_FAIR_SHARE: u64 = 4;

/// A full space that was refused looks again after so many stored items.
const PUTS_BETWEEN_ASKS: u64 = 256;

/// So many roots of its mean may a part of a shelf be fuller than the others.
const ROOTS: usize = 4;

const NANOS_UNTOUCHED: u64 = 1_000_000_000;
