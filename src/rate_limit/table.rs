//! Buckets in a table of fixed size.
//!
//! The table is an array of lines, each one cache line of eight slots. A key may live in either of
//! two lines that its hash names, in any slot, but is at home in one slot of the first: most keys are
//! found there at first sight. Others go to the second line only as the first fills up. Looking a key up
//! reads one line, seldom two, and charging it is one compare-and-swap. Nothing is ever allocated, moved or
//! rehashed after it was built, and nothing needs tidying: a bucket that is full again is the same as none,
//! so that its slot is free for whoever comes. Slots that nobody has had yet are given first, so that
//! whoever comes back finds its own for as long as there are some.
//!
//! **When both lines are full** of buckets in use, the one closest to being full gives way: its key
//! loses the least by being forgotten. A flood of new keys thus drives out its own kind, each used
//! once, rather than the keys of the same rule that are being refused. Rules share the table and are
//! ranked by time: one of short windows is forgotten before one of long windows. Evictions are counted.
//!
//! **Two keys with the same tag** in the same line share a bucket: one in some 65,000 keys of a full
//! table finds such a twin, and is then limited a little more strictly, or goes on with the twin's bucket. The seed is random for each process
//! and hashes are never shown, so a client cannot tell whose twin it would be.
//!
//! **Inserting** a key takes one of some locks, chosen by the key, because two threads that insert the
//! same key at the same time would otherwise find room in different places and give it two buckets.
//! A key that is there is charged without a lock.

use std::hash::{BuildHasher, Hasher};

use foldhash::quality::{FoldHasher, RandomState};

use crate::rate_limit::gcra::{Limit, Verdict};
use crate::rate_limit::place::{Place, SLOTS, TURNS};
use crate::rate_limit::slot::{FILL_MAX, SWEEP_EVERY, Slot, Tag};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};

/// As many slots of a line may be in use before new keys look at their second line: with fewer, lookups
/// read two lines more often; with more, the last lines fill up sooner and keys are driven out.
const FEW: usize = 4;

#[repr(align(64))]
#[derive(Default)]
struct Line([AtomicU64; SLOTS]);

/// Buckets by hash of key. Times are ticks of 1 µs since one fixed moment.
pub(crate) struct Table {
    lines: Box<[Line]>,
    turns: Box<[Mutex<()>]>,
    hashers: RandomState,
    /// When the next sweep is due.
    due: AtomicU64,
    sweeping: Mutex<()>,
    evicted: AtomicU64,
    evicts: bool,
}

impl Table {
    /// A table with room for `keys_max` keys in use, of which it will be four fifths full: above
    /// that, keys begin to drive each other out.
    ///
    /// Unless it `evicts`, new keys that find no room are denied instead.
    pub(crate) fn new(keys_max: usize, evicts: bool, now: u64) -> Self {
        let slots = keys_max.saturating_add(keys_max / 4);
        let lines = slots.div_ceil(SLOTS).max(2);
        Self {
            lines: std::iter::repeat_with(Line::default).take(lines).collect(),
            turns: std::iter::repeat_with(Mutex::default).take(TURNS).collect(),
            hashers: RandomState::default(),
            due: AtomicU64::new(now.saturating_add(SWEEP_EVERY)),
            sweeping: Mutex::new(()),
            evicted: AtomicU64::new(0),
            evicts,
        }
    }

