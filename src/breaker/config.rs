//! The settings of circuit breakers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::breaker::rules::Rules;
use crate::error::Faults;

/// The settings of circuit breakers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Whether circuits open at all. Without it every call is made and none is counted.
    pub enabled: bool,
    /// So many failures in a row open a circuit: 1 to 1,000,000; `None` leaves it to the shares. This is what
    /// sees a dependency that is called once in a while.
    pub consecutive_failures: Option<u32>,
    /// Of the calls within the window, so many per cent have to fail to open it: 1 to 100; `None` leaves it to
    /// the others. This is what sees one that answers now and then.
    pub failure_percent: Option<u32>,
    /// Below so many calls within the window a share means nothing: 1 to 1,000,000.
    pub calls_min: u32,
    /// How far back shares look: 10 ms to 10 min. It is counted in ten buckets, whatever its length, and so ends
    /// up to a tenth early.
    #[serde(rename = "window_ms", with = "crate::config_time::millis")]
    pub window: Duration,
    /// Of the calls within the window, so many per cent have to be slow to open it: 1 to 100; `None` does not
    /// watch for slow calls. A slow probe counts as failed.
    pub slow_call_percent: Option<u32>,
    /// From when on a call is slow, if that is watched: 1 ms to 10 min.
    #[serde(rename = "slow_call_ms", with = "crate::config_time::millis")]
    pub slow_call: Duration,
    /// How long a circuit stays open: 1 ms to 1 h.
    #[serde(rename = "open_ms", with = "crate::config_time::millis")]
    pub open: Duration,
    /// How long at the most, where it is to stay open for twice as long each time that a probe has failed: from
    /// `open_ms` to 24 h. `None` for always as long.
    #[serde(rename = "open_max_ms", with = "crate::config_time::millis_option")]
    pub open_max: Option<Duration>,
    /// How many calls are made in a half-open circuit, all of which have to succeed: 1 to 100.
    pub probes: u32,
    /// When none of them has come to an end so long after the last was sent, they have failed: 10 ms to 1 h.
    #[serde(rename = "probe_ms", with = "crate::config_time::millis")]
    pub probe: Duration,
    /// A call that is cancelled, by a timeout around it or by a client that leaves, has failed if it had lasted
    /// for so long, and counts for nothing otherwise: 0 (each has failed) to 1 h; `None` counts none. Below the
    /// shortest timeout around the calls, or a dependency that hangs never opens its circuit; above what
    /// impatient clients wait for, or they do. Of the probes in a half-open circuit one alone says nothing before
    /// `probe_ms`: it takes as many as `probes`, and two at least, with none that has succeeded in between.
    #[serde(
        rename = "cancelled_after_ms",
        with = "crate::config_time::millis_option"
    )]
    pub cancelled_after: Option<Duration>,
    /// How many circuits are kept apart by name: 1 to 65,536. Each takes half a KiB.
    pub circuits_max: usize,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: Some(5),
            failure_percent: Some(50),
            calls_min: 20,
            window: Duration::from_secs(10),
            slow_call_percent: None,
            slow_call: Duration::from_secs(5),
            open: Duration::from_secs(30),
            open_max: None,
            probes: 3,
            probe: Duration::from_secs(30),
            cancelled_after: Some(Duration::from_secs(1)),
            circuits_max: 256,
        }
    }
}

