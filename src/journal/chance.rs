//! Numbers that nobody else draws.

use std::hash::{BuildHasher, RandomState};

/// A random number. The standard library seeds these by the system's randomness, once per thread, and makes
/// each different from the one before.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one("tower-keep")
}
