//! Who may stay in memory: quick_cache, and before it a layer that is choosy about what it stores.
//!
//! The engine alone lets every newcomer in at once, so that scans and loops push out what is asked for often.
//! Here a newcomer that pushed out something worth clearly more than itself is taken out again, and the
//! victim put back: a duel, as in TinyLFU. Where popularity moves fast that is the wrong thing to do, so the
//! outcomes of duels are watched ([`Bets`](crate::tiers::bets::Bets)), and while they come out wrong no victim returns.
//!
//! A hit costs one relaxed counter, which lies where the hit reads anyway. All else happens when something is
//! stored, under a lock per shard that lookups never take.

use std::cmp::Reverse;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, Weighter};

use crate::tiers::bets::{Bet, Side};
use crate::tiers::door::Door;
use crate::tiers::hashed::{BuildHashed, ByHash, HashedKey};
use crate::tiers::uses::Uses;
use crate::tiers::worth::{Cost, Worth};

/// What can be stored. Clones share the counter.
pub(crate) trait Shelved: Clone {
    /// Counts how often it was used. `None` for what takes no part in duels.
    fn uses(&self) -> Option<&Uses>;

    /// What a hit saves, in a unit of the shelf's own, such as microseconds of a round trip and of decoding. Where
    /// it is known, uses are weighed by it for each byte. That finds more answers in the same bytes but fewer
    /// bytes among them, as small ones are kept. `None`, which it is for all of a shelf or for none, weighs uses
    /// alone.
    fn saving(&self) -> Option<u64> {
        None
    }
}

/// A cache bounded in weight.
#[derive(Debug)]
pub(crate) struct Shelf<K, V, W> {
    items: Cache<K, V, W, BuildHashed, Collect>,
    weigher: W,
    /// One for each shard of the engine.
    doors: Box<[Mutex<Door>]>,
    evictions: AtomicU64,
}

/// The right to change what is stored in one shard, and what is remembered of it. Nobody else has it
/// meanwhile, so that nobody sees the middle of a duel: a key that is removed must not come back as a victim,
/// and what was read in a turn holds until its end.
#[derive(Debug)]
pub(crate) struct Turn<'a, K, V, W> {
    shelf: &'a Shelf<K, V, W>,
    door: MutexGuard<'a, Door>,
}

impl<K, V, W> Shelf<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// An empty one for `capacity` of weight, in at most `shards` parts. About `items` are expected: the
    /// engine remembers as many keys after they have gone.
    pub(crate) fn new(capacity: u64, items: usize, shards: usize, weigher: W) -> Self {
        let hasher = BuildHashed::default();
        let options = OptionsBuilder::new()
            .estimated_items_capacity(items)
            .weight_capacity(capacity)
            .shards(shards)
            .hot_allocation(PROVED_SHARE)
            .ghost_allocation(1.0)
            .build();
        let items = match options {
            Ok(options) => Cache::with_options(options, weigher.clone(), hasher, Collect),
            // Both mandatory numbers are set above; the plain constructor takes the same ones.
            Err(_) => Cache::with(items, capacity, weigher.clone(), hasher, Collect),
        };
        let doors = (0..items.num_shards()).map(|_| Mutex::new(Door::new()));
        Self {
            doors: doors.collect(),
            weigher,
            items,
            evictions: AtomicU64::new(0),
        }
    }

    /// Looks up and counts a use.
    #[inline]
    pub(crate) fn get<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        let value = self.items.get(key)?;
        if let Some(uses) = value.uses() {
            uses.count();
        }
        Some(value)
    }

    /// Looks up without a trace.
    pub(crate) fn peek<Q: Hash + Equivalent<K> + ?Sized>(&self, key: &Q) -> Option<V> {
        self.items.peek(key)
    }

    /// Waits for the turn to change what is stored under `key`.
    pub(crate) fn turn(&self, key: &K) -> Turn<'_, K, V, W> {
        let door = lock(&self.doors[self.items.shard_index(key)]);
        Turn { shelf: self, door }
    }

    /// Takes everything out.
    pub(crate) fn clear(&self) {
        // All doors at once, always in the same order; nobody else holds more than one.
        let _doors: Vec<_> = self.doors.iter().map(lock).collect();
        self.items.clear();
    }

    /// Everything, one by one, without a trace.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, V)> + Send
    where
        K: Clone + Send + Sync,
        V: Send + Sync,
        W: Send + Sync,
    {
        self.items.iter()
    }

    pub(crate) fn weight(&self) -> u64 {
        self.items.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.items.capacity()
    }

    /// Changes the capacity; what no longer fits goes at once.
    pub(crate) fn set_capacity(&self, weight: u64) {
        let before = self.items.len();
        self.items.set_capacity(weight);
        // The engine does not say what went. Whoever stores or removes meanwhile makes this a bit wrong.
        self.count_evictions(before.saturating_sub(self.items.len()));
    }

    /// How many items had to go for others or for a smaller capacity.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// What an item would weigh here.
    pub(crate) fn weigh(&self, key: &K, value: &V) -> u64 {
        self.weigher.weight(key, value)
    }

    /// In how many parts it is.
    pub(crate) fn shards(&self) -> usize {
        self.doors.len()
    }

    /// The most that one shard may hold.
    pub(crate) fn shard_capacity(&self) -> u64 {
        self.items.shard_capacity()
    }

    fn worth(&self, uses: u8, key: &K, value: &V) -> Worth {
        let cost = value.saving().map(|saving| Cost {
            saving,
            bytes: self.weigh(key, value),
        });
        Worth { uses, cost }
    }

    fn count_evictions(&self, items: usize) {
        self.evictions.fetch_add(items as u64, Ordering::Relaxed);
    }

    fn uses_of(&self, hash: u64) -> Option<u8> {
        let value = self.items.peek(&ByHash(hash))?;
        value.uses().map(Uses::so_far)
    }
}

