//! What is told, and what is shown.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::alerts::severity::Severity;

/// One thing that handlers are told: a rule fires, got worse, or is over.
///
/// As JSON it is what a [`Webhook`](crate::alerts::Webhook) sends; further fields may be added:
///
/// ```json
/// {"rule": "errors", "state": "firing", "severity": "critical", "measure": "error_ratio",
///  "route": null, "value": 0.12, "threshold": 0.05, "at_ms": 1767225600000,
///  "instance": "web-1", "detail": "error_ratio is 12 %, more than 5 %: ..", "advice": ".."}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Alert {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What became of it.
    pub state: AlertTurn,
    /// How bad it is; of one that is over, how bad it was.
    pub severity: Severity,
    /// What was measured.
    pub measure: Arc<str>,
    /// The route it was measured for, if not for all.
    pub route: Option<Arc<str>>,
    /// The value, in the measure's unit.
    pub value: f64,
    /// The threshold, in the same unit.
    pub threshold: f64,
    /// When, in milliseconds since 1970.
    #[serde(rename = "at_ms", serialize_with = "unix_millis")]
    pub at: SystemTime,
    /// Which instance saw it.
    pub instance: Arc<str>,
    /// All of that in words, for a person. Of one that fires or got worse it ends in the advice, if there is any:
    /// whoever shows both shows the advice twice.
    pub detail: Arc<str>,
    /// What to do about it, for those that show it in a place of its own; may be empty. Of one that fires or got
    /// worse `detail` says it already; of one that is over it does not.
    pub advice: Arc<str>,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertTurn {
    /// It fires.
    Firing,
    /// It fires for so long that it is worse now.
    Escalated,
    /// It is over.
    Resolved,
}

/// Where a rule stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStage {
    /// All is well.
    Ok,
    /// Beyond its threshold, but not for long enough.
    Pending,
    /// Beyond its threshold for long enough.
    Firing,
    /// Firing for so long that it got worse.
    Escalated,
    /// All is well again, and its cooldown is not over.
    Resolved,
}

/// A rule and where it stands, for whoever looks.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AlertState {
    /// The rule's name.
    pub rule: Arc<str>,
    /// What it measures.
    pub measure: Arc<str>,
    /// The route it measures, if not all.
    pub route: Option<Arc<str>>,
    /// The last judgement's value; nothing where there was none, or before the first.
    pub value: Option<f64>,
    /// The threshold, in the measure's unit.
    pub threshold: f64,
    /// Where it stands.
    pub state: AlertStage,
    /// How bad it is, or would be.
    pub severity: Severity,
    /// Since when it stands there, in milliseconds since 1970; nothing where it never stood anywhere else.
    #[serde(rename = "since_ms", serialize_with = "unix_millis_option")]
    pub since: Option<SystemTime>,
    /// Whether it fires and nobody was told, because it was over a moment ago.
    pub cooling_down: bool,
    /// Whether another instance spoke, so that handlers here were not told.
    pub told_by_other: bool,
    /// All of that in words; while it is beyond its threshold, with the rule's advice at the end.
    pub detail: String,
}

impl AlertTurn {
    /// `firing`, `escalated`, `resolved`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Escalated => "escalated",
            Self::Resolved => "resolved",
        }
    }
}

fn unix_millis<S: Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(millis_of(*at))
}

fn unix_millis_option<S: Serializer>(
    at: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    at.map(millis_of).serialize(serializer)
}

/// A clock before 1970 reads as 1970.
fn millis_of(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
