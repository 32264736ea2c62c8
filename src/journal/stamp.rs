//! Positions in the journal.

use crate::sync::{AtomicU64, Ordering};

/// A position in a journal: which journal, and how many records it held.
///
/// Two stamps are equal if they name the same position, wherever they were taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamp {
    /// The journal's incarnation: random, new whenever its past may be lost.
    pub inc: u64,
    /// The number of its last record.
    pub seq: u64,
    /// How often this process' mirror had changed by then; 0 for a stamp from elsewhere.
    pub(crate) here: u64,
}

impl Stamp {
    /// A stamp that came with something stored outside of this process.
    #[must_use]
    pub const fn stored(inc: u64, seq: u64) -> Self {
        Self { inc, seq, here: 0 }
    }

    /// Sixteen bytes to store beside a value.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (inc, seq) = bytes.split_at_mut(8);
        inc.copy_from_slice(&self.inc.to_le_bytes());
        seq.copy_from_slice(&self.seq.to_le_bytes());
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        Self::stored(both as u64, (both >> 64) as u64)
    }
}

impl PartialEq for Stamp {
    fn eq(&self, other: &Self) -> bool {
        (self.inc, self.seq) == (other.inc, other.seq)
    }
}

impl Eq for Stamp {}

/// What an invalidation is acknowledged with: the position of its record. Entries stamped before
/// this position that the record names are never served again, by no instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt(pub Stamp);

/// An invalidation that was carried out here, and that not every instance is known to have heard of.
///
/// Nothing is lost: the record is queued or stored, and will be carried out everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pending {
    /// Redis is away. The record waits here, and is appended as soon as Redis is back.
    #[error("invalidated here; Redis is away, so the record waits to be appended")]
    Queued,
    /// The record was sent, and whether Redis has it is not known yet.
    #[error("invalidated here; Redis has not confirmed the record in time")]
    Unanswered,
    /// Redis has the record, but not every instance has confirmed it in time. Those that do not hear of
    /// it stop serving from memory when their lease ends.
    #[error("recorded; not every instance has confirmed the invalidation in time")]
    Unconfirmed,
}

/// What the journal says of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that was invalidated since its birth concerns it.
    Fresh,
    /// It was expired softly: it may be served as a stale answer may be, and not as a fresh one.
    Expired,
    /// It was invalidated, and is never served again.
    Gone,
    /// Nobody knows: this instance has not heard from the journal for too long. It may turn out to be
    /// fresh again.
    Unverified,
}

impl Verdict {
    /// Whether it may be served in some way.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Self::Fresh | Self::Expired)
    }
}

/// The state of the mirror at which an entry was last found to hold. As long as the mirror has not
/// changed, the entry need not be judged again.
#[derive(Debug)]
pub struct Checked(AtomicU64);

impl Checked {
    /// An entry that is known to hold at the position it was born.
    #[must_use]
    pub fn at(born: Stamp) -> Self {
        Self(AtomicU64::new(born.here))
    }

    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn advance(&self, epoch: u64) {
        self.0.fetch_max(epoch, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_bytes() {
        let stamp = Stamp::stored(u64::MAX - 3, 1 << 52);
        assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
        assert_eq!(Stamp::from_bytes([0; 16]), Stamp::default());
    }

    #[test]
    fn where_a_stamp_was_taken_does_not_tell_it_from_another() {
        let here = Stamp {
            inc: 1,
            seq: 2,
            here: 9,
        };
        assert_eq!(here, Stamp::stored(1, 2));
        assert_ne!(here, Stamp::stored(1, 3));
    }
}
