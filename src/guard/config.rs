//! The guard's settings.

use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::guard::adaptive::Adaptive;
use crate::guard::entrance::EntranceConfig;
use crate::guard::rule::{GuardRule, Plan, QUEUE_MAX, SLOTS_MAX};
use crate::identity::parse_network;

/// The guard's settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Whether the guard does anything; without it, requests are forwarded untouched.
    pub enabled: bool,
    /// How many requests are inside at once, from when they are let in to the end of their answer's body.
    /// 1 to 100,000. Fewer for as long as the runtime lags behind.
    pub slots: usize,
    /// How few slots `adaptive`, or a runtime that lags, may leave: 1 to `slots`.
    pub slots_min: usize,
    /// Whether the number of slots follows what requests take, between `slots_min` and `slots`.
    pub adaptive: Adaptive,
    /// What a request may take from when it is let in to the end of its answer before `adaptive = "aimd"` calls
    /// it slow: 1 ms to 60 s. Its wait in the queue is not part of that: fewer slots would only make it longer.
    #[serde(rename = "latency_target_ms", with = "crate::config_time::millis")]
    pub latency_target: Duration,
    /// How many requests may wait for a slot; 0 refuses at once. At most 100,000.
    pub queue: usize,
    /// How long a request may wait: 1 ms to 60 s. Long waits help nobody: with a queue of 100 and a
    /// second of patience in the clients, 5 s here served 18 of 100 requests in time and 0.5 s did 95.
    #[serde(rename = "queue_timeout_ms", with = "crate::config_time::millis")]
    pub queue_timeout: Duration,
    /// A queue in which even the least wait of a `codel_interval` was above this stands; from then on nobody
    /// waits for more than twice as long (controlled delay). For the critical classes it is at least a quarter of
    /// `queue_timeout`. 1 ms to 60 s.
    #[serde(rename = "codel_target_ms", with = "crate::config_time::millis")]
    pub codel_target: Duration,
    /// For how long a burst is let be: 1 ms to 60 s. Once the queue has not been empty for so long, the newest
    /// is served first, whose client is still there.
    #[serde(rename = "codel_interval_ms", with = "crate::config_time::millis")]
    pub codel_interval: Duration,
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
    /// Path templates of the routes that are served even at [`Pressure::Critical`](crate::guard::Pressure::Critical),
    /// and first in the queue: shorthand for rules that say `critical`.
    pub critical: Vec<String>,
    /// What is said of single routes: how important they are, and how many of them are inside at once.
    pub rules: Vec<GuardRule>,
    /// The field in which `trusted_peers` say how important a request is, as in `x-criticality: sheddable`.
    /// Nobody else is believed.
    pub criticality_field: Option<String>,
    /// The networks of those who may say how important their requests are: `10.0.0.0/8`. Behind proxies
    /// (`rate_limit.trusted_proxies`, or [`Claims::proxies`](crate::guard::Claims::proxies)) it is the client that has
    /// to be in one of them, as the proxies tell its address: what a stranger sends through a proxy is not believed.
    /// Where no proxies are named the peer is the client, so do not name a proxy here. A field with two values says
    /// nothing.
    pub trusted_peers: Vec<String>,
    /// How late a task may be woken, and that at least every time within 100 ms, before the runtime counts
    /// as lagging: 5 ms (timers are exact to a millisecond) to 10 s.
    #[serde(rename = "lag_target_ms", with = "crate::config_time::millis")]
    pub lag_target: Duration,
    /// The least time between two calls of the purge hook: 1 s to 1 h. A purge holds up every thread that
    /// allocates, for tens of milliseconds.
    #[serde(rename = "purge_every_ms", with = "crate::config_time::millis")]
    pub purge_every: Duration,
    /// Whether leaks are looked for, at the price of some nanoseconds a sample.
    pub leak_watch: bool,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            slots: 256,
            slots_min: 1,
            adaptive: Adaptive::Off,
            latency_target: Duration::from_millis(250),
            queue: 512,
            queue_timeout: Duration::from_millis(500),
            codel_target: Duration::from_millis(20),
            codel_interval: Duration::from_millis(100),
            retry_after: Duration::from_secs(1),
            memory_budget_bytes: None,
            memory_sample: Duration::from_secs(1),
            critical: ["/alive", "/ready", "/health", "/metrics"]
                .map(str::to_owned)
                .to_vec(),
            rules: Vec::new(),
            criticality_field: None,
            trusted_peers: Vec::new(),
            lag_target: Duration::from_millis(10),
            purge_every: Duration::from_secs(30),
            leak_watch: true,
        }
    }
}

