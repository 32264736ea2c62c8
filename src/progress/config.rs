//! The numbers of the progress room.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// How many streams there may be, what they keep and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProgressConfig {
    /// Whether streams can be opened at all. Default: yes.
    pub enabled: bool,
    /// Streams held at once, ended ones included; 1 to 100,000. Default: 256.
    pub streams_max: usize,
    /// Events kept per stream for whoever comes late or comes back; 1 to 10,000. Default: 64.
    pub replay_max: usize,
    /// Bytes of one event's JSON; 64 to 1 MiB. Default: 2 KiB, because an event says how far the
    /// work is and where its result lies, and is not the result.
    pub event_bytes_max: usize,
    /// How long a stream is kept after its end, for late watchers; 1 s to 24 h. Default: 5 min.
    #[serde(rename = "idle_ms", with = "crate::config_time::millis")]
    pub idle: Duration,
    /// The silence after which a comment is sent to keep the connection; 1 s to 2 min. Default:
    /// 15 s. Azure's front ends cut a connection that is idle for 230 to 240 s, other proxies
    /// after 60 s.
    #[serde(rename = "heartbeat_ms", with = "crate::config_time::millis")]
    pub heartbeat: Duration,
}

impl Default for ProgressConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            streams_max: 256,
            replay_max: 64,
            event_bytes_max: 2048,
            idle: Duration::from_secs(5 * 60),
            heartbeat: Duration::from_secs(15),
        }
    }
}

impl ProgressConfig {
    /// The most that all streams together can hold, in bytes of JSON: streams times events times
    /// their size. Some 150 bytes of overhead per event come on top.
    #[must_use]
    pub const fn bytes_max(&self) -> u64 {
        (self.streams_max as u64)
            .saturating_mul(self.replay_max as u64)
            .saturating_mul(self.event_bytes_max as u64)
    }

    /// Adds a fault for every number that cannot be meant.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let seconds = Duration::from_secs;
        let day = seconds(24 * 60 * 60);
        faults.within(
            format!("{room}.streams_max"),
            self.streams_max,
            1..=100_000,
            "streams",
        );
        faults.within(
            format!("{room}.replay_max"),
            self.replay_max,
            1..=10_000,
            "events",
        );
        faults.within(
            format!("{room}.event_bytes_max"),
            self.event_bytes_max,
            64..=1024 * 1024,
            "bytes",
        );
        faults.within_time(format!("{room}.idle_ms"), self.idle, seconds(1)..=day);
        faults.within_time(
            format!("{room}.heartbeat_ms"),
            self.heartbeat,
            seconds(1)..=seconds(120),
        );
        if self.bytes_max() > TOGETHER_BYTES_MAX {
            faults.add(
                format!("{room}.streams_max x replay_max x event_bytes_max"),
                self.bytes_max(),
                format!("must be at most {TOGETHER_BYTES_MAX} bytes together"),
            );
        }
    }
}

/// 1 GiB: three numbers that are sensible one by one can still promise away all memory.
const TOGETHER_BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty(change: impl FnOnce(&mut ProgressConfig)) -> Vec<String> {
        let mut config = ProgressConfig::default();
        change(&mut config);
        let mut faults = Faults::new();
        config.check("progress", &mut faults);
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
    fn the_defaults_are_sound_and_fit_a_small_host() {
        assert!(faulty(|_| {}).is_empty());
        assert!(ProgressConfig::default().bytes_max() <= 64 << 20);
    }

    #[test]
    fn every_absurd_number_is_named() {
        assert_eq!(
            faulty(|config| config.streams_max = 0),
            ["progress.streams_max"]
        );
        assert_eq!(
            faulty(|config| config.replay_max = 0),
            ["progress.replay_max"]
        );
        assert_eq!(
            faulty(|config| config.event_bytes_max = 1),
            ["progress.event_bytes_max"]
        );
        assert_eq!(
            faulty(|config| config.idle = Duration::ZERO),
            ["progress.idle_ms"]
        );
        assert_eq!(
            faulty(|config| config.heartbeat = Duration::from_secs(240)),
            ["progress.heartbeat_ms"]
        );
        assert_eq!(
            faulty(|config| (config.streams_max, config.replay_max) = (100_000, 10_000)),
            ["progress.streams_max x replay_max x event_bytes_max"]
        );
    }

    #[test]
    fn settings_carry_their_units_and_unknown_ones_are_refused() {
        let config: ProgressConfig =
            serde_json::from_str(r#"{"idle_ms": 60000, "heartbeat_ms": 20000}"#).unwrap();
        assert_eq!(config.idle, Duration::from_secs(60));
        assert_eq!(config.heartbeat, Duration::from_secs(20));
        assert_eq!(config.replay_max, ProgressConfig::default().replay_max);
        assert!(serde_json::from_str::<ProgressConfig>(r#"{"idle": 60}"#).is_err());
    }
}
