//! What can be set about warming.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// What is learned, how fast it is computed again, and what a starting instance begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WarmingConfig {
    /// Whether anything is computed before it is asked for.
    pub enabled: bool,
    /// How many hot keys are remembered, here and in Redis: 16 to 10,000. One takes about 200 bytes and its
    /// text.
    pub keys_max: usize,
    /// After what time a use counts for half: 10 s to 24 h. All instances of a service should have the same.
    #[serde(rename = "half_life_ms", with = "crate::config_time::millis")]
    pub half_life: Duration,
    /// How many are computed at once at most: 1 to 64. There are fewer while the origin is slow or fails.
    pub concurrency_max: usize,
    /// How many are begun in a second at most, on average: 1 to 10,000.
    pub jobs_per_second_max: u32,
    /// How many may wait to be computed: 16 to 65,536. Beyond that the least worthy are dropped.
    pub queue_max: usize,
    /// How often what is hot is told to Redis: 1 s to 1 h. An instance that is killed forgets that much.
    #[serde(rename = "save_every_ms", with = "crate::config_time::millis")]
    pub save_every: Duration,
    /// How many of the hottest keys an instance fetches when it starts: 0 (none) to 10,000.
    pub boot_keys_max: usize,
    /// How many of them in one question to Redis: 1 to 1,000.
    pub boot_batch: usize,
}

impl Default for WarmingConfig {
    /// For one core: two at once, ten in a second.
    fn default() -> Self {
        Self {
            enabled: true,
            keys_max: 4_096,
            half_life: Duration::from_secs(600),
            concurrency_max: 2,
            jobs_per_second_max: 10,
            queue_max: 1_024,
            save_every: Duration::from_secs(30),
            boot_keys_max: 4_096,
            boot_batch: 100,
        }
    }
}

impl WarmingConfig {
    /// Notes everything that is out of range.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let mut count = |field: &str, value: usize, range, unit| {
            faults.within(format!("{room}.{field}"), value, range, unit);
        };
        count("keys_max", self.keys_max, 16..=10_000, "keys");
        count("concurrency_max", self.concurrency_max, 1..=64, "jobs");
        count("queue_max", self.queue_max, 16..=65_536, "jobs");
        count("boot_keys_max", self.boot_keys_max, 0..=10_000, "keys");
        count("boot_batch", self.boot_batch, 1..=1_000, "keys");
        let field = format!("{room}.jobs_per_second_max");
        faults.within(field, self.jobs_per_second_max, 1..=10_000, "jobs");
        let mut time = |field: &str, value, least, most| {
            let seconds = Duration::from_secs;
            faults.within_time(
                format!("{room}.{field}"),
                value,
                seconds(least)..=seconds(most),
            );
        };
        time("half_life_ms", self.half_life, 10, 86_400);
        time("save_every_ms", self.save_every, 1, 3_600);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &WarmingConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("warming", &mut faults);
        match faults.into_result() {
            Ok(()) => Vec::new(),
            Err(error) => (error.faults().iter())
                .map(|fault| fault.field.clone())
                .collect(),
        }
    }

    #[test]
    fn what_is_out_of_range_is_named_and_the_defaults_are_not() {
        assert_eq!(faults(&WarmingConfig::default()), [""; 0]);
        let config = WarmingConfig {
            enabled: false,
            keys_max: 15,
            half_life: Duration::from_millis(9_999),
            concurrency_max: 0,
            jobs_per_second_max: 0,
            queue_max: 65_537,
            save_every: Duration::from_secs(3_601),
            boot_keys_max: 10_001,
            boot_batch: 0,
        };
        let expected = [
            "keys_max",
            "concurrency_max",
            "queue_max",
            "boot_keys_max",
            "boot_batch",
            "jobs_per_second_max",
            "half_life_ms",
            "save_every_ms",
        ];
        assert_eq!(
            faults(&config),
            expected.map(|field| format!("warming.{field}"))
        );
    }

    #[test]
    fn it_reads_from_text_and_refuses_what_it_does_not_know() {
        let config: WarmingConfig =
            toml::from_str("enabled = false\nhalf_life_ms = 60000").unwrap();
        assert_eq!(config.half_life, Duration::from_secs(60));
        assert!(!config.enabled && config.keys_max == 4_096);
        assert!(toml::from_str::<WarmingConfig>("half_life = 60").is_err());
    }
}
