//! Who may have how much of one memory: max-min fairness over allowances, as plain arithmetic.
//!
//! Every space has an allowance, and all of them together never exceed the capacity. A space that needs more is
//! given from what is free; if nothing is, from the largest, as long as that one stays at least as large as the
//! asker becomes, and never below the fair share, which is the capacity by the number of spaces. So whoever
//! asks again and again comes to the fair share and no further, as long as others want theirs, and whoever is
//! alone can have it all. An allowance that is not used counts as free, but only on demand: see [`Shares::trim`].

/// The allowances of all spaces, in bytes.
#[derive(Debug)]
pub(crate) struct Shares {
    capacity: u64,
    least: u64,
    /// In the order in which they came, which decides between equals.
    shares: Vec<Share>,
}

/// What one space may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    /// Which space it is.
    pub(crate) id: u64,
    /// Its allowance.
    pub(crate) bytes: u64,
    /// What its allowance never exceeds.
    quota: u64,
}

impl Shares {
    /// Nobody has anything of `capacity` yet. Everybody will have `least` of it, which is meant to be small: it
    /// is cut to the fair share where it is not.
    pub(crate) fn new(capacity: u64, least: u64) -> Self {
        Self {
            capacity,
            least,
            shares: Vec::new(),
        }
    }

    /// Adds a space with a quota. It gets `bytes` of what is free, and the least allowance in any case. Says who
    /// was changed for it, itself last.
    pub(crate) fn open(&mut self, id: u64, quota: u64, bytes: u64) -> Vec<Share> {
        let bytes = bytes.min(quota).min(self.free());
        self.shares.push(Share { id, bytes, quota });
        let needed = self.least().min(quota).saturating_sub(bytes);
        let place = self.shares.len() - 1;
        let mut changed = self.take(place, needed);
        changed.push(self.shares[place]);
        changed
    }

    /// Takes a space and its allowance away.
    pub(crate) fn close(&mut self, id: u64) {
        self.shares.retain(|share| share.id != id);
    }

    /// A space needs room for an item. Says who was changed for it, itself last; nobody if there is nothing to
    /// have.
    pub(crate) fn ask(&mut self, id: u64, item: u64) -> Vec<Share> {
        let Some(place) = self.place(id) else {
            return Vec::new();
        };
        let step = self.step().max(item.saturating_mul(ITEMS_PER_STEP));
        let Share { bytes, quota, .. } = self.shares[place];
        let given = step.min(self.free()).min(quota.saturating_sub(bytes));
        self.shares[place].bytes += given;
        let needed = step.min(quota.saturating_sub(bytes)) - given;
        let mut changed = self.take(place, needed);
        if self.shares[place].bytes > bytes {
            changed.push(self.shares[place]);
        }
        changed
    }

    /// A space uses so much of its allowance. What it does not use becomes free if that is more than it would be
    /// given at a time, so that whoever is just growing is left alone. Says what it has now, if that is less.
    pub(crate) fn trim(&mut self, id: u64, used: u64) -> Option<Share> {
        let keeps = if used == 0 { 0 } else { self.step() };
        let keeps = used.saturating_add(keeps).max(self.least());
        let place = self.place(id)?;
        let share = &mut self.shares[place];
        if share.bytes <= keeps {
            return None;
        }
        share.bytes = keeps;
        Some(*share)
    }

