//! Who has carried out what: asked by whoever appends, answered by everybody else.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Moment};
use crate::journal::line::{Appended, Line};
use crate::journal::message::confirmation;
use crate::journal::shard::Shard;

/// How far the other instances are, as they say themselves.
#[derive(Debug, Default)]
pub(crate) struct Confirmations {
    heard: Mutex<HashMap<u64, (u64, u64)>>,
    news: Notify,
}

/// Instances come and go; of so many the last word is remembered.
const INSTANCES_MAX: usize = 1_024;

impl Confirmations {
    /// An instance says how far it is.
    pub(crate) fn hear(&self, instance: u64, inc: u64, seq: u64) {
        let mut heard = lock(&self.heard);
        if heard.len() >= INSTANCES_MAX && !heard.contains_key(&instance) {
            // Whoever is forgotten only has to say it once more, or its lease runs out.
            heard.clear();
        }
        heard.insert(instance, (inc, seq));
        drop(heard);
        self.news.notify_waiters();
    }

    /// Waits until every instance that has a lease has carried out the record, or has none any more.
    pub(crate) async fn all(&self, me: u64, appended: &Appended, answered: Moment, clock: &Clock) {
        loop {
            let mut news = pin!(self.news.notified());
            // From here on nothing is missed.
            news.as_mut().enable();
            let passed = clock.now().since(answered);
            let left = self.longest_lease(me, appended).saturating_sub(passed);
            if left.is_zero() {
                return;
            }
            // A news or the end of the lease, whatever comes first.
            let _ = tokio::time::timeout(left, news).await;
        }
    }

    /// The longest lease, when it was counted, of an instance that has not confirmed the record.
    fn longest_lease(&self, me: u64, appended: &Appended) -> Duration {
        let heard = lock(&self.heard);
        let confirmed = |instance: &u64| {
            *instance == me
                || heard
                    .get(instance)
                    .is_some_and(|(inc, seq)| *inc == appended.inc && *seq >= appended.seq)
        };
        let open = appended
            .leases
            .iter()
            .filter(|(instance, _)| !confirmed(instance));
        let longest = open.map(|(_, left)| *left).max().unwrap_or_default();
        longest.max(appended.unknown_leases)
    }
}

/// Whom this instance owes a word.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    to: Mutex<HashMap<u64, (u64, u64)>>,
    news: Notify,
}

impl Owed {
    /// An instance waits to hear that this one has carried out the record `seq` of `inc`.
    pub(crate) fn note(&self, writer: u64, inc: u64, seq: u64) {
        let mut to = lock(&self.to);
        if to.len() < INSTANCES_MAX {
            to.insert(writer, (inc, seq));
        }
        drop(to);
        self.news.notify_one();
    }

    /// What was missing before may be there now.
    pub(crate) fn look_again(&self) {
        self.news.notify_one();
    }

    /// Tells whoever waits, for ever.
    pub(crate) async fn pay(&self, line: &Line, shard: &Shard) {
        loop {
            self.news.notified().await;
            for (writer, message) in self.due(line.me, shard) {
                // If that is lost, the other waits until our lease ends.
                let _ = line.say(&line.channel_of(writer), message).await;
            }
        }
    }

    /// What can be said now. What is behind a gap has to wait, and of another incarnation nothing is said.
    fn due(&self, me: u64, shard: &Shard) -> Vec<(u64, Vec<u8>)> {
        let at = shard.position();
        let mut due = Vec::new();
        lock(&self.to).retain(|writer, (inc, seq)| {
            if *inc == at.inc && *seq <= at.seq {
                due.push((*writer, confirmation(me, at.inc, at.seq)));
                return false;
            }
            // One that is newer than what we follow is learnt in a moment.
            true
        });
        due
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
