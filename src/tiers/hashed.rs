//! Keys whose hash was made once, and tables of them that do not hash again.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use quick_cache::Equivalent;

/// A key that carries its hash.
pub(crate) trait HashedKey: Hash + Eq {
    fn hash_value(&self) -> u64;
}

/// Finds a key by nothing but its hash. Where two keys share one, it may be the other that is found, so this
/// is for those who could live with that: the hash has 64 bits, and a seed that nobody outside knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByHash(pub(crate) u64);

impl Hash for ByHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

impl<K: HashedKey> Equivalent<K> for ByHash {
    fn equivalent(&self, key: &K) -> bool {
        self.0 == key.hash_value()
    }
}

/// For tables of keys: hands on the hash that they carry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hashed(u64);

/// Builds [`Hashed`].
pub(crate) type BuildHashed = BuildHasherDefault<Hashed>;

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        // Only whole hashes are written; anything else is folded in, lest it be lost.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}
