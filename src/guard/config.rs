//! The guard's settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::route::Route;

/// The guard's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Whether the guard does anything; without it, requests are forwarded untouched.
    pub enabled: bool,
    /// How many requests are inside at once, from their arrival to the end of their answer's body.
    /// 1 to 100,000.
    pub slots: usize,
    /// How many requests may wait for a slot; 0 refuses at once. At most 100,000.
    pub queue: usize,
    /// How long a request may wait: 1 ms to 60 s. Long waits help nobody: with a queue of 100 and a
    /// second of patience in the clients, 5 s here served 18 of 100 requests in time and 0.5 s did 95.
    #[serde(rename = "queue_timeout_ms", with = "crate::config_time::millis")]
    pub queue_timeout: Duration,
    /// What refused clients read in `Retry-After`, rounded up to seconds: 1 ms to 1 h.
    #[serde(rename = "retry_after_ms", with = "crate::config_time::millis")]
    pub retry_after: Duration,
    /// The bytes the process may use: 16 MiB to 1 TiB. `None` derives it at start: the control
    /// group's limit where there is one, else what
    /// [`MemoryBounds::budget_bytes`](crate::guard::MemoryBounds::budget_bytes) makes of the machine.
    pub memory_budget_bytes: Option<u64>,
    /// How often the memory is to be read: 10 ms to 60 s. A reading takes a few microseconds.
    #[serde(rename = "memory_sample_ms", with = "crate::config_time::millis")]
    pub memory_sample: Duration,
    /// Path templates of the routes that are served even at [`Pressure::Critical`](crate::guard::Pressure::Critical).
    pub critical: Vec<String>,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            slots: 256,
            queue: 512,
            queue_timeout: Duration::from_millis(500),
            retry_after: Duration::from_secs(1),
            memory_budget_bytes: None,
            memory_sample: Duration::from_secs(1),
            critical: ["/alive", "/ready", "/health", "/metrics"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

impl GuardConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within(format!("{room}.slots"), self.slots, 1..=SLOTS_MAX, "slots");
        faults.within(
            format!("{room}.queue"),
            self.queue,
            0..=QUEUE_MAX,
            "requests",
        );
        for (field, value, range) in [
            (
                "queue_timeout_ms",
                self.queue_timeout,
                MILLISECOND..=Duration::from_secs(60),
            ),
            (
                "retry_after_ms",
                self.retry_after,
                MILLISECOND..=Duration::from_secs(3600),
            ),
            (
                "memory_sample_ms",
                self.memory_sample,
                Duration::from_millis(10)..=Duration::from_secs(60),
            ),
        ] {
            faults.within_time(format!("{room}.{field}"), value, range);
        }
        if let Some(budget) = self.memory_budget_bytes {
            let field = format!("{room}.memory_budget_bytes");
            faults.within(field, budget, BUDGET_MIN..=BUDGET_MAX, "bytes");
        }
        for template in &self.critical {
            if let Err(allowed) = Route::new(template, &[]) {
                faults.add(format!("{room}.critical"), template, allowed);
            }
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// More requests at once than any process holds, and few enough to be counted in 32 bits.
const SLOTS_MAX: usize = 100_000;
const QUEUE_MAX: usize = 100_000;

/// A server with its runtime, its connections and a cache does not live in less.
const BUDGET_MIN: u64 = 16 << 20;
const BUDGET_MAX: u64 = 1 << 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_without_fault_and_survive_serde() {
        let config = GuardConfig::default();
        let mut faults = Faults::new();
        config.check("guard", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""queue_timeout_ms":500"#), "{text}");
        assert_eq!(serde_json::from_str::<GuardConfig>(&text).unwrap(), config);
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let config = GuardConfig {
            slots: 0,
            queue: 100_001,
            queue_timeout: Duration::ZERO,
            retry_after: Duration::from_secs(7200),
            memory_budget_bytes: Some(1024),
            memory_sample: Duration::from_millis(1),
            critical: vec!["health".to_owned(), "/ok".to_owned(), "/{".to_owned()],
            enabled: true,
        };
        let mut faults = Faults::new();
        config.check("guard", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "guard.slots",
                "guard.queue",
                "guard.queue_timeout_ms",
                "guard.retry_after_ms",
                "guard.memory_sample_ms",
                "guard.memory_budget_bytes",
                "guard.critical",
                "guard.critical",
            ]
        );
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        assert!(serde_json::from_str::<GuardConfig>(r#"{"slot": 3}"#).is_err());
        assert!(serde_json::from_str::<GuardConfig>(r#"{"queue_timeout_ms": -1}"#).is_err());
        assert!(serde_json::from_str::<GuardConfig>(r#"{"slots": 3}"#).is_ok());
    }
}
