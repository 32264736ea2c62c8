//! Locks of one process, where no Redis is configured: the same rules, in a bounded map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::{Clock, Moment};
use crate::lock::error::LockError;
use crate::lock::leaving::Leaving;
use crate::lock::name::Name;
use crate::lock::owner::Owner;

/// Locks by key. What has expired counts as free, and is let go of when there is need of room.
#[derive(Debug)]
pub(crate) struct Memory {
    clock: Clock,
    held: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    by_key: HashMap<Arc<str>, Held>,
    /// The latest token of all keys. One counter for all of them makes each key's tokens increase as well,
    /// and need not be kept for keys that nobody holds.
    token: u64,
    /// Nothing expires before.
    first_end: Moment,
    /// At how many keys the expired ones are looked for: twice as many as were left last time.
    swept_at: usize,
}

#[derive(Debug)]
struct Held {
    owner: Owner,
    token: u64,
    until: Moment,
}

/// How many keys may be locked at once: some megabytes with keys of the longest kind.
pub(crate) const KEYS_MAX: usize = 10_000;
/// Fewer are not worth a look.
const SWEEP_MIN: usize = 64;

impl Memory {
    pub(crate) fn new(clock: Clock) -> Self {
        let book = Book {
            by_key: HashMap::new(),
            token: 0,
            first_end: Moment::default(),
            swept_at: SWEEP_MIN,
        };
        Self {
            clock,
            held: Mutex::new(book),
        }
    }

    /// Takes a lock that is free, or is the owner's already. Returns its token.
    pub(crate) fn claim(
        &self,
        name: &Name,
        owner: &Owner,
        ttl: Duration,
    ) -> Result<u64, LockError> {
        let mut book = self.lock();
        let now = self.clock.now();
        let until = now.plus(ttl);
        match book.by_key.get_mut(name.as_str()) {
            Some(held) if held.until > now && held.owner == *owner => {
                held.until = held.until.max(until);
                return Ok(held.token);
            }
            Some(held) if held.until > now => {
                return Err(LockError::Held {
                    key: name.shared(),
                    free_in: held.until.since(now),
                });
            }
            Some(_) => {}
            None => book.make_room(now)?,
        }
        // As in Redis: time keeps them increasing over the end of the process as well.
        let wall = self.clock.wall().duration_since(UNIX_EPOCH);
        let micros = wall.map_or(0, |wall| u64::try_from(wall.as_micros()).unwrap_or(0));
        let token = micros.max(book.token.saturating_add(1));
        book.token = token;
        book.first_end = book.first_end.min(until);
        let owner = owner.clone();
        let held = Held {
            owner,
            token,
            until,
        };
        book.by_key.insert(name.shared(), held);
        Ok(token)
    }

    /// Puts the end of a lock off, never forward. Returns whether it is still the owner's.
    pub(crate) fn extend(&self, name: &Name, (owner, token): (&Owner, u64), ttl: Duration) -> bool {
        let mut book = self.lock();
        let now = self.clock.now();
        let held = book.by_key.get_mut(name.as_str());
        let is_theirs = |held: &Held| held.owner == *owner && held.token == token;
        let Some(held) = held.filter(|held| held.until > now && is_theirs(held)) else {
            return false;
        };
        held.until = held.until.max(now.plus(ttl));
        true
    }

    /// Frees a lock, if it is the owner's. Returns whether it was, with this token.
    pub(crate) fn release(&self, leaving: &Leaving, token: Option<u64>) -> bool {
        let mut book = self.lock();
        let key = leaving.name.as_str();
        let held = book.by_key.get(key);
        let Some(held) = held.filter(|held| held.owner == leaving.owner) else {
            return false;
        };
        let was_held = held.until > self.clock.now() && Some(held.token) == token;
        book.by_key.remove(key);
        was_held
    }

    /// A panic cannot leave the map half-changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Makes room for one more key.
    fn make_room(&mut self, now: Moment) -> Result<(), LockError> {
        if self.by_key.len() < self.swept_at {
            return Ok(());
        }
        if self.first_end <= now {
            self.by_key.retain(|_, held| held.until > now);
            let ends = self.by_key.values().map(|held| held.until);
            self.first_end = ends.min().unwrap_or(now);
            self.swept_at = (2 * self.by_key.len()).clamp(SWEEP_MIN, KEYS_MAX);
        }
        if self.by_key.len() >= KEYS_MAX {
            return Err(LockError::TooMany { max: KEYS_MAX });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(number: usize) -> Name {
        Name::new(&format!("key-{number}")).unwrap()
    }

    #[test]
    fn beyond_the_bound_keys_are_refused_until_some_expire() {
        let (clock, hand) = Clock::manual();
        let locks = Memory::new(clock);
        let owner = Owner::random();
        for number in 0..KEYS_MAX {
            let ttl = if number % 2 == 0 { SECOND } else { 3 * SECOND };
            locks.claim(&name(number), &owner, ttl).unwrap();
        }
        let full = locks.claim(&name(KEYS_MAX), &owner, SECOND);
        assert_eq!(full, Err(LockError::TooMany { max: KEYS_MAX }));
        // What is held already needs no room.
        locks.claim(&name(0), &owner, SECOND).unwrap();
        hand.advance(SECOND);
        locks.claim(&name(KEYS_MAX), &owner, SECOND).unwrap();
        assert_eq!(locks.lock().by_key.len(), KEYS_MAX / 2 + 1);
        let token = locks.claim(&name(1), &owner, SECOND).unwrap();
        assert!(locks.extend(&name(1), (&owner, token), SECOND));
        assert!(!locks.extend(&name(1), (&owner, token + 1), SECOND));
        assert!(!locks.extend(&name(2), (&owner, token), SECOND));
    }

    #[test]
    fn expired_keys_do_not_pile_up() {
        let (clock, hand) = Clock::manual();
        let locks = Memory::new(clock);
        for number in 0..5_000 {
            locks
                .claim(&name(number), &Owner::random(), SECOND)
                .unwrap();
            hand.advance(SECOND / 10);
            assert!(locks.lock().by_key.len() <= SWEEP_MIN);
        }
    }

    #[test]
    fn tokens_increase_though_the_time_of_day_stands_still() {
        let (clock, _hand) = Clock::manual();
        let locks = Memory::new(clock);
        let mut last = 0;
        for _ in 0..100 {
            let owner = Owner::random();
            let token = locks.claim(&name(1), &owner, SECOND).unwrap();
            assert!(token > last);
            let leaving = Leaving {
                name: name(1),
                owner,
                doubtful: false,
                until: Moment::default(),
            };
            assert!(locks.release(&leaving, Some(token)));
            last = token;
        }
    }
}
