//! Values that are there, without computing: one, many, and putting one there.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Marker, Pending, Receipt, Record, Stamp, Subject, Temperature};
use crate::tiers::computed::Computed;
use crate::tiers::fault::KEY_BYTES_MAX;
use crate::tiers::held::Cached;
use crate::tiers::key::{EntryKey, with_text};
use crate::tiers::looking::{Found, Look, Quest};
use crate::tiers::options::EntryOptions;
use crate::tiers::storing::{Begun, Sharing};
use crate::tiers::typed::{Inner, TypedCache};

impl<T: Send + Sync + 'static> TypedCache<T> {
    /// A fresh value from memory, Redis or the cold store; nothing is computed, and nobody waits for those who
    /// compute. Dropping the future does no harm.
    pub fn get<K: EntryKey>(
        &self,
        key: K,
    ) -> impl Future<Output = Option<Cached<T>>> + Send + use<T, K> {
        let inner = Arc::clone(&self.inner);
        let text: Arc<str> = with_text(&key, |text| text.into());
        async move {
            if let Some(value) = inner.in_memory(&text).await {
                return Some(value);
            }
            let terms = inner.terms(&EntryOptions::new());
            let quest = inner.quest(text, terms);
            let found = inner.find_warm(&quest).await;
            if let Ok((Found::Fresh(value), _)) = found {
                inner.found(Temperature::Warm, &value);
                return Some(value);
            }
            match inner.find_cold(&quest).await {
                Found::Fresh(value) => {
                    inner.found(Temperature::Cold, &value);
                    Some(value)
                }
                Found::Stale { .. } | Found::Unreadable | Found::Nothing => None,
            }
        }
    }

    /// The same for many keys, in their order: what is not in memory is asked for with one question (of 128
    /// keys; more of them in turn), and what Redis has not with one to the cold store.
    pub fn get_many<I>(
        &self,
        keys: I,
    ) -> impl Future<Output = Vec<Option<Cached<T>>>> + Send + use<T, I>
    where
        I: IntoIterator<Item: EntryKey>,
    {
        let texts = keys
            .into_iter()
            .map(|key| with_text(&key, |text| text.into()));
        let texts: Vec<Arc<str>> = texts.collect();
        let inner = Arc::clone(&self.inner);
        many(inner, texts)
    }

    /// Puts a value there, for whoever has just written it elsewhere: what was there before is purged, in all
    /// instances, and this takes its place. The result is as that of [`purge`](Self::purge).
    ///
    /// Of two who do so at one time it is not certain whose value stays, and a value that was read *before*
    /// somebody else changed it would be stored as if it was newer. Where that may be, purge, and have
    /// [`get_or_compute`](Self::get_or_compute) compute.
    ///
    /// # Errors
    ///
    /// [`Pending`] where it could not be confirmed in time that all instances know: what was there is purged, and
    /// nothing takes its place.
    ///
    /// A key that is longer than [`KEY_BYTES_MAX`] is purged, and nothing is put there.
    ///
    /// # Cancellation
    ///
    /// What was there may be purged, and nothing put in its place.
    pub fn set<K: EntryKey, V: Into<Computed<T>>>(
        &self,
        key: K,
        value: V,
        options: &EntryOptions,
    ) -> impl Future<Output = Result<Receipt, Pending>> + Send + use<T, K, V> {
        let inner = Arc::clone(&self.inner);
        let text: Arc<str> = with_text(&key, |text| text.into());
        let quest = inner.quest(text, inner.terms(options));
        put(inner, quest, value.into())
    }
}

/// Purges what was there, and puts this in its place.
async fn put<T: Send + Sync + 'static>(
    inner: Arc<Inner<T>>,
    quest: Quest,
    value: Computed<T>,
) -> Result<Receipt, Pending> {
    let mut record = Record::of([Marker::key(&inner.journal_key(&quest.text))]);
    if let Some(tenant) = &inner.tenant {
        record = record.of_tenant(tenant);
    }
    if quest.text.len() > KEY_BYTES_MAX {
        return inner.journal.append(record).await;
    }
    // Not the position of now, when others may have changed it again.
    let receipt = inner.journal.append(record).await?;
    let begun = Begun {
        born: Stamp::stored(receipt.0.inc, receipt.0.seq),
        at: inner.clock.now(),
    };
    let shares = quest.terms.warm > Duration::ZERO;
    let arrived = inner.arrived(&quest, value, (begun, Duration::ZERO), shares);
    if let Some(entry) = arrived.entry {
        let sharing = Sharing {
            shares,
            confirmed: true,
            ..Sharing::default()
        };
        inner.write(&quest, entry, sharing).await;
    }
    Ok(receipt)
}