    /// Changes the capacity. If it falls below what is allowed, then everybody who has more than the fair share
    /// gives the same part of that. Says who was changed.
    pub(crate) fn resize(&mut self, capacity: u64) -> Vec<Share> {
        self.capacity = capacity;
        let excess = self.allowed().saturating_sub(capacity);
        let fair = self.fair();
        let above: u64 = self
            .shares
            .iter()
            .map(|share| share.bytes.saturating_sub(fair))
            .sum();
        let above_fair = self.shares.iter_mut().filter(|share| share.bytes > fair);
        let cut = above_fair.filter_map(|share| {
            // Rounded up, lest a byte be left over the capacity. No share is zero here, so neither is the sum,
            // and the excess is at most the sum: the fair shares alone fit.
            let part = u128::from(share.bytes - fair) * u128::from(excess);
            let part = part.div_ceil(u128::from(above));
            share.bytes -= u64::try_from(part).unwrap_or(share.bytes - fair);
            (part > 0).then_some(*share)
        });
        cut.collect()
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What nobody has.
    pub(crate) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.allowed())
    }

    /// What a space is given at a time, if the item is not a large one: small beside the capacity and beside the
    /// fair share, so that what lies unused is, too.
    pub(crate) fn step(&self) -> u64 {
        let spaces = self.shares.len() as u64;
        self.capacity / STEPS.max(spaces.saturating_mul(STEPS_PER_FAIR_SHARE))
    }

    fn allowed(&self) -> u64 {
        self.shares.iter().map(|share| share.bytes).sum()
    }

    fn fair(&self) -> u64 {
        self.capacity / (self.shares.len() as u64).max(1)
    }

    fn least(&self) -> u64 {
        self.least.min(self.fair())
    }

    fn place(&self, id: u64) -> Option<usize> {
        self.shares.iter().position(|share| share.id == id)
    }

    /// Takes up to `needed` from the largest for the one at `place`. Says from whom.
    fn take(&mut self, place: usize, mut needed: u64) -> Vec<Share> {
        let mut taken = Vec::new();
        if needed == 0 {
            return taken;
        }
        let fair = self.fair();
        let mut asker = self.shares[place].bytes;
        let larger = |other: &usize| self.shares[*other].bytes > fair.max(asker);
        let mut largest: Vec<_> = (0..self.shares.len()).filter(larger).collect();
        // Those that are equal stay in their order.
        largest.sort_by_key(|other| std::cmp::Reverse(self.shares[*other].bytes));
        for other in largest {
            let bytes = self.shares[other].bytes;
            // Afterwards it is neither below the asker nor below the fair share.
            let most = (bytes.saturating_sub(asker) / 2).min(bytes - fair);
            let part = needed.min(most);
            if part == 0 {
                break;
            }
            self.shares[other].bytes -= part;
            asker += part;
            needed -= part;
            taken.push(self.shares[other]);
        }
        self.shares[place].bytes = asker;
        taken
    }
}

/// A space grows by this part of the capacity at least.
const STEPS: u64 = 64;

/// Where there are many spaces: by this part of the fair share.
const STEPS_PER_FAIR_SHARE: u64 = 4;

