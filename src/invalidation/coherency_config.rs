//! What can be set about the check that instances agree.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// How often it is checked that what was invalidated is gone everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CoherencyConfig {
    /// Whether invalidations are sampled. Without, there is nothing to ask for on demand either.
    pub enabled: bool,
    /// One invalidation in so much time is followed, at most: 100 ms to 1 h; 10 s by default. Each is
    /// asked about five times within a minute, of every instance.
    #[serde(rename = "sample_every_ms", with = "crate::config_time::millis")]
    pub sample_every: Duration,
    /// For how long the instances' answers are waited for: 10 ms to 30 s; 1 s by default. Whoever takes
    /// longer is counted as silent, which is no violation.
    #[serde(rename = "answer_within_ms", with = "crate::config_time::millis")]
    pub answer_within: Duration,
}

impl Default for CoherencyConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sample_every: Duration::from_secs(10),
            answer_within: Duration::from_secs(1),
        }
    }
}

impl CoherencyConfig {
    /// Notes everything that is out of range.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let millis = Duration::from_millis;
        faults.within_time(
            format!("{room}.sample_every_ms"),
            self.sample_every,
            millis(100)..=millis(3_600_000),
        );
        faults.within_time(
            format!("{room}.answer_within_ms"),
            self.answer_within,
            millis(10)..=millis(30_000),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let config: CoherencyConfig =
            toml::from_str("sample_every_ms = 99\nanswer_within_ms = 30001").unwrap();
        let mut faults = Faults::new();
        config.check("invalidation.coherency", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|fault| &*fault.field).collect();
        let expected = [
            "invalidation.coherency.sample_every_ms",
            "invalidation.coherency.answer_within_ms",
        ];
        assert_eq!(fields, expected);
        let mut faults = Faults::new();
        CoherencyConfig::default().check("invalidation.coherency", &mut faults);
        assert!(faults.is_empty());
    }
}
