//! What the full stack adds around the service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;

/// The settings of `Keep::full_layer`, which the feature `tower-http` brings. The plain
/// [`Keep::layer`](crate::Keep::layer) knows none of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Whether every request and its answer carry an `X-Request-Id`. A client's own is kept if it has 1 to
    /// 128 visible ASCII characters. Default: yes.
    pub request_id: bool,
    /// Whether answers are compressed with gzip for clients that take it. Default: yes. Not under severe
    /// memory pressure, and never event streams, images, gRPC, parts, and what is coded already.
    pub compression: bool,
    /// From which size on, in bytes: up to 1 GiB. Default: 1,024, because less fits into a packet or two
    /// anyway. Answers of unknown length count as large.
    pub compress_above_bytes: u64,
    /// How long the service may take until the head of its answer: 10 ms to 1 h, or 0 for as long as it
    /// likes. Default: 30 s. Then the handler is dropped and the answer is an empty 503.
    #[serde(rename = "timeout_ms", with = "crate::config_time::millis")]
    pub timeout: Duration,
    /// Whether a panic of the service is answered with 500 and problem details, instead of a broken
    /// connection. Default: yes.
    pub catch_panic: bool,
    /// The bytes of a request's body: 1 KiB or more, or 0 for as many as it likes. Default: 2 MiB, as axum's
    /// own extractors, whose limit (`DefaultBodyLimit`) has to be raised as well where more is wanted.
    pub body_bytes_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            request_id: true,
            compression: true,
            compress_above_bytes: 1024,
            timeout: Duration::from_secs(30),
            catch_panic: true,
            body_bytes_max: 2 << 20,
        }
    }
}

impl HttpConfig {
    /// Notes a fault for every setting that cannot be meant; `room` is where the settings sit in the
    /// whole configuration.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let field = format!("{room}.compress_above_bytes");
        faults.within(field, self.compress_above_bytes, 0..=1 << 30, "bytes");
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(3600));
        if !self.timeout.is_zero() && !(least..=most).contains(&self.timeout) {
            let allowed = format!("must be {least:?} to {most:?}, or 0 for no limit");
            faults.add(
                format!("{room}.timeout_ms"),
                format!("{:?}", self.timeout),
                allowed,
            );
        }
        if (1..BODY_MIN).contains(&self.body_bytes_max) {
            let allowed = format!("must be at least {BODY_MIN} bytes, or 0 for no limit");
            faults.add(
                format!("{room}.body_bytes_max"),
                self.body_bytes_max,
                allowed,
            );
        }
    }
}

/// Whoever writes less has mixed up bytes and KiB.
const BODY_MIN: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(change: impl FnOnce(&mut HttpConfig)) -> Vec<String> {
        let mut config = HttpConfig::default();
        change(&mut config);
        let mut faults = Faults::new();
        config.check("http", &mut faults);
        let found = faults.into_result().err();
        let found = found.iter().flat_map(|error| error.faults());
        found.map(|fault| fault.field.clone()).collect()
    }

    #[test]
    fn zero_means_no_limit_and_what_is_too_small_or_large_is_a_fault() {
        assert!(faults(|_| {}).is_empty());
        let free = |config: &mut HttpConfig| {
            config.timeout = Duration::ZERO;
            config.body_bytes_max = 0;
            config.compress_above_bytes = 0;
        };
        assert!(faults(free).is_empty());
        let wrong = |config: &mut HttpConfig| {
            config.timeout = Duration::from_millis(9);
            config.body_bytes_max = 2;
            config.compress_above_bytes = u64::MAX;
        };
        let fields = [
            "http.compress_above_bytes",
            "http.timeout_ms",
            "http.body_bytes_max",
        ];
        assert_eq!(faults(wrong), fields);
        assert_eq!(
            faults(|config| config.timeout = Duration::from_secs(3601)),
            ["http.timeout_ms"]
        );
    }
}
