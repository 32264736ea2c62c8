//! Which of those that compete for room deserve it: by how often they are used, and, where that is known, by
//! what a use saves for the bytes that it takes.

use crate::tiers::uses::USES_MAX;

/// What an item would be missed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worth {
    /// How often it was used.
    pub(crate) uses: u8,
    /// What it is weighed by, if it is.
    pub(crate) cost: Option<Cost>,
}

/// What a use of an item saves, in whatever unit all of one shelf share, and the bytes that it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) saving: u64,
    pub(crate) bytes: u64,
}

impl Worth {
    /// Sorts items: what is used more, or saves more for each byte, has more. Zero for what is worth nothing.
    pub(crate) fn rank(self) -> u128 {
        let uses = u128::from(self.uses);
        match self.cost {
            None => uses,
            // Of bytes that are counted in 32 bits a little is left of the smallest saving.
            Some(cost) => {
                let worth = (uses * u128::from(cost.saving)) << SCALE;
                worth / u128::from(cost.bytes.max(1))
            }
        }
    }

    /// Whether this newcomer is worth clearly less than the `victims` that would have to go for it, the one of
    /// the highest rank first and those worth nothing left out. `free` bytes it can have without them.
    pub(crate) fn yields_to(self, victims: &[Self], free: u64) -> bool {
        let Some(best) = victims.first() else {
            return false;
        };
        let Some(cost) = self.cost else {
            return self.yields_to_one(*best);
        };
        let need = u128::from(cost.bytes.saturating_sub(free));
        let (mut loss, mut bytes) = (0_u128, 0_u128);
        for victim in victims {
            let cost = victim.cost.unwrap_or(cost);
            loss = loss.saturating_add(u128::from(victim.uses) * u128::from(cost.saving));
            bytes += u128::from(cost.bytes);
        }
        let uses = self.uses.saturating_add(MARGIN);
        let gain = u128::from(uses) * u128::from(cost.saving);
        // Where more would go than the newcomer needs, others will have the rest, so only a part is lost for it.
        loss.saturating_mul(need.min(bytes)) > gain.saturating_mul(bytes)
    }

    /// Whether `other` was used clearly more often.
    pub(crate) fn yields_to_one(self, other: Self) -> bool {
        other.uses > self.uses.saturating_add(MARGIN)
    }
}

/// A victim returns only if it was used by more than this more often than the newcomer. A new key has been
/// used once, so one that has two uses to its name does not stand in the way of it.
const MARGIN: u8 = 2;

const SCALE: u32 = 32;

// A rank has room for the largest saving.
const _: () = assert!((u128::MAX >> SCALE) / u64::MAX as u128 > USES_MAX as u128);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(uses: u8) -> Worth {
        Worth { uses, cost: None }
    }

    fn weighed(uses: u8, saving: u64, bytes: u64) -> Worth {
        let cost = Some(Cost { saving, bytes });
        Worth { uses, cost }
    }

    #[test]
    fn without_a_cost_it_is_the_one_used_most_that_counts() {
        assert!(plain(1).yields_to(&[plain(4), plain(1)], 0));
        assert!(!plain(1).yields_to(&[plain(3), plain(3), plain(3)], 0));
        assert!(!plain(1).yields_to(&[], 0));
    }

    #[test]
    fn many_small_ones_are_worth_more_than_a_large_one_in_their_place() {
        let small = [weighed(1, 100, 10); 10];
        assert!(weighed(1, 120, 100).yields_to(&small, 0));
        assert!(!weighed(1, 120, 10).yields_to(&small[..1], 0));
        assert!(weighed(15, 10, 100).yields_to(&small, 0));
    }

    #[test]
    fn a_small_one_takes_only_a_part_of_a_large_one() {
        let large = [weighed(10, 100, 1000)];
        assert!(!weighed(1, 100, 100).yields_to(&large, 0));
        assert!(weighed(1, 100, 1000).yields_to(&large, 0));
        assert!(
            !weighed(1, 100, 1000).yields_to(&large, 900),
            "the most of it is free"
        );
    }

    #[test]
    fn what_costs_more_to_fetch_is_worth_more() {
        assert!(weighed(2, 100, 50).yields_to(&[weighed(2, 1000, 50)], 0));
        assert!(weighed(2, 100, 50).rank() < weighed(1, 1000, 50).rank());
        assert!(weighed(1, 1, u32::MAX.into()).rank() > 0);
        assert_eq!(weighed(0, 1000, 50).rank(), 0);
    }

    proptest! {
        /// Where all are alike, weighing changes nothing; and no numbers are too large.
        #[test]
        fn what_costs_the_same_is_judged_by_uses(
            newcomer in 0..=USES_MAX,
            victim in 1..=USES_MAX,
            saving in 1..=u64::MAX,
            bytes in 1..=u64::MAX,
        ) {
            let plainly = plain(newcomer).yields_to(&[plain(victim)], 0);
            let victims = [weighed(victim, saving, bytes)];
            if u128::from(saving) * u128::from(bytes) < u128::MAX >> 8 {
                prop_assert_eq!(weighed(newcomer, saving, bytes).yields_to(&victims, 0), plainly);
            }
            let _ = weighed(newcomer, saving, bytes).yields_to(&[victims[0]; 50], 0);
            let _ = weighed(newcomer, bytes, saving).yields_to(&[victims[0]; 50], 0);
        }
    }
}
