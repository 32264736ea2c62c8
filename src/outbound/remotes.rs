//! The remotes that are kept in mind.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::RandomState;

use crate::outbound::desk::Desk;
use crate::outbound::remote::Remote;

/// Remotes by name, as many as are allowed.
#[derive(Debug)]
pub(crate) struct Remotes {
    most: usize,
    known: RwLock<Known>,
    hasher: RandomState,
}

type Known = HashMap<Arc<str>, Arc<Remote>, RandomState>;

impl Remotes {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            known: RwLock::default(),
            hasher: RandomState::default(),
        }
    }

    /// The remote of this name, of which only the first [`NAME_MAX`] bytes count. Costs a lookup where
    /// it is known.
    pub(crate) fn at(&self, name: &str, desk: &Arc<Desk>) -> Arc<Remote> {
        let name = name
            .get(..name.floor_char_boundary(NAME_MAX))
            .unwrap_or(name);
        self.find(name).unwrap_or_else(|| self.enter(name, desk))
    }

    /// The remote of this name, if it is kept in mind.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Remote>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(name).map(Arc::clone)
    }

    #[cold]
    fn enter(&self, name: &str, desk: &Arc<Desk>) -> Arc<Remote> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(remote) = known.get(name) {
            return Arc::clone(remote);
        }
        if known.len() >= self.most {
            make_room(&mut known, self.most);
        }
        // Where all are in use, one more counts for itself as long as its requests are under way.
        let kept = known.len() < self.most;
        let name: Arc<str> = name.into();
        // Seeded at random, so that instances differ.
        let scatter = (self.hasher.hash_one(&*name) % 1024) as u16;
        let remote = Arc::new(Remote::new(
            Arc::clone(&name),
            Arc::clone(desk),
            kept,
            scatter,
        ));
        if kept {
            known.insert(name, Arc::clone(&remote));
        }
        remote
    }

    /// How many are kept in mind.
    pub(crate) fn len(&self) -> usize {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.len()
    }

    /// All of them at this moment.
    #[cfg(feature = "redis")]
    pub(crate) fn all(&self) -> Vec<Arc<Remote>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().map(Arc::clone).collect()
    }
}

/// Forgets an eighth at a time, so that a flood of names does not look through all of them for each:
/// those that nobody uses, and first those of which nothing is known for long.
fn make_room(known: &mut Known, most: usize) {
    // Nobody can begin to use one meanwhile: that takes a look at the map.
    let idle = known
        .values()
        .filter(|remote| Arc::strong_count(remote) == 1);
    let mut idle: Vec<_> = idle
        .map(|remote| (remote.known_until(), Arc::clone(remote.name())))
        .collect();
    let leaving = (most / 8 + 1).min(idle.len());
    if leaving < idle.len() {
        idle.select_nth_unstable(leaving);
    }
    for (_, name) in idle.drain(..leaving) {
        known.remove(&name);
    }
}

/// How much of a name counts, in bytes: as much as a host name can have (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::clock::{Clock, Moment};
    use crate::event::Events;
    use crate::outbound::config::QuotaConfig;
    use crate::outbound::remote::Arrival;

    fn desk() -> Arc<Desk> {
        let clock = Clock::manual().0;
        Arc::new(Desk::new(&QuotaConfig::default(), clock, Events::none()))
    }

    fn block(remote: &Remote, secs: u64) {
        assert!(matches!(remote.arrive(), Arrival::Go));
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from(secs));
        remote.hear(Moment::default(), StatusCode::TOO_MANY_REQUESTS, &headers);
    }

    #[test]
    fn a_flood_of_names_neither_grows_nor_pushes_out_what_matters() {
        let (remotes, desk) = (Remotes::new(64), desk());
        let in_use = remotes.at("in use", &desk);
        block(&remotes.at("blocked", &desk), 3600);
        for name in 0..10_000 {
            drop(remotes.at(&name.to_string(), &desk));
            assert!(remotes.len() <= 64);
        }
        assert!(Arc::ptr_eq(&in_use, &remotes.at("in use", &desk)));
        assert!(remotes.find("blocked").is_some());
        // Those of which something is known go as well when there is no other.
        for name in 0..200 {
            block(&remotes.at(&name.to_string(), &desk), 60);
            assert!(remotes.len() <= 64);
        }
        assert!(remotes.find("blocked").is_some(), "known for longest");
        assert!(remotes.find("in use").is_some());
    }

    #[test]
    fn where_all_are_in_use_one_more_is_not_kept() {
        let (remotes, desk) = (Remotes::new(2), desk());
        let held = ["a", "b"].map(|name| remotes.at(name, &desk));
        let more = remotes.at("c", &desk);
        assert!(remotes.len() == 2 && remotes.find("c").is_none());
        drop((held, more));
        drop(remotes.at("c", &desk));
        assert!(remotes.find("c").is_some());
    }

    #[test]
    fn of_a_long_name_the_beginning_counts() {
        let (remotes, desk) = (Remotes::new(8), desk());
        let long = "ä".repeat(1000);
        let remote = remotes.at(&long, &desk);
        assert_eq!(remote.name().len(), 254, "whole letters only");
        assert!(Arc::ptr_eq(&remote, &remotes.at(&long[..400], &desk)));
    }
}
