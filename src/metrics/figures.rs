//! How figures are taken from what counts them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::metrics::histogram::HistogramSnapshot;

/// A histogram and what one usually asks it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many durations were counted.
    pub count: u64,
    /// The median; like its siblings within 5 %, and nothing where nothing was counted.
    #[serde(rename = "p50_ms", serialize_with = "fractional_millis")]
    pub p50: Option<Duration>,
    /// What 95 % did not exceed.
    #[serde(rename = "p95_ms", serialize_with = "fractional_millis")]
    pub p95: Option<Duration>,
    /// What 99 % did not exceed.
    #[serde(rename = "p99_ms", serialize_with = "fractional_millis")]
    pub p99: Option<Duration>,
    /// All of it, for other questions.
    #[serde(skip)]
    pub histogram: HistogramSnapshot,
}

impl Quantiles {
    pub(crate) fn of(histogram: HistogramSnapshot) -> Self {
        Self {
            count: histogram.count(),
            p50: histogram.quantile(0.50),
            p95: histogram.quantile(0.95),
            p99: histogram.quantile(0.99),
            histogram,
        }
    }
}

/// A count as it is now.
pub(crate) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Milliseconds with their fraction, because much of what is measured takes less than one.
fn fractional_millis<S: Serializer>(
    time: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_f64(time.as_secs_f64() * 1_000.0),
        None => serializer.serialize_none(),
    }
}
