//! Who presses hardest against the limits: a short list that never grows.
//!
//! Kept by the *space-saving* algorithm (Metwally, Agrawal, El Abbadi 2005): whoever is new when the list is
//! full takes the place of the one counted least, and its count along. A count is therefore at most that
//! much too high. Counts are halved every minute.
//!
//! While the list is full, only one in sixteen of those who are not on it is let on: a flood of clients that
//! come once each would else pay for a change of the list at every refusal. Who presses often is on it soon.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How many are kept apart.
const ENTRIES_MAX: usize = 64;

/// Of so many new ones one is let onto a full list. A power of two.
const LET_ON_EVERY: u32 = 16;

/// How often counts are halved, in ticks.
const HALVE_EVERY: u64 = 60_000_000;

/// Somebody near or over a limit; see [`RateLimiter::top`](crate::rate_limit::RateLimiter::top).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopEntry {
    /// The rule.
    pub rule: Arc<str>,
    /// Whom it counts against: `ip:203.0.113.7`, `caller:alice`, `tenant:acme`, ..
    pub who: Arc<str>,
    /// How many of the last minutes' requests were refused.
    pub refused: u64,
    /// How many of them were let through when less than a fifth of the quota was left. Whoever took the place of
    /// another on the full list begins with that one's count.
    pub near: u64,
    /// How long ago the last of them was.
    pub seen: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct TopList {
    list: Mutex<List>,
}

#[derive(Debug)]
struct List {
    /// Half of the key of each entry, in the same order: searched at every refusal, and so next to each other
    /// and short enough to be compared four at a time.
    prints: [u32; ENTRIES_MAX],
    entries: Vec<Entry>,
    halved_at: u64,
    /// How many found the list full.
    turned_away: u32,
}

#[derive(Debug)]
struct Entry {
    key: u64,
    rule: Arc<str>,
    who: Arc<str>,
    refused: u64,
    near: u64,
    seen_at: u64,
}

impl Default for List {
    fn default() -> Self {
        Self {
            prints: [0; ENTRIES_MAX],
            entries: Vec::new(),
            halved_at: 0,
            turned_away: 0,
        }
    }
}

impl Entry {
    const fn count(&self) -> u64 {
        self.refused + self.near
    }
}

impl TopList {
    /// Notes that the bucket `key` of a rule was pressed. `who` is asked only for a new entry. Where another
    /// thread is at the list, this one goes on without having noted anything.
    pub(crate) fn note(
        &self,
        key: u64,
        refused: bool,
        now: u64,
        who: impl FnOnce() -> (Arc<str>, Arc<str>),
    ) {
        let Ok(mut list) = self.list.try_lock() else {
            return;
        };
        list.halve_if_due(now);
        if list.count(key, refused, now) || !list.lets_on() {
            return;
        }
        // An application's closure may be asked who it is, and must not be run under the lock.
        drop(list);
        let (rule, who) = who();
        if let Ok(mut list) = self.list.try_lock() {
            list.enter(key, rule, who);
            list.count(key, refused, now);
        }
    }

    /// The first `count` of them, those refused most often first.
    pub(crate) fn first(&self, count: usize, now: u64) -> Vec<TopEntry> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.halve_if_due(now);
        let mut order: Vec<&Entry> = list.entries.iter().collect();
        order.sort_by_key(|entry| std::cmp::Reverse((entry.refused, entry.near)));
        let told = |entry: &Entry| TopEntry {
            rule: Arc::clone(&entry.rule),
            who: Arc::clone(&entry.who),
            refused: entry.refused,
            near: entry.near,
            seen: Duration::from_micros(now.saturating_sub(entry.seen_at)),
        };
        order.into_iter().take(count).map(told).collect()
    }
}

impl List {
    /// Counts for somebody who is on the list. Says whether that was so.
    fn count(&mut self, key: u64, refused: bool, now: u64) -> bool {
        let Some(entry) = self.place(key).and_then(|at| self.entries.get_mut(at)) else {
            return false;
        };
        entry.seen_at = now;
        if refused {
            entry.refused += 1;
        } else {
            entry.near += 1;
        }
        true
    }

