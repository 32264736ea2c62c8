//! How often something was asked for: counted with what is stored, and estimated for what is not.

use std::sync::atomic::{AtomicU8, Ordering};

/// Uses are counted up to here. What matters is how the rare compare, not how often the frequent come.
pub(crate) const USES_MAX: u8 = 15;

/// Counts the uses of something stored.
#[derive(Debug, Default)]
pub(crate) struct Uses(AtomicU8);

impl Uses {
    /// Counts one. Two at the same instant may count as one.
    #[inline]
    pub(crate) fn count(&self) {
        // Not an addition, which would make the processors of all threads agree on it; and what is used most
        // is only read.
        let uses = self.so_far();
        if uses < USES_MAX {
            self.0.store(uses + 1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn so_far(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    /// There were at least so many.
    pub(crate) fn raise(&self, uses: u8) {
        self.0.fetch_max(uses, Ordering::Relaxed);
    }

    /// Takes one back.
    pub(crate) fn spend(&self) {
        self.0
            .store(self.so_far().saturating_sub(1), Ordering::Relaxed);
    }
}

/// How often keys were asked for that are not stored: a count-min sketch, which may say too much of a key, but
/// within what it remembers never too little.
#[derive(Debug)]
pub(crate) struct Sketch(Vec<u8>);

impl Sketch {
    pub(crate) fn new() -> Self {
        Self(vec![0; LEAST_PLACES])
    }

    /// Counts a use, and says how many there are.
    pub(crate) fn count(&mut self, hash: u64) -> u8 {
        let uses = self.estimate(hash).saturating_add(1).min(USES_MAX);
        self.raise(hash, uses);
        uses
    }

    /// Notes that there were at least so many uses.
    pub(crate) fn raise(&mut self, hash: u64, uses: u8) {
        for place in self.places(hash) {
            let known = &mut self.0[place];
            *known = uses.max(*known);
        }
    }

    /// Forgets half of everything, so that the present can catch up with the past.
    pub(crate) fn fade(&mut self) {
        for uses in &mut self.0 {
            *uses /= 2;
        }
    }

    /// Doubles as often as `keys` need. A place is the low bits of a number, so both copies answer as before.
    pub(crate) fn grow(&mut self, keys: usize) {
        while self.0.len() < keys {
            self.0.extend_from_within(..);
        }
    }

    fn estimate(&self, hash: u64) -> u8 {
        let places = self.places(hash).map(|place| self.0[place]);
        places.into_iter().fold(USES_MAX, u8::min)
    }

    fn places(&self, hash: u64) -> [usize; PROBES] {
        let mut mixed = hash;
        [(); PROBES].map(|()| {
            mixed = mixed.wrapping_mul(MIXER);
            mixed ^= mixed >> 32;
            // A power of two: it began as one, and only ever doubled.
            mixed as usize & (self.0.len() - 1)
        })
    }
}

const LEAST_PLACES: usize = 1 << 10;

const PROBES: usize = 3;

/// The golden ratio of 64 bits, which spreads neighbours far apart.
const MIXER: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_counter_stops_at_its_end_and_at_nothing() {
        let uses = Uses::default();
        uses.spend();
        assert_eq!(uses.so_far(), 0);
        for _ in 0..100 {
            uses.count();
        }
        assert_eq!(uses.so_far(), USES_MAX);
        uses.spend();
        uses.raise(3);
        assert_eq!(uses.so_far(), USES_MAX - 1);
    }

    #[test]
    fn what_fades_is_halved() {
        let mut sketch = Sketch::new();
        for _ in 0..7 {
            sketch.count(1);
        }
        sketch.fade();
        assert_eq!(sketch.count(1), 4);
        assert_eq!(sketch.count(2), 1);
    }

    proptest! {
        #[test]
        fn a_sketch_never_says_too_little(
            hashes in proptest::collection::vec(0..50_u64, 0..400),
            grown in 0..400_usize,
        ) {
            let mut sketch = Sketch::new();
            let mut true_uses = HashMap::new();
            for (step, hash) in hashes.into_iter().enumerate() {
                if step == grown {
                    sketch.grow(5000);
                }
                let uses: &mut u8 = true_uses.entry(hash).or_default();
                *uses = USES_MAX.min(*uses + 1);
                let counted = sketch.count(hash);
                prop_assert!(counted >= *uses && counted <= USES_MAX);
            }
        }
    }
}