/// A large item is given room for so many of its kind.
const ITEMS_PER_STEP: u64 = 4;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn bytes(shares: &Shares, id: u64) -> u64 {
        shares.shares[shares.place(id).unwrap()].bytes
    }

    /// Asks until there is nothing more to have.
    fn ask_for_all(shares: &mut Shares, id: u64) {
        while !shares.ask(id, 1).is_empty() {}
    }

    #[test]
    fn whoever_is_alone_has_everything() {
        let mut shares = Shares::new(1000, 10);
        shares.open(1, u64::MAX, 0);
        ask_for_all(&mut shares, 1);
        assert_eq!(bytes(&shares, 1), 1000);
    }

    #[test]
    fn whoever_comes_later_gets_the_fair_share_and_no_more() {
        let mut shares = Shares::new(1200, 10);
        shares.open(1, u64::MAX, 1200);
        shares.open(2, u64::MAX, 0);
        ask_for_all(&mut shares, 2);
        assert_eq!((bytes(&shares, 1), bytes(&shares, 2)), (600, 600));
        shares.open(3, u64::MAX, 0);
        ask_for_all(&mut shares, 3);
        assert!(bytes(&shares, 3) >= 399, "{shares:?}");
        assert!(bytes(&shares, 1) >= 400 && bytes(&shares, 2) >= 400);
    }

    #[test]
    fn what_is_not_used_becomes_free_but_for_a_step() {
        let mut shares = Shares::new(6400, 10);
        shares.open(1, u64::MAX, 6400);
        shares.open(2, u64::MAX, 0);
        assert_eq!(shares.trim(1, 3000).unwrap().bytes, 3100);
        assert_eq!(shares.trim(1, 3050), None, "it is just growing");
        assert_eq!(shares.trim(1, 0).unwrap().bytes, 10);
        ask_for_all(&mut shares, 2);
        assert_eq!(bytes(&shares, 2), 6390);
    }

    #[test]
    fn a_smaller_capacity_is_paid_for_by_those_above_the_fair_share() {
        let mut shares = Shares::new(1000, 10);
        shares.open(1, u64::MAX, 600);
        shares.open(2, u64::MAX, 300);
        shares.open(3, u64::MAX, 100);
        shares.resize(600);
        assert_eq!(bytes(&shares, 3), 100);
        assert_eq!((bytes(&shares, 1), bytes(&shares, 2)), (280, 220));
    }

    #[test]
    fn of_equals_the_oldest_gives() {
        let mut shares = Shares::new(1000, 10);
        shares.open(7, u64::MAX, 500);
        shares.open(3, u64::MAX, 500);
        let changed = shares.open(9, u64::MAX, 0);
        assert_eq!(changed.len(), 2);
        assert_eq!(changed[0].id, 7);
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Open(u64, u64, u64),
        Close(u64),
        Ask(u64, u64),
        Trim(u64, u64),
        Resize(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        let id = 0..12_u64;
        prop_oneof![
            3 => (id.clone(), 0..3000_u64, 0..2000_u64).prop_map(|(i, q, b)| Deed::Open(i, q, b)),
            1 => id.clone().prop_map(Deed::Close),
            20 => (id.clone(), 0..400_u64).prop_map(|(id, item)| Deed::Ask(id, item)),
            2 => (id, 0..1000_u64).prop_map(|(id, used)| Deed::Trim(id, used)),
            1 => (0..4000_u64).prop_map(Deed::Resize),
        ]
    }

    proptest! {
        /// Whatever is asked: the sum keeps to the capacity, each to its quota, who is at or below the fair
        /// share is not cut for another, who is below it and asks gets there, and what is said is what is.
        #[test]
        fn nobody_has_too_much_and_nobody_is_robbed(
            deeds in proptest::collection::vec(deed(), 1..300),
            least in 0..50_u64,
        ) {
            let mut shares = Shares::new(2000, least);
            for deed in deeds {
                let before: HashMap<_, _> = shares.shares.iter().map(|s| (s.id, *s)).collect();
                let mut asker = None;
                let told = match deed {
                    Deed::Open(id, quota, bytes) if shares.place(id).is_none() => {
                        asker = Some(id);
                        shares.open(id, quota, bytes)
                    }
                    Deed::Open(..) => continue,
                    Deed::Close(id) => {
                        shares.close(id);
                        continue;
                    }
                    Deed::Ask(id, item) => {
                        asker = Some(id);
                        shares.ask(id, item)
                    }
                    Deed::Trim(id, used) => {
                        let told = shares.trim(id, used);
                        prop_assert!(told.is_none_or(|share| share.bytes >= used));
                        asker = Some(id);
                        told.into_iter().collect()
                    }
                    Deed::Resize(capacity) => shares.resize(capacity),
                };
                prop_assert!(shares.allowed() <= shares.capacity);
                let fair = shares.fair();
                for share in &shares.shares {
                    prop_assert!(share.bytes <= share.quota);
                    let Some(before) = before.get(&share.id) else { continue };
                    if asker != Some(share.id) {
                        prop_assert!(share.bytes <= before.bytes);
                        prop_assert!(share.bytes >= before.bytes.min(fair));
                    }
                    let was_told = told.contains(share);
                    prop_assert_eq!(was_told, share.bytes != before.bytes);
                }
                if let Deed::Ask(id, item) = deed && let Some(place) = shares.place(id) {
                    let step = shares.step().max(4 * item);
                    let (now, before) = (shares.shares[place], before[&id].bytes);
                    let least = (before + step).min(now.quota).min(fair);
                    // All others round down in its favour, by less than one byte each.
                    prop_assert!(now.bytes + 12 >= least, "{now:?} before {before} of {least}");
                }
            }
        }

        /// Whatever happened before: those that want everything end within a byte or so of each other, or at
        /// their quota.
        #[test]
        fn those_that_want_everything_end_up_alike(
            quotas in proptest::collection::vec(100..3000_u64, 1..12),
            first in proptest::collection::vec((0..12_u64, 0..400_u64), 0..50),
        ) {
            let mut shares = Shares::new(10_000, 10);
            for (id, quota) in quotas.iter().enumerate() {
                shares.open(id as u64, *quota, 0);
            }
            for (id, item) in first {
                shares.ask(id, item);
            }
            for _ in 0..200 {
                (0..quotas.len()).for_each(|id| drop(shares.ask(id as u64, 1)));
            }
            let wanted: u64 = quotas.iter().sum();
            prop_assert!(shares.allowed() + 24 >= wanted.min(10_000));
            let hungry = shares.shares.iter().filter(|share| share.bytes < share.quota);
            let most = shares.shares.iter().map(|share| share.bytes).max().unwrap();
            for share in hungry {
                prop_assert!(share.bytes + 24 >= most.min(share.quota).min(shares.fair()), "{shares:?}");
            }
        }
    }
}