impl<K, V, W> Turn<'_, K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// Stores a value that was asked for, in place of one under the same key, unless what would have to go is
    /// worth more; only what `lives` is worth anything. Says whether it is stored.
    pub(crate) fn put(&mut self, key: K, value: V, lives: impl Fn(&V) -> bool) -> bool {
        let (shelf, hash) = (self.shelf, key.hash_value());
        self.door.keep_pace(|| shelf.len() / shelf.doors.len());
        self.door.bets.settle(hash, |stayed| shelf.uses_of(stayed));
        let uses = self.door.sketch.count(hash);
        if let Some(counter) = value.uses() {
            counter.raise(uses);
        }
        let newcomer = shelf.worth(uses, &key, &value);
        let (victims, place) = self.insert(key, value);
        let mut victims: Vec<_> = victims
            .into_iter()
            .map(|(key, victim)| {
                let uses = victim.uses().filter(|_| lives(&victim));
                let uses = uses.map_or(0, Uses::so_far);
                (shelf.worth(uses, &key, &victim), (key, victim))
            })
            .collect();
        victims.sort_by_cached_key(|(worth, _)| Reverse(worth.rank()));
        let dead = victims.partition_point(|(worth, _)| worth.rank() > 0);
        let (worths, mut victims): (Vec<_>, Vec<_>) = victims.into_iter().unzip();
        let (living, dead) = worths.split_at(dead);
        let bytes = dead.iter().filter_map(|worth| worth.cost);
        let free = bytes.map(|cost| cost.bytes).sum();
        if place == Place::Same || !newcomer.yields_to(living, free) {
            self.part(&victims);
            // What is too heavy for a shard the engine has not even let in.
            return place == Place::New || shelf.items.contains_key(&ByHash(hash));
        }
        self.part(&victims.split_off(living.len()));
        self.duel(hash, newcomer, living, victims)
    }

    /// Stores a value whatever has to go for it.
    pub(crate) fn set(&mut self, key: K, value: V) {
        let (victims, _) = self.insert(key, value);
        self.part(&victims);
    }

    /// Takes a value out.
    pub(crate) fn remove(&self, key: &K) {
        self.shelf.items.remove(key);
    }

    /// Has the engine store a value, and says what went for it. What it replaces passes its uses on.
    fn insert(&self, key: K, value: V) -> (Vec<(K, V)>, Place) {
        let (hash, inserted) = (key.hash_value(), value.clone());
        let mut gone = Gone(Vec::new());
        self.shelf
            .items
            .insert_with_lifecycle(key, value, &mut gone);
        let Gone(mut victims) = gone;
        let mut place = Place::New;
        victims.retain(|(key, old)| {
            let is_same = key.hash_value() == hash;
            if is_same {
                place = Place::Same;
                if let (Some(counter), Some(uses)) = (inserted.uses(), old.uses()) {
                    counter.raise(uses.so_far());
                }
            }
            !is_same
        });
        (victims, place)
    }

    /// The newcomer against the victims, those first that are worth most. Says whether it stays.
    fn duel(&mut self, newcomer: u64, worth: Worth, all: &[Worth], victims: Vec<(K, V)>) -> bool {
        let shelf = self.shelf;
        let (Some((best, _)), Some(best_worth)) = (victims.first(), all.first()) else {
            return true;
        };
        let best = best.hash_value();
        let taken_out = if self.door.bets.are_for_victims() {
            shelf.items.remove(&ByHash(newcomer))
        } else {
            None
        };
        let bet = if let Some((key, value)) = taken_out {
            self.put_back(victims, shelf.weigher.weight(&key, &value));
            Bet {
                gone: newcomer,
                stayed: best,
                uses: best_worth.uses.saturating_sub(1),
                winner: Side::Victim,
            }
        } else {
            self.part(&victims);
            Bet {
                gone: best,
                stayed: newcomer,
                uses: worth.uses,
                winner: Side::Newcomer,
            }
        };
        // Which comes back first says nothing of a victim that was only the smaller one.
        if worth.yields_to_one(*best_worth) {
            self.door.bets.place(bet, |stayed| shelf.uses_of(stayed));
        }
        bet.winner == Side::Newcomer
    }

    /// Puts victims back in place of a newcomer, those first that are worth most, but no more than make up for
    /// its weight: the engine may have cleared more than that, and then there is room for the next newcomers
    /// to show what they are worth.
    fn put_back(&mut self, victims: Vec<(K, V)>, weight: u64) {
        let mut room = weight;
        for (place, (key, victim)) in victims.into_iter().enumerate() {
            let weight = self.shelf.weigher.weight(&key, &victim);
            if place > 0 && weight > room {
                self.part(&[(key, victim)]);
                continue;
            }
            room = room.saturating_sub(weight);
            // Each return costs a use, so that nothing lives for ever on its past. It cannot push anything
            // out: it needs no more room than was made for the newcomer.
            if let Some(uses) = victim.uses() {
                uses.spend();
            }
            self.shelf.items.insert(key, victim);
        }
    }

    /// Remembers what went.
    fn part(&mut self, victims: &[(K, V)]) {
        self.shelf.count_evictions(victims.len());
        for (key, victim) in victims {
            if let Some(uses) = victim.uses() {
                self.door.sketch.raise(key.hash_value(), uses.so_far());
            }
        }
    }
}

