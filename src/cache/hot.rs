//! The hot tier: answers in this process' memory, bounded in bytes.
//!
//! Bytes as weight, a capacity that changes at run time, and a hit that costs a shared lock on one shard: see
//! [`Shelf`]. A slot holds all answers of one URL, newest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quick_cache::Weighter;

use crate::cache::config::CacheConfig;
use crate::cache::content::Content;
use crate::cache::entry::Entry;
use crate::cache::key::{CacheKey, KeyView};
use crate::cache::part::{are_of_two, joined, same_whole};
use crate::clock::Moment;
use crate::tiers::Uses;
use crate::tiers::{Shelf, Shelved};

/// Everything stored under one key. Nearly always that is one answer, which is found by one step then.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    One(Arc<Entry>),
    Several(Arc<Several>),
}

/// The answers kept apart by `Vary`, parts of answers, and what is known of those that are not stored.
#[derive(Debug)]
pub(crate) struct Several {
    /// Newest first.
    entries: Vec<Arc<Entry>>,
    marker: Option<Marker>,
    /// What the answers take up. The engine asks for a slot's weight more than once.
    bytes: usize,
}

/// Says that answers of this URL cannot be stored: hit-for-miss.
#[derive(Debug)]
struct Marker {
    until: Moment,
    asked: AtomicU32,
}

impl Slot {
    fn of(entries: Vec<Arc<Entry>>) -> Self {
        match &*entries {
            [only] => Self::One(Arc::clone(only)),
            _ => Self::several(entries, None),
        }
    }

    fn several(entries: Vec<Arc<Entry>>, marker: Option<Marker>) -> Self {
        let bytes = entries.iter().map(|entry| entry.bytes()).sum();
        Self::Several(Arc::new(Several {
            entries,
            marker,
            bytes,
        }))
    }

    /// The answers, newest first.
    #[inline]
    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Several(several) => &several.entries,
        }
    }

    /// Whether answers of this URL are known not to be worth waiting for.
    pub(crate) fn is_marked(&self, now: Moment) -> bool {
        self.marker(now).is_some()
    }

    /// Whether this request's answer is not even to be looked at. Every sixteenth is, so that a URL whose
    /// answers can be stored after all is found out before its marker has run down.
    pub(crate) fn is_not_worth_a_look(&self, now: Moment) -> bool {
        self.marker(now).is_some_and(|marker| {
            marker.asked.fetch_add(1, Ordering::Relaxed) % LOOK_EVERY != LOOK_EVERY - 1
        })
    }

    fn marker(&self, now: Moment) -> Option<&Marker> {
        match self {
            Self::One(_) => None,
            Self::Several(several) => several.marker.as_ref().filter(|marker| now < marker.until),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::One(entry) => entry.bytes(),
            Self::Several(several) => several.bytes + SEVERAL_OVERHEAD,
        }
    }
}

impl Shelved for Slot {
    /// Those of its newest answer. A marker alone stands for nothing that the origin need not do again, so it
    /// refuses nobody.
    #[inline]
    fn uses(&self) -> Option<&Uses> {
        self.entries().first().map(|newest| &newest.uses)
    }
}

#[derive(Debug)]
pub(crate) struct HotTier {
    slots: Shelf<CacheKey, Slot, ByBytes>,
    variants_max: usize,
}

impl HotTier {
    /// An empty tier of the checked configuration.
    pub(crate) fn new(config: &CacheConfig) -> Self {
        // An item must fit into one shard, so there are no more shards than leave the largest body
        // room in each four times over; one core needs no more than a few in any case. The engine would
        // round up to a power of two.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let by_size = config.capacity_bytes / config.body_bytes_max.saturating_mul(4).max(1);
        let shards = (cores * 4)
            .min(usize::try_from(by_size).unwrap_or(usize::MAX))
            .max(1);
        let shards = 1 << shards.ilog2();
        let items = (config.capacity_bytes / BYTES_PER_ITEM).clamp(ITEMS_LEAST, ITEMS_MAX);
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        Self {
            slots: Shelf::new(config.capacity_bytes, items, shards, ByBytes),
            variants_max: config.variants_max,
        }
    }

    #[inline]
    pub(crate) fn slot(&self, key: &KeyView<'_>) -> Option<Slot> {
        self.slots.get(key)
    }

    /// The same without counting as a use.
    pub(crate) fn peek(&self, key: &KeyView<'_>) -> Option<Slot> {
        self.slots.peek(key)
    }

