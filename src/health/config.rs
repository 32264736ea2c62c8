//! The numbers of the health room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// How checks run, and who says how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How often a check runs that does not say so itself; 100 ms to 1 h. Default: 10 s. Whoever asks reads the
    /// last result, however often that is.
    #[serde(rename = "check_period_ms", with = "crate::config_time::millis")]
    pub check_period: Duration,
    /// How long a check may take that does not say so itself; 1 ms to 60 s. Default: 2 s. One that takes longer
    /// is ended, and has failed.
    #[serde(rename = "check_timeout_ms", with = "crate::config_time::millis")]
    pub check_timeout: Duration,
    /// How often in a row a check has to fail before that counts; 1 to 100. Default: 2, so that one lost
    /// packet changes nothing.
    pub failures_min: u32,
    /// How old a check's last result may be before the component says so, and is at least degraded; 1 s to 24 h.
    /// Default: 60 s. Never less than two periods and a timeout of the check.
    #[serde(rename = "stale_after_ms", with = "crate::config_time::millis")]
    pub stale_after: Duration,
    /// What this instance is called where details are shown; at most 64 bytes. Without it, a number that is
    /// drawn at each start. [`Profile::from_env`](crate::Profile::from_env) takes it from App Service's
    /// `WEBSITE_INSTANCE_ID`.
    pub instance: Option<String>,
    /// The service's own version, shown with the details; at most 64 bytes.
    pub version: Option<String>,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            check_period: Duration::from_secs(10),
            check_timeout: Duration::from_secs(2),
            failures_min: 2,
            stale_after: Duration::from_secs(60),
            instance: None,
            version: None,
        }
    }
}

impl HealthConfig {
    /// Adds a fault for every value that cannot be meant; fields are named `{room}.field`.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let hour = second * 3600;
        for (field, value, range) in [
            ("check_period_ms", self.check_period, milli * 100..=hour),
            ("check_timeout_ms", self.check_timeout, milli..=second * 60),
            ("stale_after_ms", self.stale_after, second..=hour * 24),
        ] {
            faults.within_time(format!("{room}.{field}"), value, range);
        }
        let field = format!("{room}.failures_min");
        faults.within(field, self.failures_min, 1..=100, "failures");
        for (field, text) in [("instance", &self.instance), ("version", &self.version)] {
            let unfit = |text: &&String| text.is_empty() || text.len() > NAME_MAX;
            if let Some(text) = text.as_ref().filter(unfit) {
                let allowed = format!("must have 1 to {NAME_MAX} bytes");
                faults.add(format!("{room}.{field}"), text, allowed);
            }
        }
    }
}

/// Names are for people to read.
const NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_absurd_value_is_a_fault_of_its_own() {
        let mut faults = Faults::new();
        HealthConfig::default().check("health", &mut faults);
        assert!(faults.is_empty());
        let config = HealthConfig {
            check_period: Duration::ZERO,
            check_timeout: Duration::from_secs(61),
            failures_min: 0,
            stale_after: Duration::from_millis(1),
            instance: Some(String::new()),
            version: Some("v".repeat(65)),
        };
        config.check("health", &mut faults);
        let error = faults.into_error();
        let fields: Vec<_> = error.faults().iter().map(|fault| &*fault.field).collect();
        assert_eq!(
            fields,
            [
                "health.check_period_ms",
                "health.check_timeout_ms",
                "health.stale_after_ms",
                "health.failures_min",
                "health.instance",
                "health.version"
            ]
        );
    }

    #[test]
    fn it_is_read_and_written_in_milliseconds() {
        let config: HealthConfig = toml::from_str("check_period_ms = 5000").unwrap();
        assert_eq!(config.check_period, Duration::from_secs(5));
        assert!(toml::from_str::<HealthConfig>("check_period = 5").is_err());
    }
}