    /// A hasher for keys, with this table's seed.
    pub(crate) fn hasher(&self) -> FoldHasher<'_> {
        self.hashers.build_hasher()
    }

    /// What a client is known by that has this name. Byte by byte, as they come where no text is made.
    pub(crate) fn client(&self, who: &str) -> u64 {
        let mut hasher = self.hasher();
        who.bytes().for_each(|byte| hasher.write_u8(byte));
        hasher.finish()
    }

    /// Charges a request of this cost to the bucket of `key`, if it fits.
    #[inline]
    pub(crate) fn charge(&self, key: u64, now: u64, limit: Limit, cost: u32) -> Verdict {
        self.update(key, now, |ahead| limit.charge(ahead, cost))
    }

    /// Charges tokens that nobody can refuse any more.
    pub(crate) fn debit(&self, key: u64, now: u64, limit: Limit, tokens: u32) -> u64 {
        let debit = |ahead| Verdict::Allow {
            ahead: limit.debit(ahead, tokens),
        };
        self.update(key, now, debit).ahead()
    }

    /// Sets how far ahead the bucket's time lies, whatever was known of it.
    #[cfg(any(feature = "redis", test))]
    pub(crate) fn put(&self, key: u64, now: u64, ahead: u64) {
        self.update(key, now, |_| Verdict::Allow { ahead });
    }

    /// Sees to it that the bucket's time lies at least so far ahead.
    pub(crate) fn raise(&self, key: u64, now: u64, least: u64) {
        self.update(key, now, |ahead| match ahead < least {
            true => Verdict::Allow { ahead: least },
            false => Verdict::Deny { ahead },
        });
    }

    /// Cuts a bucket back that lies further ahead than it can under this quota, as after a change to one of
    /// shorter windows.
    pub(crate) fn cut_back(&self, key: u64, now: u64, limit: Limit) {
        self.update(key, now, |ahead| Verdict::Deny {
            ahead: limit.ahead_of(limit.used(ahead)),
        });
    }

    /// How far ahead the bucket's time lies; 0 if there is none.
    pub(crate) fn ahead(&self, key: u64, now: u64) -> u64 {
        self.sweep_if_due(now);
        let found = self.find(Place::of(key));
        found.map_or(0, |(_, seen)| seen.ahead(now))
    }

    /// Empties the bucket's slot, and says how far ahead its time lay.
    pub(crate) fn take(&self, key: u64, now: u64) -> u64 {
        self.sweep_if_due(now);
        let place = Place::of(key);
        while let Some((slot, seen)) = self.find(place) {
            if swap(slot, seen, Slot::EMPTY) {
                return seen.ahead(now);
            }
        }
        0
    }

    /// Moves a bucket to another key, where it lies as far ahead as `carried` makes of it. First there, then away:
    /// whoever looks meanwhile never finds neither.
    pub(crate) fn hand_over(&self, from: u64, to: u64, now: u64, carried: impl Fn(u64) -> u64) {
        let seen = self.ahead(from, now);
        if seen == 0 {
            return;
        }
        self.raise(to, now, carried(seen));
        let taken = self.take(from, now);
        if taken > seen {
            self.raise(to, now, carried(taken));
        }
    }

    /// What charging would say, without doing it.
    pub(crate) fn peek(&self, key: u64, now: u64, limit: Limit, cost: u32) -> Verdict {
        limit.charge(self.ahead(key, now), cost)
    }

    /// Takes one charge of this cost back.
    pub(crate) fn refund(&self, key: u64, now: u64, limit: Limit, cost: u32) {
        self.lower(key, now, |ahead| limit.refund(ahead, cost));
    }

    /// Moves the bucket's time back to where `change` wants it, which is told how far ahead it lies; nothing
    /// if there is none.
    pub(crate) fn lower(&self, key: u64, now: u64, change: impl Fn(u64) -> u64) {
        self.sweep_if_due(now);
        let place = Place::of(key);
        while let Some((slot, seen)) = self.find(place) {
            let less = Slot::of(place.tag, now, change(seen.ahead(now)));
            if swap(slot, seen, less) {
                return;
            }
        }
    }

    /// Puts what `rule` makes of the bucket in its place, in one step; a `Deny` leaves it.
    #[inline]
    fn update(&self, key: u64, now: u64, rule: impl Fn(u64) -> Verdict) -> Verdict {
        self.sweep_if_due(now);
        let place = Place::of(key);
        loop {
            let Some((slot, seen)) = self.find(place) else {
                return self.insert(place, now, rule);
            };
            if let Some(verdict) = update_slot(slot, seen, place.tag, now, &rule) {
                return verdict;
            }
        }
    }

    /// Bytes that the slots take up; the same for as long as the table lives.
    pub(crate) const fn bytes(&self) -> usize {
        size_of_val::<[Line]>(&*self.lines)
    }

    /// How many buckets in use have been driven out.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// The key's slot and what was seen in it.
    #[inline]
    fn find(&self, place: Place) -> Option<(&AtomicU64, Slot)> {
        let line = self.lines.get(place.first(self.lines.len()))?;
        let home = line.0.get(place.home())?;
        let seen = Slot::from_bits(home.load(Ordering::Relaxed));
        if seen.is_of(place.tag) {
            return Some((home, seen));
        }
        self.find_abroad(line, place)
    }

    /// The slot of a key that is not at home.
    fn find_abroad<'a>(&'a self, first: &'a Line, place: Place) -> Option<(&'a AtomicU64, Slot)> {
        let second = || find_in(self.lines.get(place.second(self.lines.len()))?, place.tag);
        find_in(first, place.tag).or_else(second)
    }

    /// Updates a key that was not found, in a free slot or in the place of another.
    #[cold]
    fn insert(&self, place: Place, now: u64, rule: impl Fn(u64) -> Verdict) -> Verdict {
        let _turn = self.turns.get(place.turn()).map(lock);
        loop {
            // Somebody may have had the turn before us.
            if let Some((slot, seen)) = self.find(place) {
                if let Some(verdict) = update_slot(slot, seen, place.tag, now, &rule) {
                    return verdict;
                }
                continue;
            }
            let verdict = rule(0);
            if verdict.ahead() == 0 {
                // A full bucket is the same as none.
                return verdict;
            }
            let Some((slot, seen)) = self.room(place, now) else {
                return verdict;
            };
            let in_use = seen.ahead(now);
            if in_use > 0 && !self.evicts {
                // As if it was used up.
                return rule(u64::MAX);
            }
            if swap(slot, seen, Slot::of(place.tag, now, verdict.ahead())) {
                if in_use > 0 {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                }
                return verdict;
            }
        }
    }

    /// The slot for a new key: a free one in the first line while few are in use there, else one in the
    /// line with more that are free, else the one closest to being free.
    fn room(&self, place: Place, now: u64) -> Option<(&AtomicU64, Slot)> {
        let count = self.lines.len();
        let first = room_in(self.lines.get(place.first(count))?, place, now)?;
        if first.used < FEW {
            return Some((first.slot, first.seen));
        }
        let second = room_in(self.lines.get(place.second(count))?, place, now)?;
        let rank = |room: &Room<'_>| (room.used, room.seen.ahead(now));
        let best = if rank(&second) < rank(&first) {
            second
        } else {
            first
        };
        Some((best.slot, best.seen))
    }

    fn sweep_if_due(&self, now: u64) {
        // Acquire: whoever sees the next due time sees the slots as the sweep has left them.
        if now >= self.due.load(Ordering::Acquire) {
            self.sweep(now);
        }
    }

    /// Empties every slot whose time has passed, before it is so long ago that it would look like
    /// the future.
    ///
    /// Others that come meanwhile wait, some milliseconds per million keys once in 25 days: after a
    /// pause of months they would take old times for new ones.
    #[cold]
    fn sweep(&self, now: u64) {
        let _sweeping = lock(&self.sweeping);
        let due = self.due.load(Ordering::Acquire);
        if now < due {
            return;
        }
        // Every decision since `due` would have come here, so no bucket was charged later than
        // that, and none lasts longer than `FILL_MAX`. After a longer pause all of them are full,
        // and their times may be too old to be compared.
        let all = now >= due.saturating_add(FILL_MAX);
        for slot in self.lines.iter().flat_map(|line| &line.0) {
            let seen = Slot::from_bits(slot.load(Ordering::Relaxed));
            if seen != Slot::EMPTY && (all || seen.ahead(now) == 0) {
                // If it has changed meanwhile it is in use, and need not be emptied.
                let _ = swap(slot, seen, Slot::EMPTY);
            }
        }
        self.due
            .store(now.saturating_add(SWEEP_EVERY), Ordering::Release);
    }
}

