//! Judges what was read from Redis.

use std::sync::Arc;

use crate::journal::marker::Subject;
use crate::journal::shard::Shard;
use crate::journal::stamp::{Checked, Stamp, Verdict};

/// How far the journal was when values were read: no earlier invalidation is overlooked.
#[derive(Debug)]
pub struct Barrier {
    pub(crate) shard: Arc<Shard>,
    /// The incarnation and the last number; `None` if there is no journal.
    pub(crate) known: Option<(u64, u64)>,
}

impl Barrier {
    /// What is to be said of a value that was read, by the stamp that it was stored with.
    #[must_use]
    pub fn judge(&self, born: Stamp, subject: &Subject) -> Verdict {
        let heard = self
            .known
            .is_some_and(|(inc, seq)| self.shard.has_heard(inc, seq));
        if !heard {
            return Verdict::Unverified;
        }
        let elsewhere = Checked::at(Stamp::stored(born.inc, born.seq));
        self.shard.read().verdict(born, elsewhere.epoch(), subject)
    }
}
