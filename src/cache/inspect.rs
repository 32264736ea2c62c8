//! What is stored, for tests and for operators to look at.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::AGE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::hot::Slot;
use crate::cache::key::KeyView;
use crate::cache::status::CACHE_STATUS;
use crate::clock::Moment;
use crate::journal::Verdict;

/// One stored answer, without its content.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct StoredAnswer {
    /// Its status code.
    #[serde(serialize_with = "as_number")]
    pub status: StatusCode,
    /// Its fields as they are sent, but for `Age` and `Cache-Status`.
    #[serde(skip)]
    pub headers: HeaderMap,
    /// How old it is.
    #[serde(rename = "age_ms", with = "crate::config_time::millis")]
    pub age: Duration,
    /// How much longer it is fresh; zero if it is stale.
    #[serde(rename = "ttl_ms", with = "crate::config_time::millis")]
    pub ttl: Duration,
    /// Whether nothing that was invalidated since it was made concerns it.
    pub holds: bool,
    /// What it can be purged by beside its key and its path.
    pub tags: Vec<Arc<str>>,
    /// The request fields that it depends on, and their values, `None` for a field that was absent.
    pub vary: Vec<(String, Option<String>)>,
    /// The length of its content in bytes, uncompressed.
    pub body_bytes: usize,
    /// The first and last byte and the length of the whole, if it is a part of an answer.
    pub part: Option<(u64, u64, u64)>,
    /// What it takes up in memory, in bytes.
    pub bytes: usize,
    /// How often it was served. Counts of several threads at once may be lost.
    pub hits: u64,
}

/// What a cache holds in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// URLs that something is stored for, markers of uncacheable ones included.
    pub urls: usize,
    /// What they take up, in bytes.
    pub bytes: u64,
    /// The most that they may, in bytes.
    pub capacity_bytes: u64,
    /// Bytes of answers that are being recorded.
    pub recorded_bytes: u64,
    /// Answers that are being fetched and that others may wait for.
    pub flights: usize,
}

impl Cache {
    /// What is stored for `target`, a path and as much of its query as the settings leave in the key, of `authority` (empty if the host is no part of the
    /// key, or was none), newest first. `part` is what the layer's [`KeyPart`](crate::cache::KeyPart)
    /// makes of such requests. Looking counts as no use.
    #[must_use]
    pub fn stored(&self, part: Option<&str>, authority: &str, target: &str) -> Vec<StoredAnswer> {
        let key = self.key_of(part.map(Arc::from), authority, target);
        let now = self.clock().now();
        let slot = self.peek(&key);
        let entries = slot.iter().flat_map(Slot::entries);
        entries.map(|entry| self.described(entry, now)).collect()
    }

    /// What is stored in all.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            urls: self.len(),
            bytes: self.bytes(),
            capacity_bytes: self.capacity_bytes(),
            recorded_bytes: self.recorded_bytes(),
            flights: self.flights(),
        }
    }

    fn key_of<'a>(
        &self,
        part: Option<Arc<str>>,
        authority: &'a str,
        target: &'a str,
    ) -> KeyView<'a> {
        self.keys().view(part, authority, Cow::Borrowed(target))
    }

    fn described(&self, entry: &Entry, now: Moment) -> StoredAnswer {
        let (age, part) = (entry.age(now), entry.part);
        let vary = entry.selector.described();
        let mut headers = entry.headers.clone();
        // Their places are kept in it, and filled in when it is served.
        for name in [AGE, CACHE_STATUS] {
            headers.remove(name);
        }
        StoredAnswer {
            status: entry.status,
            headers,
            age,
            ttl: entry.terms.fresh_until().saturating_sub(age),
            holds: entry.verdict(self.journal(), now) == Verdict::Fresh,
            tags: entry.tags.tags().to_vec(),
            vary: vary
                .map(|(name, value)| (name.to_string(), value))
                .collect(),
            body_bytes: entry.content.len(),
            part: part.map(|part| (part.span.first, part.span.last, part.complete)),
            bytes: entry.bytes(),
            hits: entry.hits(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn as_number<S: serde::Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}
