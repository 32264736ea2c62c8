//! What an answer says about the caller's quota.
//!
//! draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy` names a quota (`q` requests in `w`
//! seconds), `RateLimit` how the caller stands with it (`r` requests remain, for the next `t`
//! seconds). Both speak of the one rule that is nearest to its end. `t` is the time until the quota
//! is whole again; while nothing remains, the time until one request does, which is also what
//! `Retry-After` says: a client that obeys either is not refused again.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCESS_CONTROL_EXPOSE_HEADERS, Entry};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::rate_limit::decision::Standing;
use crate::rate_limit::rules::Rules;
use crate::refusal::retry_after_secs;
use crate::response::decimal;

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

const EXPOSED: HeaderValue = HeaderValue::from_static("RateLimit-Policy, RateLimit, Retry-After");
const EXPOSED_ALL: HeaderValue = HeaderValue::from_static(
    "RateLimit-Policy, RateLimit, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, \
     X-RateLimit-Reset",
);

/// Which fields answers carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Also where a request was let through.
    quota: bool,
    legacy: bool,
    exposed: bool,
}

impl Fields {
    pub(crate) const fn of(rules: &Rules) -> Self {
        Self {
            quota: rules.quota_headers,
            legacy: rules.legacy_headers,
            exposed: rules.expose_headers,
        }
    }

    /// Whether answers to requests that were let through carry any.
    pub(crate) const fn are_always_told(self) -> bool {
        self.quota
    }
}

/// Says in the answer to a request that was let through how its caller stands, if that is wanted.
pub(crate) fn inform(headers: &mut HeaderMap, standing: &Standing, fields: Fields) {
    if fields.quota {
        announce(headers, standing, fields);
    }
}

/// Lets a page's script read the fields (Fetch standard, "CORS-safelisted response-header name").
pub(crate) fn expose(headers: &mut HeaderMap, fields: Fields) {
    if fields.exposed {
        let names = if fields.legacy { EXPOSED_ALL } else { EXPOSED };
        headers.append(ACCESS_CONTROL_EXPOSE_HEADERS, names);
    }
}

/// Adds the fields to an answer; those that the service has set itself stay as they are.
pub(crate) fn announce(headers: &mut HeaderMap, standing: &Standing, fields: Fields) {
    expose(headers, fields);
    let legacy = fields.legacy;
    let terms = standing.terms();
    let (remaining, window) = told(standing);
    let secs = retry_after_secs(window);
    // Names that are not among the common ones are hashed letter by letter: once each.
    headers
        .entry(RATELIMIT_POLICY)
        .or_insert_with(|| terms.policy.clone());
    if let Entry::Vacant(place) = headers.entry(RATELIMIT)
        && let Some(value) = standing_value(&terms.standing, remaining, secs)
    {
        place.insert(value);
    }
    if legacy {
        for (name, value) in [
            (X_RATELIMIT_LIMIT, terms.requests_text.clone()),
            (X_RATELIMIT_REMAINING, decimal(remaining.into())),
            (X_RATELIMIT_RESET, decimal(secs)),
        ] {
            headers.entry(name).or_insert(value);
        }
    }
}

/// How many remain, and for how long.
fn told(standing: &Standing) -> (u32, Duration) {
    match standing.remaining() {
        0 => (0, standing.retry_after()),
        // A burst may be more than the quota of a window, which no client would understand.
        some => (some.min(standing.limit()), standing.reset_after()),
    }
}

