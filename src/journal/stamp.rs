//! Positions in the journal.

use std::sync::atomic::{AtomicU64, Ordering};

/// A position in a journal: which journal, and how many records it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The journal's incarnation: random, new whenever its past is lost.
    pub inc: u64,
    /// The number of its last record.
    pub seq: u64,
}

/// What an invalidation is acknowledged with: the position of its record. Entries stamped before
/// this position that the record names are never served again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(pub Stamp);

/// The position at which an entry was last found to hold. As long as it is the journal's last, the
/// entry need not be judged again.
#[derive(Debug)]
pub struct Checked(AtomicU64);

impl Checked {
    /// An entry that is known to hold at the position it was born.
    #[must_use]
    pub const fn at(born: Stamp) -> Self {
        Self(AtomicU64::new(born.seq))
    }

    pub(crate) fn seq(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, seq: u64) {
        self.0.fetch_max(seq, Ordering::Relaxed);
    }
}