impl GuardConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within(format!("{room}.slots"), self.slots, 1..=SLOTS_MAX, "slots");
        if self.slots_min == 0 || (self.slots > 0 && self.slots_min > self.slots) {
            let why = format!("must be 1 to {room}.slots, {}", self.slots);
            faults.add(format!("{room}.slots_min"), self.slots_min, why);
        }
        let queue = format!("{room}.queue");
        faults.within(queue, self.queue, 0..=QUEUE_MAX, "requests");
        let minute = MILLISECOND..=Duration::from_secs(60);
        let (hour, sample) = (Duration::from_secs(3600), Duration::from_millis(10));
        for (field, value, range) in [
            ("latency_target_ms", self.latency_target, minute.clone()),
            ("queue_timeout_ms", self.queue_timeout, minute.clone()),
            ("codel_target_ms", self.codel_target, minute.clone()),
            ("codel_interval_ms", self.codel_interval, minute.clone()),
            ("retry_after_ms", self.retry_after, MILLISECOND..=hour),
            (
                "memory_sample_ms",
                self.memory_sample,
                sample..=*minute.end(),
            ),
            (
                "lag_target_ms",
                self.lag_target,
                5 * MILLISECOND..=Duration::from_secs(10),
            ),
            (
                "purge_every_ms",
                self.purge_every,
                Duration::from_secs(1)..=Duration::from_secs(3600),
            ),
        ] {
            faults.within_time(format!("{room}.{field}"), value, range);
        }
        if let Some(budget) = self.memory_budget_bytes {
            let field = format!("{room}.memory_budget_bytes");
            faults.within(field, budget, BUDGET_MIN..=BUDGET_MAX, "bytes");
        }
        self.field_of_trusted(room, faults);
        Plan::compile(&self.rules, &self.critical, room, faults, |_, _| ());
    }

    /// The field in which trusted peers say how important a request is, and who they are.
    pub(crate) fn field_of_trusted(
        &self,
        room: &str,
        faults: &mut Faults,
    ) -> (Option<HeaderName>, Vec<IpNet>) {
        let field = self.criticality_field.as_ref().and_then(|name| {
            let parsed = name.parse().ok();
            if parsed.is_none() {
                let why = "must be the name of a field, as in `x-criticality`";
                faults.add(format!("{room}.criticality_field"), name, why);
            }
            parsed
        });
        let mut trusted = Vec::new();
        for peer in &self.trusted_peers {
            match parse_network(peer) {
                Ok(network) => trusted.push(network),
                Err(why) => faults.add(format!("{room}.trusted_peers"), peer, why),
            }
        }
        if self.criticality_field.is_some() && self.trusted_peers.is_empty() {
            let why = "must name whoever is believed about `criticality_field`";
            faults.add(format!("{room}.trusted_peers"), "[]", why);
        }
        (field, trusted)
    }

    /// What holds for the entrance of all, and for a route's but for its slots and places.
    pub(crate) const fn entrance(&self) -> EntranceConfig {
        EntranceConfig {
            slots: self.slots,
            slots_min: self.slots_min,
            adaptive: self.adaptive,
            latency_target: self.latency_target,
            queue: self.queue,
            queue_timeout: self.queue_timeout,
            codel_target: self.codel_target,
            codel_interval: self.codel_interval,
            retry_after: self.retry_after,
            of_route: false,
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);

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
            slots_min: 0,
            queue: 100_001,
            queue_timeout: Duration::ZERO,
            codel_target: Duration::ZERO,
            codel_interval: Duration::from_secs(61),
            retry_after: Duration::from_secs(7200),
            memory_budget_bytes: Some(1024),
            memory_sample: Duration::from_millis(1),
            critical: vec!["health".to_owned(), "/ok".to_owned(), "/{".to_owned()],
            rules: vec![
                GuardRule::new("/ok"),
                GuardRule::new("/export/{id}").slots(0).queue(100_001),
                GuardRule::new("/export/{other}").queue(3),
            ],
            criticality_field: Some("x criticality".to_owned()),
            trusted_peers: vec!["0.0.0.0/0".to_owned()],
            lag_target: Duration::ZERO,
            purge_every: Duration::from_millis(999),
            ..GuardConfig::default()
        };
        let mut faults = Faults::new();
        config.check("guard", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|f| f.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "guard.slots",
                "guard.slots_min",
                "guard.queue",
                "guard.queue_timeout_ms",
                "guard.codel_target_ms",
                "guard.codel_interval_ms",
                "guard.retry_after_ms",
                "guard.memory_sample_ms",
                "guard.lag_target_ms",
                "guard.purge_every_ms",
                "guard.memory_budget_bytes",
                "guard.criticality_field",
                "guard.trusted_peers",
                "guard.rules[1].slots",
                "guard.rules[1].queue",
                "guard.rules[2].queue",
                "guard.rules[2].route",
                "guard.critical",
                "guard.critical",
                "guard.critical",
            ]
        );
        let believed_by_nobody = GuardConfig {
            criticality_field: Some("x-criticality".to_owned()),
            ..GuardConfig::default()
        };
        let mut faults = Faults::new();
        believed_by_nobody.check("guard", &mut faults);
        let error = faults.into_result().unwrap_err();
        assert_eq!(error.faults()[0].field, "guard.trusted_peers");
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        assert!(serde_json::from_str::<GuardConfig>(r#"{"slot": 3}"#).is_err());
        assert!(serde_json::from_str::<GuardConfig>(r#"{"queue_timeout_ms": -1}"#).is_err());
        assert!(serde_json::from_str::<GuardConfig>(r#"{"slots": 3}"#).is_ok());
    }
}
