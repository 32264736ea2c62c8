//! One memory for many tenants, of whom none can push out what the others use: a shelf for each, and an
//! allowance that moves between them.
//!
//! What belongs to no tenant has a space of its own, the common one. Tenants come as they are asked for, and if
//! there are too many, then the one that was idle longest goes with all that it has.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::RandomState;
use quick_cache::Weighter;

use crate::tiers::hashed::HashedKey;
use crate::tiers::shelf::{Shelf, Shelved};
use crate::tiers::space::{Ledger, Space};

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

impl<K, V, W> Spaces<K, V, W>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    /// Empty ones. The common space begins with the whole capacity, and gives to those who come.
    pub(crate) fn new(bounds: Bounds, weigher: W) -> Self {
        let spaces_max = bounds.tenants_max.max(1).saturating_add(1);
        let ledger = Arc::new(Ledger::new(bounds.capacity_bytes, spaces_max));
        let shelf = shelf(&bounds, bounds.shards, weigher.clone());
        let common = ledger.open(shelf, u64::MAX, bounds.capacity_bytes, 0);
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
        for (tenant, space) in self.all() {
            show(tenant.as_deref(), &space);
        }
    }

    /// Every space with its tenant, the common one first.
    pub(crate) fn all(&self) -> Vec<(Option<Box<str>>, Arc<Space<K, V, W>>)> {
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let of_tenants = tenants
            .iter()
            .map(|(tenant, space)| (Some(tenant.clone()), Arc::clone(space)));
        let common = (None, Arc::clone(&self.common));
        std::iter::once(common).chain(of_tenants).collect()
    }

    /// What all items weigh together: never more than the capacity, as no allowance moves while they are added up.
    pub(crate) fn bytes(&self) -> u64 {
        self.ledger.bytes()
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        let mut items = 0;
        self.each(|_, space| items += space.len());
        items
    }

    /// How many tenants have a space.
    #[cfg(test)]
    pub(crate) fn tenants(&self) -> usize {
        let tenants = self.tenants.read();
        tenants.unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.ledger.capacity()
    }

    /// Changes the capacity; what no longer fits goes at once, from those first that have more than the fair
    /// share.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.ledger.resize(bytes);
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
        let quota = self.bounds.tenant_bytes_max;
        let touched = latest.unwrap_or_default();
        let space = self.ledger.open(shelf, quota, 0, touched);
        tenants.insert(tenant.into(), Arc::clone(&space));
        space
    }
}

/// Of those that are equal the oldest.
fn longest_idle<K, V, W>(tenants: &Tenants<K, V, W>) -> Option<Box<str>>
where
    K: HashedKey,
    V: Shelved,
    W: Weighter<K, V> + Clone,
{
    let age = |space: &Space<K, V, W>| (space.last_touched(), space.id());
    let idle = tenants.iter().min_by_key(|(_, space)| age(space))?;
    Some(idle.0.clone())
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

#[cfg(test)]
mod tests {
    use std::hash::Hash;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use crate::clock::Moment;
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

    /// A tenant takes what the common shelf does not use. Of what it keeps, none of its parts may be too small for
    /// the items that fall into it.
    #[test]
    fn a_shelf_in_parts_loses_nothing_while_it_grows_beside_a_tenant() {
        for round in 0..100 {
            let bounds = Bounds {
                capacity_bytes: 64 << 20,
                tenant_bytes_max: 32 << 20,
                tenants_max: 256,
                items: 1 << 16,
                shards: 8,
            };
            let spaces = Spaces::new(bounds, ByWeight);
            let tenant = spaces.space(Some("acme"));
            // As keys of a service: without the evenness of numbers in a row.
            let hasher = foldhash::quality::FixedState::with_seed(round);
            for key in 0..4_000 {
                let key = Key(std::hash::BuildHasher::hash_one(&hasher, key));
                spaces.common.put(key, weighing(534), |_| true);
                tenant.put(key, weighing(534), |_| true);
            }
            let lost = spaces.common.evictions() + tenant.evictions();
            assert_eq!(lost, 0, "round {round}");
        }
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
