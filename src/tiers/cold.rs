//! The port to what outlives both this process and Redis: frames of bytes under keys, each with an end.
//!
//! A cold store is asked only after the hot and the warm tier had nothing, and is written behind the
//! requests' backs. It may be slow, it may be away, it may lose what it was given: then something is computed
//! once more. What it must never do is to mix up keys or to return half a frame.
//!
//! It knows nothing of what the frames mean. Whether one may still be served is judged by whoever reads it,
//! from the stamp inside; so it does no harm if a writer comes late, or if two of them overwrite each other
//! in the wrong order: the reader finds an old stamp, and has a miss.

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// What a [`ColdStore`] answers with, in time.
pub type ColdFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, ColdError>> + Send + 'a>>;

/// A place that keeps frames of bytes while neither this process nor Redis does.
///
/// # Contract
///
/// - **Keys** are compared byte by byte. One that is not [storable](is_storable) is in no store: it is never
///   found, and storing or removing it does nothing. That is no error, so that one strange key among a hundred
///   does not spoil the call for the others.
/// - **Atomicity**: `store` and `remove` change all of their keys or none. A frame is read whole, as one
///   writer left it. There is no order between calls that overlap: the last to be carried out stays, whichever
///   frame is newer. Two entries of one key in the same call: the later one stays.
/// - **Time** comes from the caller, in milliseconds since the Unix epoch. An entry has run out at its
///   `until_ms`, and is not there from then on, whether it was swept or not.
/// - **Size**: a call has at most [`BATCH_MAX`] keys or entries and [`BATCH_BYTES_MAX`] of bytes. A store
///   may refuse more with an error, and may leave out at any time what it has no room for.
/// - **Cancellation**: a future that is dropped has done its work wholly or not at all, and no transaction stays
///   open behind it. A connection that it had comes back when the database has ended the statement. Callers bound
///   their waiting that way. The futures do nothing before they are polled.
/// - **Failure**: an error says that nothing is known to have been done. Calls may be repeated: twice is as
///   once.
pub trait ColdStore: fmt::Debug + Send + Sync + 'static {
    /// The bytes stored under each key, in the keys' order; what has run out at `now_ms` is not there.
    fn load<'a>(&'a self, keys: &'a [Arc<str>], now_ms: u64) -> ColdFuture<'a, Vec<Option<Bytes>>>;

    /// Stores all of them in one transaction, in place of what was there.
    fn store<'a>(&'a self, entries: &'a [ColdEntry]) -> ColdFuture<'a, ()>;

    /// Removes what is stored under these keys, if anything is.
    fn remove<'a>(&'a self, keys: &'a [Arc<str>]) -> ColdFuture<'a, ()>;

    /// Deletes up to `most` entries that have run out at `now_ms`, and returns how many it deleted.
    ///
    /// As many as `most` mean that there may be more. Entries that another caller is about to change may be
    /// passed over until the next time.
    fn sweep<'a>(&'a self, now_ms: u64, most: u32) -> ColdFuture<'a, u64>;
}

/// One frame under its key.
#[derive(Clone, PartialEq, Eq)]
pub struct ColdEntry {
    /// The whole key; see [`is_storable`].
    pub key: Arc<str>,
    /// The frame, of which the store knows nothing.
    pub bytes: Bytes,
    /// When it runs out, in milliseconds since the Unix epoch. Ends beyond 2^63 - 1 count as that.
    pub until_ms: u64,
}

/// Without the frame, which may be long and is nobody's business.
impl fmt::Debug for ColdEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColdEntry")
            .field("key", &self.key)
            .field("bytes", &self.bytes.len())
            .field("until_ms", &self.until_ms)
            .finish()
    }
}

/// Why a cold store has not done what it was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the cold store failed: {source}")]
pub struct ColdError {
    source: Box<dyn Error + Send + Sync>,
}

impl ColdError {
    /// An error with its reason: an error of a driver, or just a sentence.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}

/// The longest key that a store takes, in bytes. PostgreSQL's index takes no more than 2,704 a row; who has
/// longer keys stores under a hash of them.
pub const COLD_KEY_BYTES_MAX: usize = 2_048;

/// The most keys or entries of one call.
pub const BATCH_MAX: usize = 1_000;

/// The most bytes of one call's entries together: 64 MiB. Databases speak of limits near 1 GB, but a small
/// host has none to spare for a message that holds it all once more.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Whether a cold store takes this key: 1 to [`COLD_KEY_BYTES_MAX`] bytes, and no NUL among them, which text in
/// PostgreSQL cannot have.
#[must_use]
pub fn is_storable(key: &str) -> bool {
    (1..=COLD_KEY_BYTES_MAX).contains(&key.len()) && !key.as_bytes().contains(&0)
}

/// A cold store in memory, for tests and for trying things out: it outlives nothing.
///
/// When it is full, what runs out first goes first.
pub struct MemoryCold {
    capacity_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: HashMap<Arc<str>, (Bytes, u64)>,
    /// The same keys by when they run out, which is the order in which they go.
    ends: BTreeSet<(u64, Arc<str>)>,
    weight: u64,
}

impl MemoryCold {
    /// An empty one for `capacity_bytes` of keys and frames, each entry counted with [`ENTRY_WEIGHT`] more.
    /// An entry that is larger than that alone is not kept.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            kept: Mutex::default(),
        }
    }

    /// How many entries it holds, also those that have run out and were not swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every change is whole before the lock is let go, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryCold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCold")
            .field("capacity_bytes", &self.capacity_bytes)
            .field("len", &self.len())
            .finish()
    }
}

