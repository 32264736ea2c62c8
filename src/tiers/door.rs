//! What one shard remembers of what it does not hold, in step with how much it holds.

use crate::tiers::bets::Bets;
use crate::tiers::uses::Sketch;

/// What a shard remembers in order to choose.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) sketch: Sketch,
    pub(crate) bets: Bets,
    /// Items stored since the sketch faded last.
    stored: usize,
    /// At so many of them it is time to look at the size of the shard again.
    look_at: usize,
}

impl Door {
    pub(crate) fn new() -> Self {
        Self {
            sketch: Sketch::new(),
            bets: Bets::new(),
            stored: 0,
            look_at: 1,
        }
    }

    /// Lets the memory fade and grow with the shard, whose length is asked for only now and then.
    pub(crate) fn keep_pace(&mut self, items: impl FnOnce() -> usize) {
        self.stored += 1;
        if self.stored < self.look_at {
            return;
        }
        let items = items().max(LEAST_ITEMS);
        if self.stored >= items * PERIOD {
            self.sketch.fade();
            self.stored = 0;
        }
        self.look_at = self.stored + items / 4;
        self.sketch.grow(items * PLACES_PER_ITEM);
        self.bets.spread(items);
    }
}

/// Stored items per item in a shard until the memory of past uses fades by half.
const PERIOD: usize = 16;

/// Places of the sketch per item in a shard: a bit more than there are keys in one period.
const PLACES_PER_ITEM: usize = 16;

/// A shard that is nearly empty is taken to hold as many, lest its memory fade at once.
const LEAST_ITEMS: usize = 16;