/// The slot of a line that has this tag. All are looked at, because where the tag stands has no pattern
/// that a processor could learn: leaving off at it would cost more than the rest.
fn find_in(line: &Line, tag: Tag) -> Option<(&AtomicU64, Slot)> {
    let mut found = 0_u32;
    for (at, slot) in line.0.iter().enumerate() {
        let seen = Slot::from_bits(slot.load(Ordering::Relaxed));
        found |= u32::from(seen.is_of(tag)) << at;
    }
    let slot = line.0.get(found.trailing_zeros() as usize)?;
    let seen = Slot::from_bits(slot.load(Ordering::Relaxed));
    // It may have changed meanwhile.
    seen.is_of(tag).then_some((slot, seen))
}

/// What a line has to offer to a new key.
struct Room<'a> {
    /// How many of its slots are in use.
    used: usize,
    /// Its best slot: the freest, and of those one that nobody has had yet.
    slot: &'a AtomicU64,
    seen: Slot,
}

fn room_in(line: &Line, place: Place, now: u64) -> Option<Room<'_>> {
    let rank = |seen: Slot| (seen.ahead(now), seen != Slot::EMPTY);
    let mut best: Option<Room<'_>> = None;
    let mut used = 0;
    // From home on, so that it is taken if it is as good as others.
    let (before, from_home) = line.0.split_at_checked(place.home())?;
    for slot in from_home.iter().chain(before) {
        let seen = Slot::from_bits(slot.load(Ordering::Relaxed));
        used += usize::from(seen.ahead(now) > 0);
        if best
            .as_ref()
            .is_none_or(|best| rank(seen) < rank(best.seen))
        {
            best = Some(Room { used, slot, seen });
        }
    }
    best.map(|best| Room { used, ..best })
}

