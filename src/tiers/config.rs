//! What can be set about the tiers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// Settings of the typed cache, and of what it shares with the HTTP cache: the warm and the cold tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TiersConfig {
    /// Memory for values of typed caches: 1 MiB to 64 GiB, and at least four times `value_bytes_max`. What the
    /// HTTP cache has is [`cache.capacity_bytes`](crate::cache::CacheConfig).
    pub capacity_bytes: u64,
    /// The largest value that is stored, as it is written: 1 KiB to 64 MiB. Larger ones are served, and counted.
    pub value_bytes_max: u64,
    /// How many tenants have memory of their own: 1 to 65,536. One more takes the place of the one that was
    /// idle for longest.
    pub tenants_max: usize,
    /// The most memory that one tenant may have: 64 KiB up to the capacity.
    pub tenant_bytes_max: u64,
    /// How long a value is fresh where nobody says: 1 ms to 10 years.
    #[serde(rename = "ttl_ms", with = "crate::config_time::millis")]
    pub ttl: Duration,
    /// How long it stays in this process' memory where there is a tier behind: 1 s to 10 years.
    #[serde(rename = "ttl_hot_ms", with = "crate::config_time::millis")]
    pub ttl_hot: Duration,
    /// How long it stays in Redis: 1 s to 10 years.
    #[serde(rename = "ttl_warm_ms", with = "crate::config_time::millis")]
    pub ttl_warm: Duration,
    /// How long it stays in the cold store: 1 s to 10 years.
    #[serde(rename = "ttl_cold_ms", with = "crate::config_time::millis")]
    pub ttl_cold: Duration,
    /// How long anybody waits for a computation that another caller of this process began, before a second one
    /// is begun: 10 ms to 10 min.
    #[serde(rename = "flight_wait_ms", with = "crate::config_time::millis")]
    pub flight_wait: Duration,
    /// How long the right to compute a value for all instances lasts after its holder was last heard of: 200 ms
    /// to 60 s. If the holder dies, another one takes over then.
    #[serde(rename = "lease_ms", with = "crate::config_time::millis")]
    pub lease: Duration,
    /// How long an instance waits for another one's computation, before it computes for itself without storing
    /// the value in Redis: 10 ms to 10 min.
    #[serde(rename = "lease_wait_ms", with = "crate::config_time::millis")]
    pub lease_wait: Duration,
    /// Values longer than this are compressed (LZ4) in Redis and in the cold store if that saves a fifth. Zero:
    /// none.
    pub compress_above_bytes: u64,
    /// How long the cold store may take to answer: 1 ms to 10 s.
    #[serde(rename = "cold_timeout_ms", with = "crate::config_time::millis")]
    pub cold_timeout: Duration,
    /// Whether answers of the HTTP cache are kept in Redis and in the cold store as well.
    pub http: bool,
    /// The largest body of an HTTP answer that is kept there: 1 KiB to 64 MiB.
    pub http_body_bytes_max: u64,
}

impl Default for TiersConfig {
    fn default() -> Self {
        Self {
            capacity_bytes: 64 << 20,
            value_bytes_max: 1 << 20,
            tenants_max: 256,
            tenant_bytes_max: 32 << 20,
            ttl: MINUTE * 5,
            ttl_hot: MINUTE * 5,
            ttl_warm: MINUTE * 60,
            ttl_cold: MINUTE * 60 * 24,
            flight_wait: Duration::from_secs(10),
            lease: Duration::from_secs(3),
            lease_wait: Duration::from_secs(10),
            compress_above_bytes: 1 << 10,
            cold_timeout: Duration::from_millis(50),
            http: true,
            http_body_bytes_max: 1 << 20,
        }
    }
}

impl TiersConfig {
    /// Notes everything that is out of range or contradicts itself.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let field = |name: &str| format!("{room}.{name}");
        faults.within(
            field("capacity_bytes"),
            self.capacity_bytes,
            1 << 20..=64 << 30,
            "bytes",
        );
        faults.within(
            field("value_bytes_max"),
            self.value_bytes_max,
            1 << 10..=64 << 20,
            "bytes",
        );
        if self.value_bytes_max.saturating_mul(4) > self.capacity_bytes {
            let allowed = format!("must be at most a quarter of {room}.capacity_bytes");
            faults.add(field("value_bytes_max"), self.value_bytes_max, allowed);
        }
        faults.within(
            field("tenants_max"),
            self.tenants_max,
            1..=65_536,
            "tenants",
        );
        let quota = 64 << 10..=self.capacity_bytes.max(64 << 10);
        faults.within(
            field("tenant_bytes_max"),
            self.tenant_bytes_max,
            quota,
            "bytes",
        );
        let millis = Duration::from_millis;
        let lives = |least| least..=crate::tiers::options::LIFE_MAX;
        faults.within_time(field("ttl_ms"), self.ttl, lives(millis(1)));
        faults.within_time(field("ttl_hot_ms"), self.ttl_hot, lives(millis(1_000)));
        faults.within_time(field("ttl_warm_ms"), self.ttl_warm, lives(millis(1_000)));
        faults.within_time(field("ttl_cold_ms"), self.ttl_cold, lives(millis(1_000)));
        let waits = millis(10)..=MINUTE * 10;
        faults.within_time(field("flight_wait_ms"), self.flight_wait, waits.clone());
        faults.within_time(field("lease_wait_ms"), self.lease_wait, waits);
        faults.within_time(field("lease_ms"), self.lease, millis(200)..=MINUTE);
        let most = millis(10_000);
        faults.within_time(
            field("cold_timeout_ms"),
            self.cold_timeout,
            millis(1)..=most,
        );
        faults.within(
            field("http_body_bytes_max"),
            self.http_body_bytes_max,
            1 << 10..=64 << 20,
            "bytes",
        );
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let config = TiersConfig {
            capacity_bytes: 1 << 20,
            lease: Duration::from_millis(1),
            ..TiersConfig::default()
        };
        let mut faults = Faults::new();
        config.check("tiers", &mut faults);
        let error = faults.into_error();
        let fields: Vec<&str> = error.faults().iter().map(|fault| &*fault.field).collect();
        assert_eq!(
            fields,
            [
                "tiers.value_bytes_max",
                "tiers.tenant_bytes_max",
                "tiers.lease_ms"
            ]
        );
        let mut none = Faults::new();
        TiersConfig::default().check("tiers", &mut none);
        assert!(none.is_empty());
    }
}
