//! What can be set about the cache.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::cache::policy::Rules;
use crate::error::Faults;

/// Settings of the HTTP cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Whether the cache does anything; if not, its layer forwards untouched.
    pub enabled: bool,
    /// Memory for stored answers, fields and overhead included: 1 MiB to 64 GiB, and at least four
    /// times `body_bytes_max`.
    pub capacity_bytes: u64,
    /// The largest body that is stored: 1 KiB to 1 GiB. Larger ones stream through.
    pub body_bytes_max: u64,
    /// How long an answer is fresh that does not say so itself. Zero, the default, stores only what
    /// carries `Cache-Control`, `Expires` or `CacheFor`: guessing serves what was just changed. At
    /// most a year.
    #[serde(rename = "ttl_default_ms", with = "crate::config_time::millis")]
    pub ttl_default: Duration,
    /// How long past its life an answer may be served while it is refreshed in the background
    /// (RFC 5861 §3), where the answer does not say. At most a day.
    #[serde(
        rename = "stale_while_revalidate_ms",
        with = "crate::config_time::millis"
    )]
    pub stale_while_revalidate: Duration,
    /// How long past its life an answer may stand in for a 500, 502, 503 or 504 (RFC 5861 §4), where
    /// the answer does not say. At most a day.
    #[serde(rename = "stale_if_error_ms", with = "crate::config_time::millis")]
    pub stale_if_error: Duration,
    /// How long a request waits for another one that is already fetching the same answer, before it
    /// goes to the service itself: 10 ms to 60 s.
    #[serde(rename = "flight_wait_ms", with = "crate::config_time::millis")]
    pub flight_wait: Duration,
    /// For how long it is remembered that a URL's answer cannot be stored, so that requests for it do
    /// not wait for each other: 100 ms to 10 min.
    #[serde(rename = "pass_ttl_ms", with = "crate::config_time::millis")]
    pub pass_ttl: Duration,
    /// Whether the host is part of the key. Leave it on unless one service answers alike under many
    /// names *and* never reads Host.
    pub key_authority: bool,
    /// How many answers of one URL are kept apart by `Vary`: 1 to 64.
    pub variants_max: usize,
    /// Request fields that identify the caller, as `Authorization` does: what is asked with one of them
    /// is stored, and served from the store, only if the answer is `public` (or has `s-maxage` or
    /// `must-revalidate`).
    pub credential_headers: Vec<String>,
    /// Whether answers carry `Cache-Status` (RFC 9211).
    pub status_header: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            capacity_bytes: 128 << 20,
            body_bytes_max: 4 << 20,
            ttl_default: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            flight_wait: Duration::from_secs(5),
            pass_ttl: Duration::from_secs(10),
            key_authority: true,
            variants_max: 16,
            credential_headers: vec!["cookie".to_owned(), "x-api-key".to_owned()],
            status_header: true,
        }
    }
}

impl CacheConfig {
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
            field("body_bytes_max"),
            self.body_bytes_max,
            1 << 10..=1 << 30,
            "bytes",
        );
        if self.body_bytes_max.saturating_mul(4) > self.capacity_bytes {
            let allowed = format!("must be at most a quarter of {room}.capacity_bytes");
            faults.add(field("body_bytes_max"), self.body_bytes_max, allowed);
        }
        let (zero, day, year) = (Duration::ZERO, DAY, DAY * 365);
        faults.within_time(field("ttl_default_ms"), self.ttl_default, zero..=year);
        faults.within_time(
            field("stale_while_revalidate_ms"),
            self.stale_while_revalidate,
            zero..=day,
        );
        faults.within_time(field("stale_if_error_ms"), self.stale_if_error, zero..=day);
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
        faults.within_time(field("flight_wait_ms"), self.flight_wait, least..=most);
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
        faults.within_time(field("pass_ttl_ms"), self.pass_ttl, least..=most);
        faults.within(field("variants_max"), self.variants_max, 1..=64, "answers");
        for name in &self.credential_headers {
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                faults.add(
                    field("credential_headers"),
                    name,
                    "must be names of header fields",
                );
            }
        }
    }

    /// The part that the policy needs, checked before.
    pub(crate) fn rules(&self) -> Rules {
        let names = self.credential_headers.iter();
        Rules {
            ttl_default: self.ttl_default,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            credential_headers: names
                .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
                .collect(),
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
