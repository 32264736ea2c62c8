//! What can be set about the journal.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// Bounds of the journal's memory, and how instances keep each other's word.
///
/// All instances of a service should have the same settings: the lease of one is what the others wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// How many different keys, paths and tags are remembered as invalidated: 1,024 to 16,777,216.
    /// One takes about 24 bytes. When they are more, the older half is forgotten and entries stored
    /// before it become misses.
    pub markers_max: usize,
    /// How many different patterns are remembered: 16 to 1,048,576. They are found by their rarest
    /// segment, so a check takes time by the length of the key, not by how many there are.
    pub patterns_max: usize,
    /// How many records Redis keeps for instances that were away, or start: 128 to 1,048,576. One of one
    /// tag takes about 35 bytes. Whoever was away for longer takes what it has stored for old.
    pub records_max: usize,
    /// How many invalidations may wait while Redis is away: 16 to 65,536. With one more, all of them
    /// become one record that invalidates everything.
    pub queue_max: usize,
    /// Into how many independent sequences the journal is divided, by tenant: 1 to 64. In a cluster each
    /// is kept by one node; elsewhere there is no use for more than one.
    pub shards: u16,
    /// How long an instance may believe, without asking, that it has heard everything: 200 ms to 30 s. If
    /// Redis cannot be reached for so long, nothing stored is served from memory; and whoever invalidates
    /// waits no longer for an instance that does not answer.
    #[serde(rename = "lease_ms", with = "crate::config_time::millis")]
    pub lease: Duration,
    /// How often it asks: 50 ms to a third of the lease.
    #[serde(rename = "heartbeat_ms", with = "crate::config_time::millis")]
    pub heartbeat: Duration,
    /// For how long what is stored is served although nobody knows whether it still holds: 0 (the
    /// default) to 24 h. With one instance there is nobody else to invalidate anything, and an hour does
    /// no harm; with several, it is how long one that is cut off may serve what others have invalidated.
    #[serde(rename = "max_unverified_ms", with = "crate::config_time::millis")]
    pub max_unverified: Duration,
    /// How long an invalidation waits for its confirmation: 10 ms to 30 s. Then it is
    /// [`Pending`](crate::journal::Pending), and carried out all the same.
    #[serde(rename = "acknowledge_ms", with = "crate::config_time::millis")]
    pub acknowledge_within: Duration,
    /// When an invalidation counts as acknowledged.
    pub acknowledge: Acknowledge,
}

/// When an invalidation is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledge {
    /// When every instance has carried it out, or has lost its lease. Whoever reads anywhere after that
    /// reads what is new. Takes two round trips; one with a single instance.
    #[default]
    Everywhere,
    /// When it is recorded in Redis. The others carry it out as soon as they hear of it, usually within a
    /// millisecond; until then they may serve from memory what was invalidated. Takes one round trip.
    Recorded,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            markers_max: 65_536,
            patterns_max: 4_096,
            records_max: 65_536,
            queue_max: 4_096,
            shards: 1,
            lease: Duration::from_secs(1),
            heartbeat: Duration::from_millis(250),
            max_unverified: Duration::ZERO,
            acknowledge_within: Duration::from_millis(250),
            acknowledge: Acknowledge::Everywhere,
        }
    }
}

impl JournalConfig {
    /// Notes everything that is out of range.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let mut count = |field: &str, value: usize, range, unit| {
            faults.within(format!("{room}.{field}"), value, range, unit);
        };
        count(
            "markers_max",
            self.markers_max,
            1_024..=16_777_216,
            "markers",
        );
        count(
            "patterns_max",
            self.patterns_max,
            16..=1_048_576,
            "patterns",
        );
        count("records_max", self.records_max, 128..=1_048_576, "records");
        count("queue_max", self.queue_max, 16..=65_536, "records");
        count("shards", usize::from(self.shards), 1..=64, "shards");
        let mut time = |field: &str, value, least, most| {
            let millis = Duration::from_millis;
            faults.within_time(
                format!("{room}.{field}"),
                value,
                millis(least)..=millis(most),
            );
        };
        time("lease_ms", self.lease, 200, 30_000);
        let third = u64::try_from(self.lease.as_millis() / 3).unwrap_or(u64::MAX);
        time("heartbeat_ms", self.heartbeat, 50, third.max(50));
        time("max_unverified_ms", self.max_unverified, 0, 86_400_000);
        time("acknowledge_ms", self.acknowledge_within, 10, 30_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named_and_the_defaults_are_not() {
        let faults = |config: &JournalConfig| {
            let mut faults = Faults::new();
            config.check("journal", &mut faults);
            match faults.into_result() {
                Ok(()) => Vec::new(),
                Err(error) => error
                    .faults()
                    .iter()
                    .map(|fault| fault.field.clone())
                    .collect(),
            }
        };
        assert_eq!(faults(&JournalConfig::default()), [""; 0]);
        let config = JournalConfig {
            markers_max: 1,
            shards: 0,
            lease: Duration::from_millis(300),
            heartbeat: Duration::from_millis(101),
            max_unverified: Duration::from_secs(86_401),
            ..JournalConfig::default()
        };
        let expected = ["markers_max", "shards", "heartbeat_ms", "max_unverified_ms"];
        assert_eq!(
            faults(&config),
            expected.map(|field| format!("journal.{field}"))
        );
    }

    #[test]
    fn it_reads_from_text() {
        let text = "acknowledge = 'recorded'\nmax_unverified_ms = 5000";
        let config: JournalConfig = toml::from_str(text).unwrap();
        assert_eq!(config.acknowledge, Acknowledge::Recorded);
        assert_eq!(config.max_unverified, Duration::from_secs(5));
    }
}
