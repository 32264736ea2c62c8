//! Faults on purpose, for tests of whoever is to find them. Only with the feature `fault-injection`.

use std::sync::atomic::Ordering;

use crate::journal::log::Journal;

impl Journal {
    /// Overlooks the next record that is pushed to this instance, and does not notice the gap: as if
    /// the message were lost and nobody counted.
    pub fn lose_next_push(&self) {
        for part in &self.shared.parts {
            part.shard.sabotage.pushes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets what was invalidated without raising the floor, so that entries from before hold again.
    pub fn forget_markers(&self) {
        for part in &self.shared.parts {
            part.shard.change(|mirror, _| mirror.forget());
        }
    }

    /// Whether entries are stamped with where the journal stands when they are stored, instead of when
    /// their computation began.
    pub fn stamp_late(&self, late: bool) {
        for part in &self.shared.parts {
            part.shard.sabotage.stamps.store(late, Ordering::Relaxed);
        }
    }

    pub(crate) fn stamps_late(&self) -> bool {
        self.part(None).shard.sabotage.stamps_late()
    }
}