async fn many<T: Send + Sync + 'static>(
    inner: Arc<Inner<T>>,
    texts: Vec<Arc<str>>,
) -> Vec<Option<Cached<T>>> {
    let terms = inner.terms(&EntryOptions::new());
    let mut values: Vec<Option<Cached<T>>> = Vec::with_capacity(texts.len());
    let mut missing: Vec<(usize, Quest)> = Vec::new();
    let mut asked_the_journal = false;
    for (at, text) in texts.into_iter().enumerate() {
        let mut look = inner.look(&text);
        if matches!(look, Look::Unverified) && !asked_the_journal {
            // What it says is said of all of them.
            asked_the_journal = true;
            inner.reverified().await;
            look = inner.look(&text);
        }
        let value = fresh(look);
        if value.is_none() {
            missing.push((at, inner.quest(text, terms.clone())));
        }
        values.push(value);
    }
    inner.fetch_warm(&mut missing, &mut values).await;
    inner.fetch_cold(&mut missing, &mut values).await;
    values
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// A fresh value from memory; waits a moment where it is not known yet whether it holds.
    async fn in_memory(&self, text: &str) -> Option<Cached<T>> {
        let look = self.look(text);
        if matches!(look, Look::Unverified) {
            self.reverified().await;
            return fresh(self.look(text));
        }
        fresh(look)
    }

    /// Takes what Redis has of what is missing.
    async fn fetch_warm(
        &self,
        missing: &mut Vec<(usize, Quest)>,
        values: &mut [Option<Cached<T>>],
    ) {
        let Some(warm) = self.tiers.warm().filter(|_| !missing.is_empty()) else {
            return;
        };
        let keys: Vec<Arc<str>> = places(missing);
        let Ok(found) = warm.read_many(&keys, self.tenant.as_deref()).await else {
            return;
        };
        let now = self.tiers.now();
        let mut found = found.into_iter();
        missing.retain(|(at, quest)| {
            let Some(read) = found.next() else {
                return true;
            };
            let Some(bytes) = &read.bytes else {
                return true;
            };
            let judge = |stamp, subject: &Subject| read.verdict(stamp, subject);
            match self.open(quest, (bytes, Temperature::Warm), judge, now) {
                Found::Fresh(value) => {
                    self.found(Temperature::Warm, &value);
                    values[*at] = Some(value);
                }
                Found::Stale { .. } | Found::Unreadable | Found::Nothing => return true,
            }
            false
        });
    }

    /// Takes what the cold store has of what is still missing.
    async fn fetch_cold(
        &self,
        missing: &mut Vec<(usize, Quest)>,
        values: &mut [Option<Cached<T>>],
    ) {
        let Some(cold) = self.tiers.cold().filter(|_| !missing.is_empty()) else {
            return;
        };
        let now_ms = self.tiers.now().wall_ms;
        let stored = cold.read_many(&places(missing), now_ms).await;
        for ((at, quest), bytes) in std::mem::take(missing).into_iter().zip(stored) {
            let Some(bytes) = bytes else {
                continue;
            };
            if let Found::Fresh(value) = self.judge_here(&quest, &bytes) {
                self.found(Temperature::Cold, &value);
                values[at] = Some(value);
            }
        }
    }
}

fn fresh<T>(look: Look<T>) -> Option<Cached<T>> {
    match look {
        Look::Fresh(value) | Look::Early(value) => Some(value),
        _ => None,
    }
}

fn places(missing: &[(usize, Quest)]) -> Vec<Arc<str>> {
    let place = |(_, quest): &(usize, Quest)| Arc::clone(&quest.place);
    missing.iter().map(place).collect()
}
