//! Why a layer answered in the service's stead.
//!
//! A refusal is a response, never an error: a layer's error type is its inner service's. The reason
//! rides along in the response's extensions, where outer layers, tests and logs can read it:
//!
//! ```
//! # use tower_keep::refusal::Refusal;
//! fn note<B>(response: &http::Response<B>) {
//!     if let Some(refusal) = response.extensions().get::<Refusal>() {
//!         println!("refused: {refusal}");
//!     }
//! }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

/// The reason for a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The caller has used up a quota (429).
    OverQuota {
        /// The rule whose quota it was.
        rule: Arc<str>,
        /// How long until the request would be let through.
        retry_after: Duration,
    },
    /// The client went on although it was refused, and is banned for a while (429).
    Banned {
        /// How long the ban still lasts.
        retry_after: Duration,
    },
    /// The client is on the list of those who are never let in (403).
    DenyListed,
    /// All slots and all places in the queue are taken, or the wait in it grew too long (503).
    Overloaded {
        /// A guess at when to come back.
        retry_after: Duration,
    },
    /// The process is about to run out of its memory budget (503).
    MemoryPressure {
        /// A guess at when to come back.
        retry_after: Duration,
    },
    /// What has to be called for the answer has failed too often of late (503).
    CircuitOpen {
        /// How long until it is tried again.
        retry_after: Duration,
    },
    /// As many long-lived connections are open as there may be (503).
    TooManyConnections {
        /// A guess at when to come back.
        retry_after: Duration,
    },
}

impl Refusal {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::OverQuota { .. } | Self::Banned { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::DenyListed => StatusCode::FORBIDDEN,
            Self::Overloaded { .. }
            | Self::MemoryPressure { .. }
            | Self::CircuitOpen { .. }
            | Self::TooManyConnections { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How long the client should stay away; `None` if it should not come back.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::OverQuota { retry_after, .. }
            | Self::Banned { retry_after }
            | Self::Overloaded { retry_after }
            | Self::MemoryPressure { retry_after }
            | Self::CircuitOpen { retry_after }
            | Self::TooManyConnections { retry_after } => Some(*retry_after),
            Self::DenyListed => None,
        }
    }

    /// The name under which events and figures count this refusal.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::OverQuota { .. } => "over_quota",
            Self::Banned { .. } => "banned",
            Self::DenyListed => "deny_listed",
            Self::Overloaded { .. } => "overloaded",
            Self::MemoryPressure { .. } => "memory_pressure",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::TooManyConnections { .. } => "too_many_connections",
        }
    }

    /// The answer's body: problem details (RFC 9457), built into the program. The types are those
    /// of the IANA registry that draft-ietf-httpapi-ratelimit-headers fills.
    #[must_use]
    pub const fn problem(&self) -> Bytes {
        Bytes::from_static(match self {
            Self::OverQuota { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Quota exceeded","status":429,"detail":"Too many requests. Come back after the time in the Retry-After field."}"#
            }
            Self::Banned { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#abnormal-usage-detected","title":"Abnormal usage detected","status":429,"detail":"Too many requests were sent after a refusal. Come back after the time in the Retry-After field."}"#
            }
            Self::DenyListed => {
                br#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"This client is not let in."}"#
            }
            Self::Overloaded { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","title":"Overloaded","status":503,"detail":"All places are taken. Come back after the time in the Retry-After field."}"#
            }
            Self::CircuitOpen { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","title":"Circuit open","status":503,"detail":"Something this service depends on does not answer as it should. Come back after the time in the Retry-After field."}"#
            }
            Self::TooManyConnections { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","title":"Too many connections","status":503,"detail":"As many connections are open as there may be. Come back after the time in the Retry-After field."}"#
            }
            Self::MemoryPressure { .. } => {
                br#"{"type":"https://iana.org/assignments/http-problem-types#temporary-reduced-capacity","title":"Out of memory budget","status":503,"detail":"The service is short of memory. Come back after the time in the Retry-After field."}"#
            }
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OverQuota { rule, .. } => write!(f, "over the quota of rule {rule:?}"),
            Self::Banned { .. } => write!(f, "banned"),
            Self::DenyListed => write!(f, "on the list of those who are never let in"),
            Self::Overloaded { .. } => write!(f, "overloaded"),
            Self::MemoryPressure { .. } => write!(f, "short of memory"),
            Self::CircuitOpen { .. } => write!(f, "circuit open"),
            Self::TooManyConnections { .. } => write!(f, "too many connections"),
        }
    }
}

/// For those who ask an engine without Tower, and hand its refusal on.
impl std::error::Error for Refusal {}

/// `Retry-After` in whole seconds (RFC 9110 §10.2.3): rounded up, and never 0, because a client told
/// to come back at once comes back at once.
#[must_use]
pub const fn retry_after_secs(wait: Duration) -> u64 {
    let up = if wait.subsec_nanos() > 0 { 1 } else { 0 };
    let secs = wait.as_secs().saturating_add(up);
    if secs == 0 { 1 } else { secs }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, secs) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_500, 60)] {
            assert_eq!(
                retry_after_secs(Duration::from_millis(millis)),
                secs,
                "{millis} ms"
            );
        }
        assert_eq!(retry_after_secs(Duration::MAX), u64::MAX);
    }

    #[test]
    fn every_problem_is_json_and_says_its_status() {
        let wait = Duration::from_secs(1);
        for refusal in [
            Refusal::OverQuota {
                rule: "login".into(),
                retry_after: wait,
            },
            Refusal::Overloaded { retry_after: wait },
            Refusal::MemoryPressure { retry_after: wait },
            Refusal::CircuitOpen { retry_after: wait },
            Refusal::TooManyConnections { retry_after: wait },
        ] {
            let problem: serde_json::Value = serde_json::from_slice(&refusal.problem()).unwrap();
            assert_eq!(problem["status"], refusal.status().as_u16());
        }
    }
}
