//! The numbers of the database room, which are read and checked in every build.
//!
//! The room itself, `sqlx/`, is only there with a driver's feature; a configuration file that speaks
//! of the database is good or bad without it as well.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// How large a connection pool is, how long one waits for it, and which queries are slow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// Connections of one pool; 1 to 1,000. Default: 3, because one core keeps no more busy, and a
    /// small database server is shared with others.
    pub connections_max: u32,
    /// The longest wait for a free connection; 1 ms to 60 s. Default: 3 s. Whoever has waited longer
    /// than that is no longer waited for.
    #[serde(rename = "acquire_timeout_ms", with = "crate::config_time::millis")]
    pub acquire_timeout: Duration,
    /// How many may wait at [`Keep::database_slots`](crate::Keep::database_slots), which has as many slots as
    /// there are connections; 0 to 100,000. Default: 64.
    pub queue: usize,
    /// How long a connection may lie idle before it is closed; 1 s to 24 h, and at most
    /// `max_lifetime`. Default: 5 min.
    #[serde(rename = "idle_timeout_ms", with = "crate::config_time::millis")]
    pub idle_timeout: Duration,
    /// How old a connection may grow before it is replaced; 1 s to 24 h. Default: 30 min, so that a
    /// server's failover or a new password reaches every connection within that time.
    #[serde(rename = "max_lifetime_ms", with = "crate::config_time::millis")]
    pub max_lifetime: Duration,
    /// From how long on a query is slow; 1 ms to 10 min. Default: 100 ms.
    #[serde(rename = "slow_query_ms", with = "crate::config_time::millis")]
    pub slow_query: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            connections_max: 3,
            acquire_timeout: Duration::from_secs(3),
            queue: 64,
            idle_timeout: Duration::from_secs(5 * 60),
            max_lifetime: Duration::from_secs(30 * 60),
            slow_query: Duration::from_millis(100),
        }
    }
}

impl DatabaseConfig {
    /// Adds a fault for every number that cannot be meant.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let (minute, day) = (second * 60, second * 60 * 60 * 24);
        faults.within(
            format!("{room}.connections_max"),
            self.connections_max,
            1..=1000,
            "connections",
        );
        let queue = format!("{room}.queue");
        faults.within(queue, self.queue, 0..=100_000, "waiters");
        let times = [
            ("acquire_timeout_ms", self.acquire_timeout, milli..=minute),
            ("idle_timeout_ms", self.idle_timeout, second..=day),
            ("max_lifetime_ms", self.max_lifetime, second..=day),
            ("slow_query_ms", self.slow_query, milli..=minute * 10),
        ];
        for (field, time, range) in times {
            faults.within_time(format!("{room}.{field}"), time, range);
        }
        if self.idle_timeout > self.max_lifetime {
            faults.add(
                format!("{room}.idle_timeout_ms"),
                format!("{:?}", self.idle_timeout),
                format!(
                    "must be at most {room}.max_lifetime_ms, {:?}",
                    self.max_lifetime
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(text: &str) -> Vec<String> {
        let config: DatabaseConfig = serde_json::from_str(text).unwrap();
        let mut faults = Faults::new();
        config.check("database", &mut faults);
        let found = faults.into_result().err();
        found.map_or_else(Vec::new, |error| {
            error
                .faults()
                .iter()
                .map(|fault| fault.field.clone())
                .collect()
        })
    }

    #[test]
    fn the_defaults_are_sound() {
        assert!(faulty("{}").is_empty());
    }

    #[test]
    fn every_absurd_or_contradictory_number_is_named() {
        for (text, field) in [
            (r#"{"connections_max": 0}"#, "database.connections_max"),
            (
                r#"{"acquire_timeout_ms": 0}"#,
                "database.acquire_timeout_ms",
            ),
            (
                r#"{"acquire_timeout_ms": 60001}"#,
                "database.acquire_timeout_ms",
            ),
            (r#"{"queue": 100001}"#, "database.queue"),
            (r#"{"idle_timeout_ms": 0}"#, "database.idle_timeout_ms"),
            (r#"{"slow_query_ms": 0}"#, "database.slow_query_ms"),
            (r#"{"max_lifetime_ms": 60000}"#, "database.idle_timeout_ms"),
            (
                r#"{"max_lifetime_ms": 99999999999}"#,
                "database.max_lifetime_ms",
            ),
        ] {
            assert_eq!(faulty(text), [field], "{text}");
        }
    }

    #[test]
    fn unknown_and_negative_settings_are_refused() {
        for text in [
            r#"{"connections": 3}"#,
            r#"{"connections_max": -1}"#,
            r#"{"slow_query_ms": -1}"#,
        ] {
            assert!(
                serde_json::from_str::<DatabaseConfig>(text).is_err(),
                "{text}"
            );
        }
    }
}
