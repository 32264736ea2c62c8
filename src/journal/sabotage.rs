//! What is to go wrong on purpose. Only with the feature `fault-injection`.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What is to go wrong.
#[derive(Debug, Default)]
pub(crate) struct Sabotage {
    pub(crate) pushes: AtomicUsize,
    pub(crate) stamps: AtomicBool,
}

impl Sabotage {
    /// Whether the record that was just heard of is to be overlooked.
    #[cfg(feature = "redis")]
    pub(crate) fn takes_push(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        let taken = self
            .pushes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    }

    /// Whether entries are to be stamped when they are stored.
    pub(crate) fn stamps_late(&self) -> bool {
        self.stamps.load(Ordering::Relaxed)
    }
}
