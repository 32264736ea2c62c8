//! `Cache-Status`: what the cache did, told with the answer (RFC 9211).

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// How much `Cache-Status` (RFC 9211) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum StatusDetail {
    /// There is none.
    Off,
    /// Whether it was a hit, or why the request went on, and whether the answer is stored.
    #[default]
    Outcome,
    /// As well the seconds that a stored answer has left to live, negative ones if it is stale.
    Ttl,
    /// As well the key. It shows clients what the key is made of: for development.
    Key,
}

/// Why a request was forwarded (RFC 9211 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FwdReason {
    /// The cache was told, or decided, to stay out of it.
    Bypass,
    /// The method asks for the service itself.
    Method,
    /// Nothing is stored for the URL.
    UriMiss,
    /// Something is stored, but for requests of other fields.
    VaryMiss,
    /// The client did not want what is stored.
    Request,
    /// What is stored is stale.
    Stale,
    /// The same, and it never was anything else: what is stored is asked about whenever it is used, and no cache could
    /// have served it. RFC 9211 has no other word for it; it is told apart for the counts.
    AlwaysAsked,
    /// What is stored is another part than the one asked for.
    Partial,
}

/// What happened to a forwarded answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It went through.
    Passed,
    /// It is being stored.
    Stored,
}

/// How a stored answer came to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// Fresh.
    Fresh,
    /// Fresh, fetched by somebody else while this request waited, and why it had to be fetched.
    Collapsed(FwdReason),
    /// Stale, and being refreshed.
    WhileRevalidate,
    /// Stale, because the client accepts it.
    Accepted,
    /// Stale, because the origin failed.
    IfError,
    /// The origin was asked, for this reason, and said that it still holds, which is noted.
    Validated(FwdReason),
    /// The same for this client alone.
    Confirmed(FwdReason),
}

macro_rules! said {
    ($text:literal) => {{
        // A constant, because a value made of text is looked through byte by byte.
        const VALUE: HeaderValue = HeaderValue::from_static(concat!("keep; ", $text));
        VALUE
    }};
}

impl FwdReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale | Self::AlwaysAsked => "stale",
            Self::Partial => "partial",
        }
    }

    /// Whether nothing that fits the request was stored.
    pub(crate) const fn is_of_nothing(self) -> bool {
        matches!(self, Self::UriMiss | Self::VaryMiss | Self::Partial)
    }

    /// The field's value for an answer of this fate.
    pub(crate) const fn field(self, fate: Fate) -> HeaderValue {
        match (self, fate) {
            (Self::Bypass, Fate::Passed) => said!("fwd=bypass"),
            (Self::Bypass, Fate::Stored) => said!("fwd=bypass; stored"),
            (Self::Method, Fate::Passed) => said!("fwd=method"),
            (Self::Method, Fate::Stored) => said!("fwd=method; stored"),
            (Self::UriMiss, Fate::Passed) => said!("fwd=uri-miss"),
            (Self::UriMiss, Fate::Stored) => said!("fwd=uri-miss; stored"),
            (Self::VaryMiss, Fate::Passed) => said!("fwd=vary-miss"),
            (Self::VaryMiss, Fate::Stored) => said!("fwd=vary-miss; stored"),
            (Self::Request, Fate::Passed) => said!("fwd=request"),
            (Self::Request, Fate::Stored) => said!("fwd=request; stored"),
            (Self::Stale | Self::AlwaysAsked, Fate::Passed) => said!("fwd=stale"),
            (Self::Stale | Self::AlwaysAsked, Fate::Stored) => said!("fwd=stale; stored"),
            (Self::Partial, Fate::Passed) => said!("fwd=partial"),
            (Self::Partial, Fate::Stored) => said!("fwd=partial; stored"),
        }
    }
}

impl Service {
    /// Whether the answer was past its life.
    pub(crate) const fn is_stale(self) -> bool {
        matches!(self, Self::WhileRevalidate | Self::Accepted | Self::IfError)
    }

    pub(crate) const fn field(self) -> HeaderValue {
        match self {
            Self::Fresh => said!("hit"),
            // RFC 9211 §2.6: collapsed goes with fwd, for the request was on its way out.
            Self::Collapsed(FwdReason::VaryMiss) => said!("fwd=vary-miss; collapsed"),
            Self::Collapsed(FwdReason::Stale) => said!("fwd=stale; collapsed"),
            Self::Collapsed(FwdReason::Request) => said!("fwd=request; collapsed"),
            Self::Collapsed(_) => said!("fwd=uri-miss; collapsed"),
            Self::WhileRevalidate => said!("hit; detail=stale-while-revalidate"),
            Self::Accepted => said!("hit; detail=max-stale"),
            // RFC 9211 §2.2: hit and fwd exclude each other, and this one went out first.
            Self::IfError => said!("fwd=stale; detail=stale-if-error"),
            Self::Validated(FwdReason::Request) => said!("fwd=request; fwd-status=304; stored"),
            Self::Validated(_) => said!("fwd=stale; fwd-status=304; stored"),
            Self::Confirmed(FwdReason::Request) => said!("fwd=request; fwd-status=304"),
            Self::Confirmed(_) => said!("fwd=stale; fwd-status=304"),
        }
    }
}

/// `value` with what else may be told: RFC 9211 §2.5, "the response's remaining freshness lifetime as
/// calculated by the cache, as an integer number of seconds .. can be negative", and §2.7.
pub(crate) fn detailed(
    value: HeaderValue,
    detail: StatusDetail,
    (lifetime, age): (Duration, Duration),
    key: &str,
) -> HeaderValue {
    if detail < StatusDetail::Ttl {
        return value;
    }
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let ttl = seconds(lifetime).saturating_sub(seconds(age));
    let mut text = String::from_utf8_lossy(value.as_bytes()).into_owned();
    // Writing to a string cannot fail.
    let _ = write!(text, "; ttl={ttl}");
    // A string of RFC 9651 has its quotes and backslashes escaped.
    if detail == StatusDetail::Key {
        let key = key.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(text, "; key=\"{key}\"");
    }
    HeaderValue::try_from(text).unwrap_or(value)
}

/// The answer to `only-if-cached` where nothing is stored.
pub(crate) const ONLY_IF_CACHED: HeaderValue =
    HeaderValue::from_static("keep; detail=only-if-cached");

/// Keeps the field's place in a stored answer until it is served; nobody else says just this.
pub(crate) const STATUS_PLACE: HeaderValue = HeaderValue::from_static("keep");

/// The field's name.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_told_to_those_who_want_them() {
        let times = (Duration::from_secs(60), Duration::from_secs(75));
        let told = |detail| detailed(Service::Accepted.field(), detail, times, "/a\"b\\");
        assert_eq!(told(StatusDetail::Outcome), "keep; hit; detail=max-stale");
        assert_eq!(
            told(StatusDetail::Ttl),
            "keep; hit; detail=max-stale; ttl=-15"
        );
        let key = told(StatusDetail::Key);
        assert_eq!(
            key,
            r#"keep; hit; detail=max-stale; ttl=-15; key="/a\"b\\""#
        );
    }
}