/// Updates the bucket in `slot`; `None` if it has changed since it was seen.
fn update_slot(
    slot: &AtomicU64,
    seen: Slot,
    tag: Tag,
    now: u64,
    rule: &impl Fn(u64) -> Verdict,
) -> Option<Verdict> {
    let verdict = rule(seen.ahead(now));
    // Under a shorter quota than before a bucket may be further ahead than it can be: that is cut back also
    // when it denies, or it would be as far ahead the next time.
    let stays = !verdict.is_allow() && verdict.ahead() >= seen.ahead(now);
    let done = stays || swap(slot, seen, Slot::of(tag, now, verdict.ahead()));
    done.then_some(verdict)
}

/// Puts `next` in place of what was seen, unless it has changed. A slot is all there is to know
/// about its key, so no order among slots is needed.
fn swap(slot: &AtomicU64, seen: Slot, next: Slot) -> bool {
    slot.compare_exchange(
        seen.bits(),
        next.bits(),
        Ordering::Relaxed,
        Ordering::Relaxed,
    )
    .is_ok()
}

fn lock(mutex: &Mutex<()>) -> MutexGuard<'_, ()> {
    // It guards no data that a panic could have left half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table")
            .field("slots", &(self.lines.len() * SLOTS))
            .field("bytes", &self.bytes())
            .field("evicted", &self.evicted())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::Hasher;
    use std::sync::atomic::AtomicU32;

    use foldhash::quality::FixedState;
    use proptest::prelude::*;

    use super::*;

    const SECOND_TICKS: u64 = 1_000_000;
    const DAY: u64 = 86_400 * SECOND_TICKS;

    fn key(table: &Table, name: u64) -> u64 {
        let mut hasher = table.hasher();
        hasher.write_u64(name);
        hasher.finish()
    }

    fn in_use(table: &Table, now: u64) -> usize {
        let slots = table.lines.iter().flat_map(|line| &line.0);
        slots
            .filter(|slot| Slot::from_bits(slot.load(Ordering::Relaxed)).ahead(now) > 0)
            .count()
    }

    #[test]
    fn a_key_flood_neither_grows_the_table_nor_frees_who_is_refused() {
        let table = Table::new(10_000, true, 0);
        let limit = Limit::new(SECOND_TICKS, 10);
        let (bytes, refused) = (table.bytes(), key(&table, u64::MAX));
        assert_eq!(bytes, 12_504 * 8);
        while table.charge(refused, 0, limit, 1).is_allow() {}
        let flood =
            (0..1_000_000).filter(|name| table.charge(key(&table, *name), 0, limit, 1).is_allow());
        // One in a thousand runs finds a twin of the refused key.
        assert!(flood.count() >= 999_998);
        assert_eq!(table.bytes(), bytes);
        assert!(in_use(&table, 0) <= 12_504);
        // All that did not find room, but for some twins.
        assert!(table.evicted() >= 987_496 - 100, "{table:?}");
        assert!(!table.charge(refused, 0, limit, 1).is_allow());
    }

    #[test]
    fn as_many_keys_as_promised_hardly_ever_drive_each_other_out() {
        for (share, most) in [(10, 60), (5, 0)] {
            let table = Table::new(100_000, true, 0);
            let limit = Limit::new(SECOND_TICKS, 1);
            for name in 0..10_000 * share {
                table.charge(key(&table, name), 0, limit, 1);
            }
            let evicted = table.evicted();
            assert!(evicted <= most, "{evicted} at {share} tenths");
        }
    }

    #[test]
    fn a_full_bucket_makes_room_without_being_an_eviction() {
        let table = Table::new(16, true, 0);
        let limit = Limit::new(10, 1);
        for name in 0..10_000 {
            assert!(
                table
                    .charge(key(&table, name), name * 10, limit, 1)
                    .is_allow()
            );
        }
        assert_eq!(table.evicted(), 0);
    }

    /// A hash without a seed, for where a test has to know that no two keys are twins.
    fn seedless(name: u64) -> u64 {
        FixedState::default().hash_one(name)
    }

    /// In which line a key lies, the first or the second of its own, and in which slot.
    fn place_of(table: &Table, key: u64) -> Option<(usize, usize)> {
        let (place, lines) = (Place::of(key), table.lines.len());
        let is_there =
            |slot: &AtomicU64| Slot::from_bits(slot.load(Ordering::Relaxed)).is_of(place.tag);
        let both = [place.first(lines), place.second(lines)];
        let mut both = both.into_iter().enumerate();
        both.find_map(|(at, line)| Some((at, table.lines[line].0.iter().position(is_there)?)))
    }

    /// So that whoever comes now and then is found at first sight each time, whoever else comes between.
    #[test]
    fn a_bucket_that_grows_full_between_two_requests_keeps_its_slot() {
        let table = Table::new(1000, true, 0);
        let limit = Limit::new(10, 1);
        let come = |key, now| assert!(table.charge(key, now, limit, 1).is_allow());
        let regulars: Vec<u64> = (0..500).map(seedless).collect();
        let places = || regulars.iter().map(|key| place_of(&table, *key));
        let mut newcomers = (500..).map(seedless);
        let (mut known, mut moved) = (Vec::new(), 0);
        for round in 0..50 {
            regulars.iter().for_each(|key| come(*key, 20 * round));
            let before = std::mem::replace(&mut known, places().collect());
            moved += before.iter().zip(&known).filter(|(a, b)| a != b).count();
            // Now all buckets are full, and their slots free for others.
            newcomers
                .by_ref()
                .take(2)
                .for_each(|key| come(key, 20 * round + 15));
        }
        assert!(moved <= 2, "{moved} moved");
        let home = |key: &u64| Some((0, Place::of(*key).home()));
        let at_home = regulars
            .iter()
            .map(home)
            .zip(places())
            .filter(|(home, place)| home == place);
        let at_home = at_home.count();
        assert!(at_home > 350, "{at_home} of 500 are at home");
    }

    /// A table of two lines, whose keys come one after the other.
    #[test]
    fn a_key_looks_at_its_second_line_only_if_few_slots_of_the_first_are_free() {
        let table = Table::new(8, true, 0);
        let limit = Limit::new(DAY, 1);
        let used = |now| {
            [0, 1].map(|line: usize| {
                let slots = table.lines[line].0.iter();
                let seen = slots.map(|slot| Slot::from_bits(slot.load(Ordering::Relaxed)));
                seen.filter(|seen| seen.ahead(now) > 0).count()
            })
        };
        let mut seconds = 0;
        for name in 0..2 * SLOTS as u64 {
            let key = seedless(name);
            let (place, before) = (Place::of(key), used(0));
            let [own, other] = [place.first(2), place.second(2)].map(|line| before[line]);
            let line = usize::from(own >= FEW && other < own);
            assert!(table.charge(key, 0, limit, 1).is_allow());
            assert_eq!(place_of(&table, key).map(|(line, _)| line), Some(line));
            seconds += line;
        }
        assert_eq!((used(0), table.evicted()), ([SLOTS; 2], 0));
        assert!(seconds > 0);
    }

    #[test]
    fn a_table_as_full_as_promised_knows_everybody() {
        const KEYS: u64 = 10_000;
        let table = Table::new(KEYS as usize, true, 0);
        let limit = Limit::new(DAY, 2);
        for _ in 0..2 {
            for name in 0..KEYS {
                table.charge(seedless(name), 0, limit, 1);
            }
        }
        let known = |name: &u64| table.ahead(seedless(*name), 0) == 2 * DAY;
        let known = (0..KEYS).filter(known).count() as u64;
        assert!(KEYS - known <= 2 * table.evicted(), "{known}: {table:?}");
        assert!(table.evicted() <= 20, "{table:?}");
        let slots = table.bytes() / 8;
        let in_use = in_use(&table, 0);
        assert!(in_use * 100 >= slots * 79, "{in_use} of {slots}");
    }

    #[test]
    fn what_is_refunded_can_be_had_again() {
        let table = Table::new(16, true, 0);
        let limit = Limit::new(SECOND_TICKS, 2);
        let key = key(&table, 7);
        assert!(table.peek(key, 0, limit, 1).is_allow());
        assert_eq!(in_use(&table, 0), 0);
        assert!(table.charge(key, 0, limit, 1).is_allow());
        assert!(table.charge(key, 0, limit, 1).is_allow());
        assert!(!table.peek(key, 0, limit, 1).is_allow());
        table.refund(key, 0, limit, 1);
        assert!(table.charge(key, 0, limit, 1).is_allow());
        assert!(!table.charge(key, 0, limit, 1).is_allow());
        table.refund(key, 0, limit, 1);
        table.refund(key, 0, limit, 1);
        table.refund(key, 0, limit, 1);
        assert_eq!(in_use(&table, 0), 0);
    }

    /// Real threads, one key after the other, and other keys that come and go beside it.
    #[test]
    fn no_race_lets_more_through_than_burst_and_time_allow() {
        const THREADS: u64 = 4;
        for round in 0..200 {
            let table = Table::new(64, true, 0);
            let limit = Limit::new(100, 20);
            let contended = key(&table, u64::MAX - round);
            let allowed = AtomicU32::new(0);
            let clock = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (table, allowed, clock) = (&table, &allowed, &clock);
                    scope.spawn(move || {
                        for step in 0..200 {
                            let now = clock.fetch_add(1, Ordering::SeqCst);
                            let other = key(table, thread * 1000 + step % 3);
                            table.charge(other, now, limit, 1);
                            if table.charge(contended, now, limit, 1).is_allow() {
                                allowed.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    });
                }
            });
            let most = 20 + clock.into_inner() / 100;
            let allowed = u64::from(allowed.into_inner());
            assert_eq!(table.evicted(), 0);
            assert!(allowed <= most, "{allowed} of at most {most}");
            assert!(allowed >= 20);
        }
    }

    /// Two threads whose clocks differ by a little see different slots as free. Without taking
    /// turns each would give the new key a bucket of its own.
    #[test]
    fn a_key_that_two_threads_insert_at_once_gets_one_bucket() {
        const ROUNDS: usize = 2000;
        let once = Limit::new(DAY, 1);
        let tables: Vec<Table> = (0..ROUNDS)
            .map(|_| {
                let table = Table::new(8, true, 0);
                for name in 0..100 {
                    // The slots that are filled first are free last.
                    table.charge(key(&table, name), 0, Limit::new(1000 - name, 1), 1);
                }
                table
            })
            .collect();
        let (arrived, allowed) = (AtomicU64::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let (tables, arrived, allowed) = (&tables, &arrived, &allowed);
                scope.spawn(move || {
                    for (round, table) in (1..).zip(tables) {
                        let new = key(table, u64::MAX);
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 * round {
                            std::thread::yield_now();
                        }
                        if table.charge(new, 980 + 10 * thread, once, 1).is_allow() {
                            allowed.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        let allowed = allowed.into_inner() as usize;
        // Now and then the new key has a twin among the old ones, and is refused.
        assert!((ROUNDS - 5..=ROUNDS).contains(&allowed), "{allowed}");
    }

    #[test]
    fn after_a_pause_of_any_length_a_bucket_is_full() {
        let limit = Limit::new(DAY, 60);
        for half_weeks in 0..4000 {
            let pause = half_weeks * 7 * DAY / 2;
            let table = Table::new(16, true, 0);
            let key = key(&table, 1);
            for _ in 0..60 {
                assert!(table.charge(key, 0, limit, 1).is_allow());
            }
            let ahead = match half_weeks % 2 {
                0 => table.ahead(key, pause),
                _ => table.take(key, pause),
            };
            let days = (pause / DAY).min(60);
            assert_eq!(limit.remaining(ahead), days as u32);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn over_many_years_the_table_agrees_with_a_map_of_unbounded_times(
            steps in proptest::collection::vec((0u64..5, 0u64..4, 0u64..240), 200..600),
        ) {
            let table = Table::new(100, true, 0);
            let limits = [Limit::new(31 * DAY, 2), Limit::new(SECOND_TICKS, 3)];
            let mut full_at: HashMap<u64, u64> = HashMap::new();
            let mut now = 0;
            for (name, unit, count) in steps {
                now += [0, 0, SECOND_TICKS / 100, DAY / 2][unit as usize] * count;
                let limit = limits[name as usize % 2];
                let expected = limit.charge(full_at.get(&name).map_or(0, |at| at.saturating_sub(now)), 1);
                let verdict = table.charge(key(&table, name), now, limit, 1);
                prop_assert_eq!(verdict, expected, "key {} on day {}", name, now / DAY);
                full_at.insert(name, now + verdict.ahead());
            }
        }
    }

    #[test]
    fn a_full_table_may_turn_new_keys_away_instead() {
        let table = Table::new(16, false, 0);
        let limit = Limit::new(SECOND_TICKS, 1);
        let passed = (0..1000)
            .filter(|name| table.charge(key(&table, *name), 0, limit, 1).is_allow())
            .count();
        assert!((16..=24).contains(&passed), "{passed}");
        assert_eq!(table.evicted(), 0);
        assert!(
            table
                .charge(key(&table, 5000), 2 * SECOND_TICKS, limit, 1)
                .is_allow()
        );
    }

    #[test]
    fn a_bucket_is_put_raised_debited_and_taken() {
        let table = Table::new(16, true, 0);
        let (key, limit) = (key(&table, 7), Limit::new(10, 3));
        table.raise(key, 0, 20);
        table.raise(key, 5, 10);
        assert_eq!(table.ahead(key, 5), 15);
        assert_eq!(table.debit(key, 5, limit, 4), 55);
        table.put(key, 5, 1);
        assert_eq!((table.take(key, 5), table.take(key, 5)), (1, 0));
        assert!(table.charge(key, 5, limit, 3).is_allow());
    }

    /// Who changes to a plan of shorter windows must not wait for what the longer ones would have taken.
    #[test]
    fn a_bucket_too_far_ahead_is_cut_back_by_a_denial() {
        let table = Table::new(16, true, 0);
        let (long, short) = (
            Limit::new(864 * SECOND_TICKS, 100),
            Limit::new(100_000, 600),
        );
        let key = key(&table, 7);
        assert!(table.charge(key, 0, long, 1).is_allow());
        assert!(!table.charge(key, 0, short, 1).is_allow());
        let soon = short.wait(table.ahead(key, 0), 1);
        assert!(soon <= 61 * SECOND_TICKS, "{soon}");
        assert!(table.charge(key, soon, short, 1).is_allow());
    }
}
