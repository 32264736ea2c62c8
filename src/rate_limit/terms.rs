//! A quota as it is kept and as it is told: everything about it that can be prepared.

use std::sync::Arc;

use http::HeaderValue;
use http::header::InvalidHeaderValue;

use crate::rate_limit::gcra::Limit;
use crate::rate_limit::period::Period;
use crate::rate_limit::quota::Quota;

/// The quota of one rule for one tier.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) rule: Arc<str>,
    pub(crate) requests: u32,
    pub(crate) limit: Limit,
    /// The part of the calendar that the limit goes by, if it does.
    pub(crate) period: Option<Period>,
    /// The value of `RateLimit-Policy`: `"login";q=5;w=3600`.
    pub(crate) policy: HeaderValue,
    /// How the value of `RateLimit` begins: `"login";r=`.
    pub(crate) standing: Box<str>,
    /// The value of `X-RateLimit-Limit`.
    pub(crate) requests_text: HeaderValue,
}

impl Terms {
    /// Prepares what is said of `quota`.
    ///
    /// # Errors
    ///
    /// When the rule's name cannot stand in a field, which a checked one always can.
    pub(crate) fn new(rule: &Arc<str>, quota: &Quota) -> Result<Self, InvalidHeaderValue> {
        let (requests, window) = policy(quota);
        Ok(Self {
            rule: Arc::clone(rule),
            requests: quota.requests,
            limit: quota.limit(),
            period: quota.period(),
            policy: HeaderValue::from_str(&format!("\"{rule}\";q={requests};w={window}"))?,
            standing: format!("\"{rule}\";r=").into(),
            requests_text: HeaderValue::from(quota.requests),
        })
    }

    /// The time after which nothing that was used up today can still count, in ticks.
    pub(crate) fn lasts(&self) -> u64 {
        // A month has at most 31 days.
        let window = |period: Period| (period.nominal() + 24 * 3600) * 1_000_000;
        self.period.map_or_else(|| 2 * self.limit.fill(), window)
    }
}

/// The quota as a number of requests in whole seconds, of which the draft wants at least one. A
/// window that is none is rounded up and its quota scaled along, so that the rate stays true.
fn policy(quota: &Quota) -> (u64, u64) {
    let span = quota.span();
    let nanos = span.as_nanos().max(1);
    let window = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    let window = window.max(1);
    let requests = u128::from(quota.requests) * u128::from(window) * 1_000_000_000 / nanos;
    (u64::try_from(requests).unwrap_or(u64::MAX), window)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_policy_is_told_in_whole_seconds() {
        for (requests, millis, policy) in [
            (100, 60_000, "\"r\";q=100;w=60"),
            (5, 3_600_000, "\"r\";q=5;w=3600"),
            (10, 250, "\"r\";q=40;w=1"),
            (3, 1500, "\"r\";q=4;w=2"),
            (u32::MAX, 1, "\"r\";q=4294967295000;w=1"),
        ] {
            let quota = Quota::requests(requests).per(Duration::from_millis(millis));
            assert_eq!(Terms::new(&"r".into(), &quota).unwrap().policy, policy);
        }
        let day = Quota::requests(7).each(Period::Day);
        let terms = Terms::new(&"r".into(), &day).unwrap();
        assert_eq!(terms.policy, "\"r\";q=7;w=86400");
    }
}
