//! The numbers of the report room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// What is kept of days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReportConfig {
    /// How many days are remembered; 1 to 400. Default: 30. A day takes some 500 bytes, in Redis and in each
    /// instance.
    pub trend_days: u32,
    /// How often an instance adds to the day's sums in Redis; 10 s to 1 h. Default: 10 min. As much is missing if
    /// the process is killed.
    #[serde(rename = "trend_every_ms", with = "crate::config_time::millis")]
    pub trend_every: Duration,
}

impl Default for ReportConfig {
    fn default() -> Self {
        Self {
            trend_days: 30,
            trend_every: Duration::from_secs(600),
        }
    }
}

impl ReportConfig {
    /// Adds a fault for every number that cannot be meant; fields are named `{room}.field`.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let field = format!("{room}.trend_days");
        faults.within(field, self.trend_days, 1..=400, "days");
        let range = Duration::from_secs(10)..=Duration::from_secs(3600);
        faults.within_time(format!("{room}.trend_every_ms"), self.trend_every, range);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_absurd_value_is_a_fault_of_its_own() {
        let mut faults = Faults::new();
        ReportConfig::default().check("report", &mut faults);
        assert!(faults.is_empty());
        let config = ReportConfig {
            trend_days: 401,
            trend_every: Duration::from_secs(9),
        };
        config.check("report", &mut faults);
        let error = faults.into_error();
        let fields: Vec<_> = error.faults().iter().map(|fault| &*fault.field).collect();
        assert_eq!(fields, ["report.trend_days", "report.trend_every_ms"]);
    }
}
