//! The slow requests that were seen last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

/// A request whose answer's head took longer than the configured threshold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlowRequest {
    /// When the head was there, in milliseconds since 1970.
    #[serde(rename = "at_ms", serialize_with = "unix_millis")]
    pub at: SystemTime,
    /// The path template, `unmatched` or `other`.
    pub route: Arc<str>,
    /// The method, or `_OTHER`.
    pub method: &'static str,
    /// The answer's status code; 499 where the client left before there was one.
    pub status: u16,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// The trace it belongs to (W3C Trace Context), 32 hexadecimal digits, if the request said so.
    pub trace_id: Option<Arc<str>>,
}

/// The last so many of them. Only slow requests come here, so a lock does nobody harm.
#[derive(Debug)]
pub(crate) struct SlowRequests {
    seen: Mutex<VecDeque<SlowRequest>>,
    kept: usize,
}

impl SlowRequests {
    /// None yet, and never more than `kept`.
    pub(crate) const fn new(kept: usize) -> Self {
        Self {
            seen: Mutex::new(VecDeque::new()),
            kept,
        }
    }

    /// Puts `request` in the place of the oldest.
    #[cold]
    pub(crate) fn add(&self, request: SlowRequest) {
        let mut seen = self.lock();
        seen.push_front(request);
        seen.truncate(self.kept);
    }

    /// The newest first.
    pub(crate) fn all(&self) -> Vec<SlowRequest> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SlowRequest>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_millis<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis() as u64);
    serializer.serialize_u64(millis)
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}