    /// Where an entry is.
    fn place(&self, key: u64) -> Option<usize> {
        let is_it = |(at, found): (usize, &u32)| {
            *found == print(key) && self.entries.get(at).is_some_and(|entry| entry.key == key)
        };
        // Most are not on the list. That is found out without a branch at each place.
        let mut found = 0;
        for known in &self.prints {
            found |= u32::from(*known == print(key));
        }
        if found == 0 {
            return None;
        }
        (self.prints.iter().enumerate()).position(is_it)
    }

    /// Whether somebody new is let on.
    fn lets_on(&mut self) -> bool {
        if self.entries.len() < ENTRIES_MAX {
            return true;
        }
        self.turned_away = self.turned_away.wrapping_add(1);
        self.turned_away.is_multiple_of(LET_ON_EVERY)
    }

    /// Makes room for a new entry, unless it came meanwhile.
    fn enter(&mut self, key: u64, rule: Arc<str>, who: Arc<str>) {
        if self.place(key).is_some() {
            return;
        }
        let entry = |near| Entry {
            key,
            rule,
            who,
            refused: 0,
            near,
            seen_at: 0,
        };
        let mut at = self.entries.len();
        if at < ENTRIES_MAX {
            self.entries.push(entry(0));
        } else {
            let all = self.entries.iter_mut().enumerate();
            let Some((least, place)) = all.min_by_key(|(_, entry)| entry.count()) else {
                return;
            };
            *place = entry(place.count());
            at = least;
        }
        if let Some(place) = self.prints.get_mut(at) {
            *place = print(key);
        }
    }

    fn halve_if_due(&mut self, now: u64) {
        let rounds = now.saturating_sub(self.halved_at) / HALVE_EVERY;
        if rounds == 0 {
            return;
        }
        self.halved_at = now;
        let by = u32::try_from(rounds).unwrap_or(u32::MAX).min(63);
        for entry in &mut self.entries {
            entry.refused >>= by;
            entry.near >>= by;
        }
        self.entries.retain(|entry| entry.count() > 0);
        self.prints = [0; ENTRIES_MAX];
        for (place, entry) in self.prints.iter_mut().zip(&self.entries) {
            *place = print(entry.key);
        }
    }
}

const fn print(key: u64) -> u32 {
    key as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(top: &TopList, key: u64, refused: bool, now: u64) {
        top.note(key, refused, now, || {
            ("r".into(), format!("caller:{key}").into())
        });
    }

    #[test]
    fn those_who_press_most_come_first_whoever_else_comes_by() {
        let top = TopList::default();
        for round in 0..10_000 {
            note(&top, 1, true, 0);
            if round % 2 == 0 {
                note(&top, 2, true, 0);
            }
            note(&top, 3, false, 0);
            // A new one each time.
            note(&top, 1000 + round, true, 0);
        }
        let first = top.first(2, 5_000_000);
        let who: Vec<&str> = first.iter().map(|entry| &*entry.who).collect();
        assert_eq!(who, ["caller:1", "caller:2"]);
        assert_eq!((first[0].refused, first[1].refused), (10_000, 5000));
        assert_eq!(first[0].seen, Duration::from_secs(5));
        let all = top.first(1000, 0);
        let near = all.iter().find(|entry| &*entry.who == "caller:3").unwrap();
        assert_eq!((near.refused, near.near), (0, 10_000));
        assert_eq!(top.first(1000, 0).len(), ENTRIES_MAX);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let top = TopList::default();
        for _ in 0..8 {
            note(&top, 1, true, 0);
        }
        assert_eq!(top.first(9, HALVE_EVERY)[0].refused, 4);
        assert_eq!(top.first(9, 3 * HALVE_EVERY)[0].refused, 1);
        assert_eq!(top.first(9, 4 * HALVE_EVERY), []);
    }
}