/// Where a value came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Under a key of its own.
    New,
    /// In place of an older one.
    Same,
}

/// What a door knows are estimates in any case; a panic on the way leaves none that are unsafe to use.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands over what the engine throws out.
#[derive(Clone, Copy, Debug)]
struct Collect;

struct Gone<K, V>(Vec<(K, V)>);

impl<K, V> Default for Gone<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> Lifecycle<K, V> for Collect {
    type RequestState = Gone<K, V>;

    fn on_evict(&self, gone: &mut Gone<K, V>, key: K, value: V) {
        gone.0.push((key, value));
    }
}

/// The share that the engine gives to items that have proved themselves. Its own default of 0.97 leaves
/// newcomers too little time for a second use.
const PROVED_SHARE: f64 = 0.9;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::sync::{Arc, Barrier};

    use proptest::prelude::*;

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
            let mixed = (self.0 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        }
    }

    #[derive(Clone, Debug)]
    struct Value {
        weight: u64,
        version: u64,
        uses: Option<Arc<Uses>>,
        saving: Option<u64>,
    }

    impl Value {
        fn new(weight: u64) -> Self {
            let uses = Some(Arc::default());
            Self {
                weight,
                version: 0,
                uses,
                saving: None,
            }
        }

        fn saving(weight: u64, saving: u64) -> Self {
            Self {
                saving: Some(saving),
                ..Self::new(weight)
            }
        }

        fn marker(weight: u64) -> Self {
            Self {
                uses: None,
                ..Self::new(weight)
            }
        }
    }

    impl Shelved for Value {
        fn uses(&self) -> Option<&Uses> {
            self.uses.as_deref()
        }

        fn saving(&self) -> Option<u64> {
            self.saving
        }
    }

    #[derive(Clone, Copy, Debug)]
    struct ByWeight;

    impl Weighter<Key, Value> for ByWeight {
        fn weight(&self, _: &Key, value: &Value) -> u64 {
            value.weight
        }
    }

    type TestShelf = Shelf<Key, Value, ByWeight>;

    fn shelf(capacity: u64) -> TestShelf {
        Shelf::new(capacity, 100, 1, ByWeight)
    }

    /// Asks for a key and stores it where it is missing. Says whether it was there.
    fn ask(shelf: &TestShelf, key: u64) -> bool {
        let is_there = shelf.get(&Key(key)).is_some();
        if !is_there {
            put(shelf, key, Value::new(1));
        }
        is_there
    }

    fn put(shelf: &TestShelf, key: u64, value: Value) -> bool {
        shelf.turn(&Key(key)).put(Key(key), value, |_| true)
    }

    fn hits(shelf: &TestShelf, keys: impl Iterator<Item = u64>) -> usize {
        keys.filter(|key| ask(shelf, *key)).count()
    }

    /// Full of what was used often.
    fn proved() -> TestShelf {
        let shelf = shelf(100);
        for _ in 0..10 {
            hits(&shelf, 0..100);
        }
        assert_eq!(hits(&shelf, 0..100), 100);
        shelf
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_used() {
        let shelf = proved();
        let mut found = 0;
        for round in 1..=20 {
            assert_eq!(hits(&shelf, round * 1000..round * 1000 + 500), 0);
            found += hits(&shelf, 0..50);
        }
        assert!(found > 950, "{found} of 1000");
    }

    #[test]
    fn what_is_popular_now_replaces_what_was() {
        let shelf = proved();
        for _ in 0..20 {
            hits(&shelf, 1000..1080);
        }
        let found = hits(&shelf, 1000..1080);
        assert!(found > 70, "{found} of 80");
    }

    #[test]
    fn a_refused_newcomer_leaves_everything_as_it_was() {
        let shelf = proved();
        assert!(!put(&shelf, 1000, Value::new(1)));
        assert!(shelf.peek(&Key(1000)).is_none());
        assert_eq!((shelf.len(), shelf.weight()), (100, 100));
        assert!((0..100).all(|key| shelf.peek(&Key(key)).is_some()));
    }

    #[test]
    fn what_asks_often_enough_is_let_in() {
        let shelf = proved();
        let refused = (0..100).take_while(|_| !ask(&shelf, 1000)).count();
        assert!((2..20).contains(&refused), "{refused}");
    }

    #[test]
    fn a_marker_is_never_refused_and_refuses_nobody() {
        let shelf = proved();
        for key in 1000..1100 {
            shelf.turn(&Key(key)).set(Key(key), Value::marker(1));
            assert!(shelf.get(&Key(key)).is_some());
        }
        let full_of_markers = self::shelf(100);
        for key in 0..100 {
            full_of_markers
                .turn(&Key(key))
                .set(Key(key), Value::marker(1));
        }
        for key in 0..100 {
            assert!(full_of_markers.get(&Key(key)).is_some());
        }
        assert!(put(&full_of_markers, 1000, Value::new(1)));
    }

    #[test]
    fn the_dead_refuse_nobody() {
        let shelf = proved();
        let mut turn = shelf.turn(&Key(1000));
        assert!(turn.put(Key(1000), Value::new(1), |_| false));
        drop(turn);
        assert!(shelf.peek(&Key(1000)).is_some());
        assert!(shelf.weight() <= 100);
    }

    #[test]
    fn what_is_replaced_passes_its_uses_on_and_is_never_refused() {
        let shelf = proved();
        for weight in [1, 3] {
            assert!(put(&shelf, 7, Value::new(weight)));
            let uses = shelf.peek(&Key(7)).unwrap().uses.unwrap();
            assert!(uses.so_far() > 9, "{uses:?}");
        }
        shelf.turn(&Key(8)).set(Key(8), Value::new(1));
        assert!(
            shelf
                .peek(&Key(8))
                .unwrap()
                .uses
                .is_some_and(|uses| uses.so_far() > 9)
        );
    }

    #[test]
    fn what_no_shard_can_hold_is_not_stored() {
        let shelf = proved();
        assert!(!put(&shelf, 1000, Value::new(101)));
        assert_eq!(shelf.len(), 100, "nothing had to go for it");
        assert!(!put(&shelf, 7, Value::new(101)));
        assert!(shelf.peek(&Key(7)).is_none(), "nor is what it replaces");
    }

    #[test]
    fn a_heavy_newcomer_is_refused_for_all_or_none_and_the_weight_is_true() {
        let shelf = proved();
        assert!(!put(&shelf, 1000, Value::new(20)));
        assert_eq!((shelf.len(), shelf.weight()), (100, 100));
    }

    #[test]
    fn where_savings_are_known_a_large_newcomer_does_not_push_out_many_small_ones() {
        let full = |saving: fn(u64) -> Value| {
            let shelf = shelf(100);
            for key in 0..100 {
                put(&shelf, key, saving(1));
            }
            shelf
        };
        let plain = full(Value::new);
        assert!(
            put(&plain, 1000, Value::new(50)),
            "nobody was used more often"
        );
        let weighed = full(|weight| Value::saving(weight, 10));
        assert!(!put(&weighed, 1000, Value::saving(50, 11)));
        assert_eq!((weighed.len(), weighed.weight()), (100, 100));
        assert!(put(&weighed, 1001, Value::saving(50, 5000)), "it is dear");
        assert!(weighed.evictions() >= 50 && weighed.weight() <= 100);
    }

    #[test]
    fn the_capacity_changes_at_once_and_everything_can_be_cleared() {
        let shelf = proved();
        shelf.set_capacity(10);
        assert!(shelf.weight() <= 10 && shelf.capacity() == 10);
        hits(&shelf, 0..1000);
        assert!(shelf.weight() <= 10);
        shelf.set_capacity(1000);
        hits(&shelf, 0..900);
        assert!(shelf.len() > 800, "{}", shelf.len());
        shelf.clear();
        assert_eq!((shelf.len(), shelf.weight()), (0, 0));
    }

    /// A victim that is removed in the middle of its duel would be put back if writers did not take turns.
    #[test]
    fn what_is_removed_during_a_duel_does_not_come_back() {
        let shelf = proved();
        let victim = Cell::new(None);
        std::thread::scope(|scope| {
            let mut turn = shelf.turn(&Key(1000));
            let is_stored = turn.put(Key(1000), Value::new(1), |_| {
                if victim.get().is_none() {
                    let is_out = |key: &u64| shelf.peek(&Key(*key)).is_none();
                    let out = (0..100).find(is_out).map(Key);
                    victim.set(out);
                    let key = out.unwrap();
                    let (shelf, begun) = (&shelf, Arc::new(Barrier::new(2)));
                    let begins = Arc::clone(&begun);
                    scope.spawn(move || {
                        begins.wait();
                        shelf.turn(&key).remove(&key);
                    });
                    begun.wait();
                    (0..1000).for_each(|_| std::thread::yield_now());
                }
                true
            });
            assert!(!is_stored);
            drop(turn);
        });
        let victim = victim.get().unwrap();
        assert!(shelf.peek(&victim).is_none());
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Ask(u64, u64),
        Put(u64, u64),
        Set(u64, u64, bool),
        Remove(u64),
        Resize(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let (key, weight) = (0..40_u64, 1..12_u64);
        prop_oneof![
            12 => (key.clone(), weight.clone()).prop_map(|(key, weight)| Deed::Ask(key, weight)),
            4 => (key.clone(), weight.clone()).prop_map(|(key, weight)| Deed::Put(key, weight)),
            2 => (key.clone(), weight, any::<bool>()).prop_map(|(k, w, m)| Deed::Set(k, w, m)),
            2 => key.prop_map(Deed::Remove),
            1 => (20..120_u64).prop_map(Deed::Resize),
        ]
    }

    proptest! {
        /// Whatever happens: what is found is what was stored last, what was removed or refused is not found,
        /// and the weight is that of what is there, within the capacity.
        #[test]
        fn it_holds_what_was_stored_last_within_its_capacity(
            deeds in proptest::collection::vec(deed(), 1..600),
            shards in 1..3_usize,
        ) {
            let shelf = Shelf::new(100, 100, shards, ByWeight);
            let mut last: HashMap<u64, u64> = HashMap::new();
            for (version, deed) in deeds.into_iter().enumerate() {
                let version = version as u64;
                let saving = (shards == 2).then_some(version % 7 * (u64::MAX / 7));
                let of = |weight| Value { version, saving, ..Value::new(weight) };
                let mut stored = None;
                match deed {
                    Deed::Ask(key, _) if shelf.get(&Key(key)).is_some() => {}
                    Deed::Ask(key, weight) | Deed::Put(key, weight) => {
                        let lives = |value: &Value| !value.version.is_multiple_of(5);
                        let is_stored = shelf.turn(&Key(key)).put(Key(key), of(weight), lives);
                        prop_assert_eq!(is_stored, shelf.peek(&Key(key)).is_some());
                        stored = Some(key);
                    }
                    Deed::Set(key, weight, is_marker) => {
                        let mut value = of(weight);
                        value.uses = value.uses.filter(|_| !is_marker);
                        shelf.turn(&Key(key)).set(Key(key), value);
                        stored = Some(key);
                    }
                    Deed::Remove(key) => {
                        shelf.turn(&Key(key)).remove(&Key(key));
                        last.remove(&key);
                    }
                    Deed::Resize(capacity) => shelf.set_capacity(capacity),
                }
                if let Some(key) = stored {
                    last.insert(key, version);
                }
                let mut weight = 0;
                for key in 0..40 {
                    if let Some(value) = shelf.peek(&Key(key)) {
                        prop_assert_eq!(Some(&value.version), last.get(&key));
                        weight += value.weight;
                    }
                }
                prop_assert_eq!(weight, shelf.weight());
                prop_assert!(weight <= shelf.capacity());
            }
        }
    }
}
