//! Who was banned here, or was heard to be, by name.
//!
//! Where Redis has lost a ban, whoever knows of it speaks it again. The table of bans cannot say whose they
//! are: it knows clients by hashes, of which two may look the same, and then one is refused here for the
//! other's ban. Nobody is accused before the whole fleet for that.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;

/// As many names are kept; beyond, those whose bans end first are forgotten.
const NAMES_MAX: usize = 1024;

/// Names, and when their bans end, in ticks.
#[derive(Debug, Default)]
pub(crate) struct Spoken {
    ends: Mutex<HashMap<Box<str>, u64, RandomState>>,
}

impl Spoken {
    /// Notes that somebody is banned for so long; a ban that lasts longer stays.
    pub(crate) fn note(&self, who: &str, lasts: Duration, now: u64) {
        let lasts = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        let end = now.saturating_add(lasts);
        let mut ends = self.lock();
        if let Some(known) = ends.get_mut(who) {
            *known = end.max(*known);
            return;
        }
        if ends.len() >= NAMES_MAX {
            ends.retain(|_, end| now < *end);
        }
        if ends.len() >= NAMES_MAX {
            let first = ends.iter().min_by_key(|(_, end)| **end);
            let first = first.map(|(who, _)| who.clone());
            first.and_then(|first| ends.remove(&first));
        }
        ends.insert(who.into(), end);
    }

    /// Notes that a ban has ended.
    pub(crate) fn forget(&self, who: &str) {
        self.lock().remove(who);
    }

    /// For how long somebody is still banned, if that was noted.
    pub(crate) fn left(&self, who: &str, now: u64) -> Option<Duration> {
        let end = self.lock().get(who).copied()?;
        (now < end).then(|| Duration::from_micros(end - now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, u64, RandomState>> {
        // Nothing in here panics halfway.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_who_was_named_is_known_and_until_the_ban_ends() {
        let spoken = Spoken::default();
        spoken.note("caller:alice", 60 * SECOND, 0);
        spoken.note("caller:alice", SECOND, 0);
        assert_eq!(spoken.left("caller:alice", 20_000_000), Some(40 * SECOND));
        assert_eq!(spoken.left("caller:alice", 60_000_000), None);
        assert_eq!(spoken.left("caller:bob", 0), None);
        spoken.forget("caller:alice");
        assert_eq!(spoken.left("caller:alice", 0), None);
    }

    #[test]
    fn so_many_names_are_kept_and_no_more() {
        let spoken = Spoken::default();
        for n in 0..2 * NAMES_MAX {
            let lasts = SECOND * u32::try_from(n + 1).unwrap();
            spoken.note(&format!("caller:{n}"), lasts, 0);
        }
        assert_eq!(spoken.lock().len(), NAMES_MAX);
        let known = |n: usize| spoken.left(&format!("caller:{n}"), 0).is_some();
        assert!(known(2 * NAMES_MAX - 1) && known(NAMES_MAX) && !known(NAMES_MAX - 1));
    }
}
