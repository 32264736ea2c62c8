//! Whether it is right of late to keep what was used often: bets on the outcome of duels.
//!
//! Where popularity is steady, an item that was used often deserves its place more than a newcomer; where it
//! moves on, the newcomer does. Nobody says which it is, but it shows: of two keys with room for one, the one
//! that was kept should be asked for before the other comes back. A few duels are watched until that is known,
//! and each outcome moves a score.

/// Duels whose outcome is awaited, and the score of those that are known.
#[derive(Debug)]
pub(crate) struct Bets {
    placed: Box<[Option<Bet>]>,
    /// Not below zero while victims are right to return. It begins in their favour.
    score: i8,
    /// One in so many keys is bet on, such that a bet stands about as long as an item stays.
    one_in: u64,
}

/// Two keys, room for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bet {
    /// The hash of the key that went.
    pub(crate) gone: u64,
    /// The hash of the one that stayed.
    pub(crate) stayed: u64,
    /// How often that one had been used until then.
    pub(crate) uses: u8,
    /// Which of the two it is that stayed.
    pub(crate) winner: Side,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Victim,
    Newcomer,
}

impl Bets {
    pub(crate) fn new() -> Self {
        Self {
            placed: vec![None; BETS].into_boxed_slice(),
            score: 0,
            one_in: 1,
        }
    }

    /// Whether a victim that was used more often than a newcomer is right to return.
    pub(crate) fn are_for_victims(&self) -> bool {
        self.score >= 0
    }

    /// Fits the bets to so many items.
    pub(crate) fn spread(&mut self, items: usize) {
        self.one_in = (items / BETS).max(1) as u64;
    }

    /// Watches a duel, perhaps in place of an older one. `uses_of` tells the uses of a key that is stored.
    pub(crate) fn place(&mut self, bet: Bet, uses_of: impl FnOnce(u64) -> Option<u8>) {
        // Other bits than those that choose the place, or the shard of the engine.
        if !(bet.gone >> 20).is_multiple_of(self.one_in) {
            return;
        }
        // The key that went has not come back for long. If the other was used, then that was right.
        if let Some(old) = self.placed[place(bet.gone)].replace(bet)
            && old.stayed_is_used(uses_of)
        {
            self.lean(old.winner);
        }
    }

    /// A key comes to be stored. If it went for another, that one should have been used by now.
    pub(crate) fn settle(&mut self, hash: u64, uses_of: impl FnOnce(u64) -> Option<u8>) {
        if let Some(bet) = self.placed[place(hash)].take_if(|bet| bet.gone == hash) {
            let right = if bet.stayed_is_used(uses_of) {
                bet.winner
            } else {
                bet.winner.other()
            };
            self.lean(right);
        }
    }

    fn lean(&mut self, right: Side) {
        let step = match right {
            Side::Victim => 1,
            Side::Newcomer => -1,
        };
        self.score = (self.score + step).clamp(-SCORE_MAX, SCORE_MAX);
    }
}

impl Bet {
    fn stayed_is_used(&self, uses_of: impl FnOnce(u64) -> Option<u8>) -> bool {
        uses_of(self.stayed).is_some_and(|uses| uses > self.uses)
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Victim => Self::Newcomer,
            Self::Newcomer => Self::Victim,
        }
    }
}

fn place(hash: u64) -> usize {
    (hash >> 40) as usize % BETS
}

/// Duels that are watched at one time.
const BETS: usize = 64;

/// How far the score may lean: after as many outcomes of the other kind it changes sides.
const SCORE_MAX: i8 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bet(gone: u64, winner: Side) -> Bet {
        Bet {
            gone,
            stayed: 7,
            uses: 3,
            winner,
        }
    }

    #[test]
    fn who_was_kept_and_used_was_right() {
        for (uses, is_for_victims) in [(Some(4), true), (Some(3), false), (None, false)] {
            let mut bets = Bets::new();
            bets.place(bet(1, Side::Victim), |_| None);
            bets.settle(1, |stayed| uses.filter(|_| stayed == 7));
            assert_eq!(bets.are_for_victims(), is_for_victims, "{uses:?}");
            let mut bets = Bets::new();
            bets.place(bet(1, Side::Newcomer), |_| None);
            bets.settle(1, |_| uses);
            assert_eq!(bets.are_for_victims(), !is_for_victims, "{uses:?}");
        }
    }

    #[test]
    fn a_key_that_was_not_bet_on_and_a_bet_that_is_settled_move_nothing() {
        let mut bets = Bets::new();
        bets.place(bet(1, Side::Victim), |_| None);
        bets.settle(2, |_| None);
        assert!(bets.are_for_victims());
        for _ in 0..2 {
            bets.settle(1, |_| None);
        }
        bets.place(bet(1, Side::Victim), |_| None);
        bets.settle(1, |_| Some(9));
        assert!(bets.are_for_victims(), "one against, one for");
    }

    #[test]
    fn a_key_that_stays_away_confirms_what_is_used() {
        let mut bets = Bets::new();
        bets.place(bet(1, Side::Newcomer), |_| None);
        bets.place(bet(2, Side::Newcomer), |_| None);
        assert!(bets.are_for_victims(), "one that was not used says nothing");
        bets.place(bet(3, Side::Newcomer), |_| Some(4));
        assert!(!bets.are_for_victims());
    }

    #[test]
    fn with_many_items_few_keys_are_bet_on() {
        let mut bets = Bets::new();
        bets.spread(BETS * 1000);
        let placed = |gone: u64| {
            bets.place(bet(gone << 20, Side::Victim), |_| None);
            bets.placed.iter_mut().any(|bet| bet.take().is_some())
        };
        assert_eq!((0..10_000).map(placed).filter(|placed| *placed).count(), 10);
    }

    proptest! {
        #[test]
        fn a_new_wind_turns_the_score_soon(
            past in proptest::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut bets = Bets::new();
            for right in past {
                bets.place(bet(1, Side::Victim), |_| None);
                bets.settle(1, |_| right.then_some(4));
            }
            for used in [None, Some(4)] {
                for _ in 0..=SCORE_MAX {
                    bets.place(bet(1, Side::Victim), |_| None);
                    bets.settle(1, |_| used);
                }
                prop_assert!(used.is_some() || !bets.are_for_victims());
            }
            prop_assert!(bets.are_for_victims());
        }
    }
}
