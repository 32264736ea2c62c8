//! The hot tier: answers in this process' memory, bounded in bytes.
//!
//! The engine is quick_cache: bytes as weight, capacity that changes at run time, and a hit costs a
//! shared lock on one shard. A slot holds all answers of one URL, newest first.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::cache::config::CacheConfig;
use crate::cache::entry::Entry;
use crate::cache::key::{CacheKey, KeyView};
use crate::clock::Moment;

/// Everything stored under one key.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// The answers kept apart by `Vary`, newest first.
    pub(crate) variants: Vec<Arc<Entry>>,
    /// Until when it is known that answers of this URL cannot be stored.
    pub(crate) pass_until: Option<Moment>,
    /// What the answers take up. The engine asks for a slot's weight more than once.
    bytes: usize,
}

impl Slot {
    fn new(variants: Vec<Arc<Entry>>, pass_until: Option<Moment>) -> Self {
        let bytes = variants.iter().map(|entry| entry.bytes()).sum();
        Self {
            variants,
            pass_until,
            bytes,
        }
    }
}

#[derive(Debug)]
pub(crate) struct HotTier {
    slots: Cache<CacheKey, Arc<Slot>, ByBytes, foldhash::quality::RandomState>,
    variants_max: usize,
    /// The most that the older variants of a URL may take up beside the newest.
    variants_bytes_max: usize,
}

impl HotTier {
    /// An empty tier of the checked configuration.
    pub(crate) fn new(config: &CacheConfig) -> Self {
        // An item must fit into one shard, so there are no more shards than leave the largest body
        // room in each four times over; one core needs no more than a few in any case.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let by_size = config.capacity_bytes / config.body_bytes_max.saturating_mul(4).max(1);
        let shards = (cores * 4)
            .min(usize::try_from(by_size).unwrap_or(usize::MAX))
            .max(1);
        let items = (config.capacity_bytes / BYTES_PER_ITEM).clamp(64, 65_536);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(items).unwrap_or(65_536))
            .weight_capacity(config.capacity_bytes)
            .shards(shards)
            .build();
        let hasher = foldhash::quality::RandomState::default();
        let slots = match options {
            Ok(options) => {
                Cache::with_options(options, ByBytes, hasher, DefaultLifecycle::default())
            }
            // Both mandatory numbers are set above; the plain constructor takes the same ones.
            Err(_) => Cache::with(
                usize::try_from(items).unwrap_or(65_536),
                config.capacity_bytes,
                ByBytes,
                hasher,
                DefaultLifecycle::default(),
            ),
        };
        // Beside the newest, which is at most a quarter of a shard, and an item that outweighs its shard
        // is refused whole.
        let variants_bytes_max = config.capacity_bytes / shards as u64 / 2;
        Self {
            slots,
            variants_max: config.variants_max,
            variants_bytes_max: usize::try_from(variants_bytes_max).unwrap_or(usize::MAX),
        }
    }

    #[inline]
    pub(crate) fn slot(&self, key: KeyView<'_>) -> Option<Arc<Slot>> {
        self.slots.get(&key)
    }

    /// Stores an answer beside those of other variants, in place of one of the same.
    ///
    /// Two answers stored at the same instant may lose one of them: a miss later, nothing worse.
    pub(crate) fn put(&self, key: CacheKey, entry: Entry) {
        let old = self.slots.peek(&key.view());
        let others = old.iter().flat_map(|slot| &slot.variants);
        let others = others
            .filter(|other| other.selector != entry.selector)
            .cloned();
        let mut bytes = 0_usize;
        let fitting = others.take_while(|other| {
            bytes = bytes.saturating_add(other.bytes());
            bytes <= self.variants_bytes_max
        });
        let kept: Vec<_> = fitting.take(self.variants_max - 1).collect();
        let mut variants = Vec::with_capacity(1 + kept.len());
        variants.push(Arc::new(entry));
        variants.extend(kept);
        self.slots.insert(key, Arc::new(Slot::new(variants, None)));
    }

    /// Remembers until `until` that answers of this URL cannot be stored. What is stored stays.
    pub(crate) fn pass(&self, key: CacheKey, until: Moment) {
        let variants = self
            .slots
            .peek(&key.view())
            .map(|slot| slot.variants.clone());
        let slot = Slot::new(variants.unwrap_or_default(), Some(until));
        self.slots.insert(key, Arc::new(slot));
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

/// Weighs a slot by what its answers take up.
#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<CacheKey, Arc<Slot>> for ByBytes {
    fn weight(&self, key: &CacheKey, slot: &Arc<Slot>) -> u64 {
        (key.bytes() + slot.bytes + SLOT_OVERHEAD) as u64
    }
}

/// The engine's own share per item, with its key, its place in the queues and its ghost.
const SLOT_OVERHEAD: usize = 176;

/// A guess at the mean answer, from which the engine sizes its table at first; it grows as needed.
const BYTES_PER_ITEM: u64 = 8 << 10;