impl ColdStore for MemoryCold {
    fn load<'a>(&'a self, keys: &'a [Arc<str>], now_ms: u64) -> ColdFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let kept = self.lock();
            let found = keys.iter().map(|key| {
                let (bytes, until_ms) = kept.entries.get(key)?;
                (*until_ms > now_ms).then(|| bytes.clone())
            });
            Ok(found.collect())
        })
    }

    fn store<'a>(&'a self, entries: &'a [ColdEntry]) -> ColdFuture<'a, ()> {
        Box::pin(async move {
            let mut kept = self.lock();
            for entry in entries.iter().filter(|entry| is_storable(&entry.key)) {
                kept.take(&entry.key);
                // What can never fit pushes out nobody else; what it should have replaced is gone.
                if weight(&entry.key, &entry.bytes) <= self.capacity_bytes {
                    kept.put(entry);
                }
            }
            kept.make_room(self.capacity_bytes);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, keys: &'a [Arc<str>]) -> ColdFuture<'a, ()> {
        Box::pin(async move {
            let mut kept = self.lock();
            for key in keys {
                kept.take(key);
            }
            Ok(())
        })
    }

    fn sweep<'a>(&'a self, now_ms: u64, most: u32) -> ColdFuture<'a, u64> {
        Box::pin(async move {
            let mut kept = self.lock();
            let mut swept = 0;
            while swept < u64::from(most) && kept.first_end().is_some_and(|end| end <= now_ms) {
                kept.take_first();
                swept += 1;
            }
            Ok(swept)
        })
    }
}

impl Kept {
    /// Puts an entry in whose key is not there.
    fn put(&mut self, entry: &ColdEntry) {
        // Databases count in signed numbers, and so does their twin.
        let until_ms = entry.until_ms.min(i64::MAX as u64);
        self.weight += weight(&entry.key, &entry.bytes);
        self.ends.insert((until_ms, Arc::clone(&entry.key)));
        let value = (entry.bytes.clone(), until_ms);
        self.entries.insert(Arc::clone(&entry.key), value);
    }

    fn take(&mut self, key: &Arc<str>) {
        if let Some((bytes, until_ms)) = self.entries.remove(key) {
            self.weight -= weight(key, &bytes);
            self.ends.remove(&(until_ms, Arc::clone(key)));
        }
    }

    fn make_room(&mut self, capacity: u64) {
        while self.weight > capacity && self.first_end().is_some() {
            self.take_first();
        }
    }

    fn first_end(&self) -> Option<u64> {
        self.ends.first().map(|(until_ms, _)| *until_ms)
    }

    fn take_first(&mut self) {
        if let Some((_, key)) = self.ends.first() {
            let key = Arc::clone(key);
            self.take(&key);
        }
    }
}

/// What one entry of a [`MemoryCold`] is counted with beside key and frame, in bytes.
pub const ENTRY_WEIGHT: u64 = 128;

fn weight(key: &str, bytes: &Bytes) -> u64 {
    ENTRY_WEIGHT + key.len() as u64 + bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, len: usize, until_ms: u64) -> ColdEntry {
        ColdEntry {
            key: key.into(),
            bytes: Bytes::from(vec![7; len]),
            until_ms,
        }
    }

    async fn found(store: &MemoryCold, keys: &[&str]) -> Vec<bool> {
        let keys: Vec<Arc<str>> = keys.iter().map(|key| Arc::from(*key)).collect();
        let found = store.load(&keys, 0).await.unwrap();
        found.iter().map(Option::is_some).collect()
    }

    #[tokio::test]
    async fn what_runs_out_first_makes_room_in_memory() {
        let store = MemoryCold::new(3 * (ENTRY_WEIGHT + 11));
        let entries = [entry("a", 10, 30), entry("b", 10, 10), entry("c", 10, 20)];
        store.store(&entries).await.unwrap();
        assert_eq!(found(&store, &["a", "b", "c"]).await, [true, true, true]);
        store.store(&[entry("d", 10, 40)]).await.unwrap();
        assert_eq!(found(&store, &["a", "b", "c"]).await, [true, false, true]);
        store.store(&[entry("d", 11, 40)]).await.unwrap();
        assert_eq!(found(&store, &["a", "c", "d"]).await, [true, false, true]);
    }

    #[tokio::test]
    async fn what_is_too_large_for_the_memory_pushes_out_only_what_it_replaces() {
        let store = MemoryCold::new(1_000);
        store
            .store(&[entry("a", 10, 1), entry("b", 10, 2)])
            .await
            .unwrap();
        store.store(&[entry("b", 1_000, 3)]).await.unwrap();
        assert_eq!(found(&store, &["a", "b"]).await, [true, false]);
        assert_eq!(store.lock().weight, ENTRY_WEIGHT + 11);
    }

    #[test]
    fn a_key_is_storable_by_its_length_and_without_nul() {
        let longest = "k".repeat(COLD_KEY_BYTES_MAX);
        for key in ["a", "\u{1}\n\u{7f}", "ключ", &longest] {
            assert!(is_storable(key), "{key:?}");
        }
        let longer = "k".repeat(COLD_KEY_BYTES_MAX + 1);
        for key in ["", "\0", "a\0b", &longer] {
            assert!(!is_storable(key), "{key:?}");
        }
    }

    #[test]
    fn an_entry_is_shown_without_its_frame_and_an_error_with_its_reason() {
        let shown = format!("{:?}", entry("a", 3, 9));
        assert_eq!(shown, "ColdEntry { key: \"a\", bytes: 3, until_ms: 9 }");
        let error = ColdError::new("the disk is full");
        assert_eq!(error.to_string(), "the cold store failed: the disk is full");
        assert!(error.source().is_some());
    }
}
