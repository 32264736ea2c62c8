//! Draws.

use std::hash::{BuildHasher, RandomState};

/// A number from 0 up to 1.
pub(crate) fn unit() -> f64 {
    // The standard library seeds its hashers at random, and each one anew. 53 bits are what a double holds.
    let bits = RandomState::new().hash_one(0_u8) >> 11;
    bits as f64 / (1_u64 << 53) as f64
}
