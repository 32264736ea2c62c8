//! How everything is, in the words and figures that an operator wants.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// How something is, the better the smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// All is well.
    #[default]
    Healthy,
    /// It serves, but not as it should: slower, or from memory only.
    Degraded,
    /// It does not serve.
    Unhealthy,
}

/// How a service and its parts are, for `/health/detailed`. It names versions and errors: show it to nobody
/// but the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HealthDetails {
    /// The worst of the parts; healthy if there are none.
    pub status: HealthStatus,
    /// What this instance is called.
    pub instance: String,
    /// The service's own version, where it was told.
    pub version: Option<String>,
    /// This crate's version.
    pub keep_version: &'static str,
    /// For how long it has run.
    #[serde(rename = "uptime_ms", serialize_with = "millis")]
    pub uptime: Duration,
    /// The parts, by name.
    pub components: BTreeMap<&'static str, ComponentDetails>,
}

/// How one part is, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentDetails {
    /// How it is.
    pub status: HealthStatus,
    /// Why.
    pub detail: String,
    /// How long ago it was told or checked the last time.
    #[serde(rename = "checked_ms_ago", serialize_with = "millis")]
    pub checked_ago: Duration,
    /// How long the last check took; nothing for parts that are not checked but tell.
    #[serde(rename = "took_ms", serialize_with = "millis_if_any")]
    pub took: Option<Duration>,
    /// For how long it has been in this status.
    #[serde(rename = "since_ms", serialize_with = "millis")]
    pub since: Duration,
    /// How often in a row its check has failed by now.
    pub failures: u32,
}

fn millis<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn millis_if_any<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.serialize_f64(time.as_secs_f64() * 1e3),
        None => serializer.serialize_none(),
    }
}