/// `"rule";r=1;t=2`, in one allocation.
fn standing_value(begin: &str, remaining: u32, secs: u64) -> Option<HeaderValue> {
    let (mut first, mut second) = (itoa::Buffer::new(), itoa::Buffer::new());
    let parts = [begin, first.format(remaining), ";t=", second.format(secs)];
    // Of exactly this size, because a vector with room to spare is copied on its way into `Bytes`.
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        text.extend_from_slice(part.as_bytes());
    }
    HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rate_limit::charges::Charge;
    use crate::rate_limit::compiled::CompiledRule;
    use crate::rate_limit::gcra::Verdict;
    use crate::rate_limit::mode::Mode;
    use crate::rate_limit::quota::Quota;
    use crate::rate_limit::rule::Rule;

    const PLAIN: Fields = Fields {
        quota: true,
        legacy: false,
        exposed: false,
    };
    const LEGACY: Fields = Fields {
        quota: true,
        legacy: true,
        exposed: false,
    };

    fn standing(name: &str, quota: Quota, verdict: Verdict) -> Standing {
        let rule = Rule::new(name, quota);
        let rule = Arc::new(CompiledRule::new(&rule, Mode::Exact).unwrap());
        let charge = Charge {
            key: 1,
            rule: &rule,
            plan: &rule.base,
            limit: rule.base.terms.limit,
            cost: 1,
            bucket: &rule.base.bucket,
        };
        Standing::of(&charge, verdict.ahead())
    }

    fn text(headers: &HeaderMap) -> Vec<String> {
        let lines = headers.iter();
        lines
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn the_fields_are_written_as_the_draft_has_them() {
        let minute = Quota::requests(100).per(Duration::from_secs(60));
        let hour = Quota::requests(5).per(Duration::from_secs(3600));
        for (name, quota, verdict, lines) in [
            (
                "default",
                minute,
                Verdict::Allow { ahead: 30_000_000 },
                [
                    "ratelimit-policy: \"default\";q=100;w=60",
                    "ratelimit: \"default\";r=50;t=30",
                ],
            ),
            (
                "default",
                minute.burst(20),
                Verdict::Allow { ahead: 600_000 },
                [
                    "ratelimit-policy: \"default\";q=100;w=60",
                    "ratelimit: \"default\";r=19;t=1",
                ],
            ),
            (
                "log in",
                hour,
                Verdict::Allow {
                    ahead: 3_600_000_000,
                },
                [
                    "ratelimit-policy: \"log in\";q=5;w=3600",
                    "ratelimit: \"log in\";r=0;t=720",
                ],
            ),
            (
                "log in",
                hour,
                Verdict::Deny {
                    ahead: 2_880_000_001,
                },
                [
                    "ratelimit-policy: \"log in\";q=5;w=3600",
                    "ratelimit: \"log in\";r=0;t=1",
                ],
            ),
        ] {
            let mut headers = HeaderMap::new();
            announce(&mut headers, &standing(name, quota, verdict), PLAIN);
            assert_eq!(text(&headers), lines);
        }
    }

    #[test]
    fn the_older_fields_come_by_option() {
        let quota = Quota::requests(100).per(Duration::from_secs(60));
        let mut headers = HeaderMap::new();
        let verdict = Verdict::Allow { ahead: 29_400_001 };
        announce(&mut headers, &standing("default", quota, verdict), LEGACY);
        assert_eq!(
            text(&headers)[2..],
            [
                "x-ratelimit-limit: 100",
                "x-ratelimit-remaining: 50",
                "x-ratelimit-reset: 30"
            ]
        );
    }

    #[test]
    fn what_the_service_has_said_stays() {
        let quota = Quota::requests(100).per(Duration::from_secs(60));
        let mut headers = HeaderMap::new();
        headers.insert("ratelimit", HeaderValue::from_static("\"mine\";r=1"));
        headers.insert("x-ratelimit-limit", HeaderValue::from_static("7"));
        let verdict = Verdict::Allow { ahead: 30_000_000 };
        announce(&mut headers, &standing("default", quota, verdict), LEGACY);
        assert_eq!(headers["ratelimit"], "\"mine\";r=1");
        assert_eq!(headers["x-ratelimit-limit"], "7");
        assert_eq!(headers["ratelimit-policy"], "\"default\";q=100;w=60");
    }

    #[test]
    fn scripts_of_other_origins_may_read_them_by_option() {
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("ETag"),
        );
        let exposed = true;
        expose(&mut headers, Fields { exposed, ..PLAIN });
        expose(&mut headers, PLAIN);
        let lines = text(&headers);
        let name = "access-control-expose-headers";
        let own = format!("{name}: RateLimit-Policy, RateLimit, Retry-After");
        assert_eq!(lines, [format!("{name}: ETag"), own]);
    }
}