    /// Stores an answer beside those of other variants, in place of one of the same. A part joins what is
    /// there of the same whole, up to `part_bytes_max`. A URL of which nothing is stored may be refused, if
    /// others would have to go that were used more often and still `live`: says whether it is stored.
    pub(crate) fn put(
        &self,
        key: CacheKey,
        entry: Entry,
        part_bytes_max: u64,
        live: impl Fn(&Entry) -> bool,
    ) -> (Arc<Entry>, bool) {
        let mut turn = self.slots.turn(&key);
        let old = self.slots.peek(&key);
        let mut others: Vec<Arc<Entry>> = Vec::new();
        let mut entry = entry;
        for other in old.iter().flat_map(Slot::entries) {
            if other.selector != entry.selector {
                others.push(Arc::clone(other));
            } else if entry.part.is_some()
                && other.part.is_none()
                && live(other)
                && !are_of_two(&other.headers, &entry.headers)
            {
                // A part does not drive out a whole that serves everybody, unless it proves it outdated.
                others.push(Arc::clone(other));
            } else if entry.part.is_some() && same_whole(&other.headers, &entry.headers) {
                if other.part.is_none() {
                    // The whole has the same bytes and more.
                    others.push(Arc::clone(other));
                } else if other.born == entry.born && other.tags == entry.tags {
                    // Both were born at one position: nothing was invalidated between them. And what makes
                    // one of them old makes the other so.
                    entry = together(other, entry, part_bytes_max);
                }
            }
        }
        // Beside the newest, which is at most a quarter of a shard, and an item that outweighs its shard
        // is refused whole.
        let bytes_max = self.slots.shard_capacity() / 2;
        let mut bytes = 0_usize;
        let fitting = others.into_iter().take_while(|other| {
            bytes = bytes.saturating_add(other.bytes());
            bytes as u64 <= bytes_max
        });
        let entry = Arc::new(entry);
        let mut variants = vec![Arc::clone(&entry)];
        variants.extend(fitting.take(self.variants_max - 1));
        let stored = turn.put(key, Slot::of(variants), |slot| {
            slot.entries().iter().any(|entry| live(entry))
        });
        (entry, stored)
    }

    /// Puts `new` in the place of `old`, if that is still there.
    pub(crate) fn replace(&self, key: CacheKey, old: &Arc<Entry>, new: Arc<Entry>) {
        let mut turn = self.slots.turn(&key);
        let Some(slot) = self.slots.peek(&key) else {
            return;
        };
        let mut variants = slot.entries().to_vec();
        let Some(place) = variants.iter_mut().find(|entry| Arc::ptr_eq(entry, old)) else {
            return;
        };
        *place = new;
        turn.set(key, Slot::of(variants));
    }

    /// Takes `old` out, if it is still there.
    pub(crate) fn take_out(&self, key: CacheKey, old: &Arc<Entry>) {
        let mut turn = self.slots.turn(&key);
        let Some(slot) = self.slots.peek(&key) else {
            return;
        };
        let kept = slot
            .entries()
            .iter()
            .filter(|entry| !Arc::ptr_eq(entry, old));
        let variants: Vec<_> = kept.cloned().collect();
        if variants.is_empty() {
            turn.remove(&key);
        } else {
            turn.set(key, Slot::of(variants));
        }
    }

    /// Remembers until `until` that answers of this URL cannot be stored. What is stored stays.
    pub(crate) fn pass(&self, key: CacheKey, until: Moment) {
        let mut turn = self.slots.turn(&key);
        let variants = self.slots.peek(&key).map(|slot| slot.entries().to_vec());
        let marker = Marker {
            until,
            asked: AtomicU32::new(0),
        };
        let slot = Slot::several(variants.unwrap_or_default(), Some(marker));
        turn.set(key, slot);
    }

    /// All slots with their keys, one by one; no lock is held between two of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CacheKey, Slot)> + Send {
        self.slots.iter()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.slots.weight()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.slots.capacity()
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.slots.set_capacity(bytes);
    }

    pub(crate) fn clear(&self) {
        self.slots.clear();
    }
}

/// A part with what `older` has of the same whole, if that touches it.
fn together(older: &Entry, newer: Entry, bytes_max: u64) -> Entry {
    let (Some(old), Some(new)) = (older.part, newer.part) else {
        return newer;
    };
    let all = joined((old, &older.content.bytes()), (new, &newer.content.bytes()));
    match all {
        Some((part, bytes)) if bytes.len() as u64 <= bytes_max => {
            newer.with_more(Content::Plain(bytes), part)
        }
        _ => newer,
    }
}

/// Weighs a slot by what its answers take up.
#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Slot> for ByBytes {
    fn weight(&self, key: &CacheKey, slot: &Slot) -> u64 {
        (key.bytes() + slot.bytes() + SLOT_OVERHEAD) as u64
    }
}

/// Of the requests for a URL that is marked, one in so many is looked at all the same.
const LOOK_EVERY: u32 = 16;

/// The shelf's own share per item: its key, its place in the queues, its ghost, and the 16 to 32 places of the
/// sketch.
const SLOT_OVERHEAD: usize = 200;

/// What a list of answers takes up beside them.
const SEVERAL_OVERHEAD: usize = 112;

/// A guess at the mean answer. The engine remembers as many keys that went as there would be of them. The hit
/// ratio hardly falls where there are up to eight times as many answers, but loops get through where there are
/// half as many: rather too large than too small.
const BYTES_PER_ITEM: u64 = 16 << 10;

const ITEMS_LEAST: u64 = 64;

const ITEMS_MAX: u64 = 65_536;
