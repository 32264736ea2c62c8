//! The settings of remote quotas.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// Settings of a [`RemoteQuota`](crate::outbound::RemoteQuota).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuotaConfig {
    /// Whether remote quotas are honoured at all; without it, requests are sent untouched.
    pub enabled: bool,
    /// How long a request may wait for its remote's quota, up to 10 min. With 0, and where it is known
    /// that it would take longer, the request is refused at once.
    #[serde(rename = "wait_max_ms", with = "crate::config_time::millis")]
    pub wait_max: Duration,
    /// How many requests may wait at a time, for all remotes together: up to 100,000. Beyond, they are
    /// refused at once.
    pub waiting_max: usize,
    /// For how long a remote is believed, 1 s to 31 days, whatever it says: one that tells us to come
    /// back in a year by mistake or by malice is tried again after this time.
    #[serde(rename = "block_max_ms", with = "crate::config_time::millis")]
    pub block_max: Duration,
    /// How many remotes are kept in mind: 1 to 65,536, about 1 KiB each at most. Beyond, those are
    /// forgotten that nobody is calling and of which the least is known.
    pub remotes_max: usize,
}

impl Default for QuotaConfig {
    /// Up to 1024 requests wait, each at most 5 s; no remote is believed for longer than an hour.
    fn default() -> Self {
        Self {
            enabled: true,
            wait_max: Duration::from_secs(5),
            waiting_max: 1024,
            block_max: Duration::from_secs(3600),
            remotes_max: 1024,
        }
    }
}

impl QuotaConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within_time(format!("{room}.wait_max_ms"), self.wait_max, WAIT);
        let field = format!("{room}.waiting_max");
        faults.within(field, self.waiting_max, 0..=100_000, "requests");
        faults.within_time(format!("{room}.block_max_ms"), self.block_max, BLOCK);
        let field = format!("{room}.remotes_max");
        faults.within(field, self.remotes_max, 1..=65_536, "remotes");
    }
}

/// Nobody's caller is still there after longer.
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);

/// From less than what a remote can say, to the longest window anybody has.
const BLOCK: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(31 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_without_fault_and_survive_serde() {
        let config = QuotaConfig::default();
        let mut faults = Faults::new();
        config.check("outbound", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""wait_max_ms":5000"#), "{text}");
        assert_eq!(serde_json::from_str::<QuotaConfig>(&text).unwrap(), config);
        assert_eq!(serde_json::from_str::<QuotaConfig>("{}").unwrap(), config);
        assert!(serde_json::from_str::<QuotaConfig>(r#"{"wait_max": 1}"#).is_err());
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let config = QuotaConfig {
            enabled: true,
            wait_max: Duration::from_secs(601),
            waiting_max: 100_001,
            block_max: Duration::from_millis(999),
            remotes_max: 0,
        };
        let mut faults = Faults::new();
        config.check("outbound", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "outbound.wait_max_ms",
                "outbound.waiting_max",
                "outbound.block_max_ms",
                "outbound.remotes_max",
            ]
        );
    }
}
