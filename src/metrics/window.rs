//! The figures of the last minute, five minutes and hour.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::metrics::figures::Quantiles;
use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::sheet::Sheet;
use crate::metrics::snapshot::Snapshot;

/// How far back figures go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// One minute, in steps of ten seconds.
    Minute,
    /// Five minutes, in steps of a minute.
    FiveMinutes,
    /// An hour, in steps of five minutes.
    Hour,
}

/// What happened within a [`Window`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WindowFigures {
    /// Which window it is.
    pub window: Window,
    /// How much time the figures cover: less than the window soon after the start, else up to one step more.
    #[serde(rename = "covers_s", serialize_with = "seconds")]
    pub covers: Duration,
    /// Time to the answer's head, of all routes together.
    pub latency: Quantiles,
    /// What was counted within. What is in flight is as it is now.
    #[serde(flatten)]
    pub figures: Snapshot,
}

impl Window {
    /// All of them, shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::FiveMinutes, Self::Hour];

    /// Its length.
    #[must_use]
    pub const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Minute => 60,
            Self::FiveMinutes => 300,
            Self::Hour => 3600,
        })
    }

    /// The place of its frames' length among all: ten seconds, a minute, five minutes.
    pub(crate) const fn level(self) -> usize {
        match self {
            Self::Minute => 0,
            Self::FiveMinutes => 1,
            Self::Hour => 2,
        }
    }

    /// `1m`, `5m`, `1h`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "1m",
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
        }
    }

    /// The window of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|window| window.name() == name)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl WindowFigures {
    pub(crate) fn of(window: Window, covers: Duration, sheet: &Sheet) -> Self {
        let mut latency = HistogramSnapshot::empty();
        for row in sheet.routes.values() {
            latency.merge(&row.latency);
        }
        Self {
            window,
            covers,
            latency: Quantiles::of(latency),
            figures: Snapshot::of(sheet),
        }
    }

    /// A count of these figures by the time that they cover.
    #[must_use]
    pub fn per_second(&self, count: u64) -> f64 {
        let seconds = self.covers.as_secs_f64();
        if seconds > 0.0 {
            count as f64 / seconds
        } else {
            0.0
        }
    }

    /// The share of answers that are 5xx; nothing where nothing was answered. Cancelled requests are no
    /// answers.
    #[must_use]
    pub fn error_ratio(&self) -> Option<f64> {
        let http = &self.figures.http;
        let answered = http.requests.saturating_sub(http.cancelled);
        ratio(http.status.server_error, answered)
    }

    /// The share of requests to the cache of answers that it served from memory, shared ones and stale ones
    /// included; nothing where nobody asked. Requests that may not be served from a cache at all, or not before the
    /// service was asked (`no-cache`, `max-age=0`), are not counted.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let (served, missed) = (self.figures.cache.served(), self.figures.cache.missed());
        ratio(served, served + missed)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}
