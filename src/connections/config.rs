//! The numbers of the connections room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// How many connections may stay open for long, and when one counts as gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectionsConfig {
    /// Whether they are counted at all; without it, every slot is given and none is ever taken back.
    pub enabled: bool,
    /// How many are open at once, over all tenants: 1 to 1,000,000. Default: 10,000. App Service lets 350
    /// WebSockets through to an instance of its Basic plans, which is what the profile for them says.
    pub connections_max: usize,
    /// How many one tenant has open at once: 1 to 1,000,000. Default: as many as there are. Those who watch progress
    /// are of their caller's tenant; a caller without one is one himself.
    pub per_tenant_max: Option<usize>,
    /// The silence in both directions after which a connection counts as gone: 1 s to 24 h. Default: 5 min,
    /// which is longer than any heartbeat and longer than the 230 to 240 s after which Azure's front ends
    /// cut a silent connection themselves.
    #[serde(rename = "stale_ms", with = "crate::config_time::millis")]
    pub stale: Duration,
    /// What refused clients read in `Retry-After`, rounded up to seconds: 1 ms to 1 h. Default: 5 s.
    #[serde(rename = "retry_after_ms", with = "crate::config_time::millis")]
    pub retry_after: Duration,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            connections_max: 10_000,
            per_tenant_max: None,
            stale: Duration::from_secs(5 * 60),
            retry_after: Duration::from_secs(5),
        }
    }
}

impl ConnectionsConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let counts = [
            ("connections_max", Some(self.connections_max)),
            ("per_tenant_max", self.per_tenant_max),
        ];
        for (field, count) in counts {
            if let Some(count) = count {
                let field = format!("{room}.{field}");
                faults.within(field, count, 1..=CONNECTIONS_MAX, "connections");
            }
        }
        let seconds = Duration::from_secs;
        let (stale, day) = (format!("{room}.stale_ms"), seconds(24 * 60 * 60));
        faults.within_time(stale, self.stale, seconds(1)..=day);
        let retry_after = format!("{room}.retry_after_ms");
        let least = Duration::from_millis(1);
        faults.within_time(retry_after, self.retry_after, least..=seconds(3600));
    }
}

/// More than a process has file descriptors for, on any host that this crate is meant for.
const CONNECTIONS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_without_fault_and_survive_serde() {
        let config = ConnectionsConfig::default();
        let mut faults = Faults::new();
        config.check("connections", &mut faults);
        assert!(faults.is_empty(), "{faults:?}");
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""stale_ms":300000"#), "{text}");
        let read: ConnectionsConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(read, config);
        assert!(serde_json::from_str::<ConnectionsConfig>(r#"{"max": 3}"#).is_err());
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let config = ConnectionsConfig {
            enabled: true,
            connections_max: 0,
            per_tenant_max: Some(0),
            stale: Duration::from_millis(999),
            retry_after: Duration::ZERO,
        };
        let mut faults = Faults::new();
        config.check("connections", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "connections.connections_max",
                "connections.per_tenant_max",
                "connections.stale_ms",
                "connections.retry_after_ms",
            ]
        );
    }
}