impl BreakerConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let field = |name: &str| format!("{room}.{name}");
        for (name, value, range, unit) in [
            (
                "consecutive_failures",
                self.consecutive_failures,
                1..=MANY,
                "failures",
            ),
            ("failure_percent", self.failure_percent, 1..=100, "per cent"),
            ("calls_min", Some(self.calls_min), 1..=MANY, "calls"),
            (
                "slow_call_percent",
                self.slow_call_percent,
                1..=100,
                "per cent",
            ),
            ("probes", Some(self.probes), 1..=100, "calls"),
        ] {
            if let Some(value) = value {
                faults.within(field(name), value, range, unit);
            }
        }
        let ms = Duration::from_millis;
        for (name, value, least, most) in [
            ("window_ms", Some(self.window), ms(10), 10 * MINUTE),
            ("slow_call_ms", Some(self.slow_call), ms(1), 10 * MINUTE),
            ("open_ms", Some(self.open), ms(1), HOUR),
            ("open_max_ms", self.open_max, self.open, 24 * HOUR),
            ("probe_ms", Some(self.probe), ms(10), HOUR),
            (
                "cancelled_after_ms",
                self.cancelled_after,
                Duration::ZERO,
                HOUR,
            ),
        ] {
            if let Some(value) = value {
                faults.within_time(field(name), value, least..=most);
            }
        }
        faults.within(
            field("circuits_max"),
            self.circuits_max,
            1..=65_536,
            "circuits",
        );
        let opens = [
            self.consecutive_failures,
            self.failure_percent,
            self.slow_call_percent,
        ];
        if self.enabled && opens.iter().all(Option::is_none) {
            let allowed = "one of consecutive_failures, failure_percent and slow_call_percent must be set, or \
                 nothing ever opens a circuit; enabled = false says so";
            faults.add(field("enabled"), true, allowed);
        }
    }

    /// The settings as the machine asks them.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            consecutive: self.consecutive_failures.map_or(u64::MAX, u64::from),
            failure_percent: self.failure_percent.map(u64::from),
            slow_percent: self.slow_call_percent.map(u64::from),
            calls_min: self.calls_min.into(),
            open: self.open,
            open_max: self.open_max,
            probes: u8::try_from(self.probes).unwrap_or(u8::MAX).min(100),
            probe: self.probe,
        }
    }
}

/// More than this is as good as never.
const MANY: u32 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(config: &BreakerConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("breaker", &mut faults);
        let found = faults.into_result().err();
        let found = found.iter().flat_map(|error| error.faults());
        found.map(|fault| fault.field.clone()).collect()
    }

    #[test]
    fn the_defaults_are_without_fault_and_survive_serde() {
        let config = BreakerConfig::default();
        assert_eq!(faults(&config), Vec::<String>::new());
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""open_ms":30000"#), "{text}");
        assert_eq!(
            serde_json::from_str::<BreakerConfig>(&text).unwrap(),
            config
        );
    }

    #[test]
    fn every_fault_is_found_at_once() {
        let zero = Duration::ZERO;
        let config = BreakerConfig {
            enabled: true,
            consecutive_failures: Some(0),
            failure_percent: Some(101),
            calls_min: 0,
            window: zero,
            slow_call_percent: Some(0),
            slow_call: zero,
            open: zero,
            open_max: Some(Duration::MAX),
            probes: 101,
            probe: zero,
            cancelled_after: Some(2 * HOUR),
            circuits_max: 0,
        };
        let expected = [
            "consecutive_failures",
            "failure_percent",
            "calls_min",
            "slow_call_percent",
            "probes",
            "window_ms",
            "slow_call_ms",
            "open_ms",
            "open_max_ms",
            "probe_ms",
            "cancelled_after_ms",
            "circuits_max",
        ];
        assert_eq!(
            faults(&config),
            expected.map(|name| format!("breaker.{name}"))
        );
    }

    #[test]
    fn a_circuit_that_nothing_opens_and_a_cap_below_the_time_are_faults() {
        let never = BreakerConfig {
            consecutive_failures: None,
            failure_percent: None,
            ..BreakerConfig::default()
        };
        assert_eq!(faults(&never), ["breaker.enabled"]);
        let shrinking = BreakerConfig {
            open_max: Some(Duration::from_secs(29)),
            ..BreakerConfig::default()
        };
        assert_eq!(faults(&shrinking), ["breaker.open_max_ms"]);
        let off = BreakerConfig {
            enabled: false,
            ..never
        };
        assert_eq!(faults(&off), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        assert!(serde_json::from_str::<BreakerConfig>(r#"{"opens_ms": 3}"#).is_err());
        assert!(serde_json::from_str::<BreakerConfig>(r#"{"open_ms": -1}"#).is_err());
        let off = serde_json::from_str::<BreakerConfig>(r#"{"failure_percent": null}"#);
        assert_eq!(off.unwrap().failure_percent, None);
    }
}
