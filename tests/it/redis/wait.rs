//! Waiting for something that will be so soon: looking again and again, with a deadline.

use std::time::{Duration, Instant};

/// Far more than anything here takes, also on a busy machine; only what never comes, comes to it.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Looks every millisecond until there is something, and fails after 15 s, saying what never came.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, &mut look).unwrap_or_else(|| panic!("{PATIENCE:?} and still not: {what}"))
}

/// Looks every millisecond until there is something or the time is up. Looks once at least.
pub(super) fn within<T>(patience: Duration, look: &mut impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
