//! `Cache-Status`: what the cache did, told with the answer (RFC 9211).

use http::{HeaderName, HeaderValue};

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
    /// The origin was asked, for this reason, and said that it still holds.
    Validated(FwdReason),
}

impl FwdReason {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }

    /// The field's value for an answer of this fate.
    pub(crate) const fn field(self, fate: Fate) -> HeaderValue {
        HeaderValue::from_static(match (self, fate) {
            (Self::Bypass, Fate::Passed) => "keep; fwd=bypass",
            (Self::Bypass, Fate::Stored) => "keep; fwd=bypass; stored",
            (Self::Method, Fate::Passed) => "keep; fwd=method",
            (Self::Method, Fate::Stored) => "keep; fwd=method; stored",
            (Self::UriMiss, Fate::Passed) => "keep; fwd=uri-miss",
            (Self::UriMiss, Fate::Stored) => "keep; fwd=uri-miss; stored",
            (Self::VaryMiss, Fate::Passed) => "keep; fwd=vary-miss",
            (Self::VaryMiss, Fate::Stored) => "keep; fwd=vary-miss; stored",
            (Self::Request, Fate::Passed) => "keep; fwd=request",
            (Self::Request, Fate::Stored) => "keep; fwd=request; stored",
            (Self::Stale, Fate::Passed) => "keep; fwd=stale",
            (Self::Stale, Fate::Stored) => "keep; fwd=stale; stored",
        })
    }
}

impl Service {
    /// Whether the answer was past its life.
    pub(crate) const fn is_stale(self) -> bool {
        matches!(self, Self::WhileRevalidate | Self::Accepted | Self::IfError)
    }

    pub(crate) const fn field(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Fresh => "keep; hit",
            // RFC 9211 §2.6: collapsed goes with fwd, for the request was on its way out.
            Self::Collapsed(FwdReason::VaryMiss) => "keep; fwd=vary-miss; collapsed",
            Self::Collapsed(FwdReason::Stale) => "keep; fwd=stale; collapsed",
            Self::Collapsed(FwdReason::Request) => "keep; fwd=request; collapsed",
            Self::Collapsed(_) => "keep; fwd=uri-miss; collapsed",
            Self::WhileRevalidate => "keep; hit; detail=stale-while-revalidate",
            Self::Accepted => "keep; hit; detail=max-stale",
            // RFC 9211 §2.2: hit and fwd exclude each other, and this one went out first.
            Self::IfError => "keep; fwd=stale; detail=stale-if-error",
            Self::Validated(FwdReason::Request) => "keep; fwd=request; fwd-status=304; stored",
            Self::Validated(_) => "keep; fwd=stale; fwd-status=304; stored",
        })
    }
}

/// The answer to `only-if-cached` where nothing is stored.
pub(crate) const ONLY_IF_CACHED: HeaderValue =
    HeaderValue::from_static("keep; detail=only-if-cached");

/// The field's name.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
