//! Numbers by chance that a seed decides, so that a run can be repeated as far as its schedule goes.

/// A generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..end`, or 0 where there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// One of `0..end`, low ones far more often: half of them lie in the first eighth.
    pub fn skewed(&mut self, end: u64) -> u64 {
        let part = self.below(1 << 20);
        // The cube of a fraction, in fixed point.
        let cube = (((part * part) >> 20) * part) >> 20;
        (end * cube) >> 20
    }

    pub fn one_in(&mut self, end: u64) -> bool {
        self.below(end) == 0
    }
}
