//! What may be stored, how long it is fresh, and when it may be served: RFC 9111 as pure functions.
//!
//! Time comes in as values; nothing here reads a clock or a store.

use std::time::{Duration, SystemTime};

use http::header::{AGE, AUTHORIZATION, DATE, EXPIRES, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::cache::control::CacheControl;

/// What the operator decided where the RFC leaves room.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Lifetime of answers that say nothing about theirs; zero stores only what says so.
    pub(crate) ttl_default: Duration,
    /// `stale-while-revalidate` of answers that do not say.
    pub(crate) stale_while_revalidate: Duration,
    /// `stale-if-error` of answers that do not say.
    pub(crate) stale_if_error: Duration,
    /// Request fields that identify the caller, as `Authorization` does.
    pub(crate) credential_headers: Vec<HeaderName>,
}

/// The answer, as far as the decision to store needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// A lifetime that the handler gave in code, above what the fields say.
    pub(crate) ttl: Option<Duration>,
    /// Whether the request carried credentials.
    pub(crate) credentials: bool,
    /// The time of day when the head arrived.
    pub(crate) arrived: SystemTime,
    /// How long the origin took to answer.
    pub(crate) delay: Duration,
}

/// The terms on which a stored answer may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// How long it is fresh, counted in age.
    pub(crate) lifetime: Duration,
    /// Its age when it arrived (RFC 9111 §4.2.3, `corrected_initial_age`).
    pub(crate) initial_age: Duration,
    /// `no-cache`: each use needs the origin's word.
    pub(crate) always_validate: bool,
    /// How long past its life it may be served while it is refreshed.
    pub(crate) stale_while_revalidate: Duration,
    /// How long past its life it may be served when the origin fails.
    pub(crate) stale_if_error: Duration,
    /// Whether a client's `max-stale` is heard.
    pub(crate) may_be_stale: bool,
    /// Whether the origin said that credentials make no difference.
    pub(crate) for_everyone: bool,
}

/// What may be done with a stored answer of a certain age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve it.
    Fresh,
    /// Serve it, and refresh it meanwhile (RFC 5861 §3).
    StaleWhileRevalidate,
    /// Serve it because the client said it takes stale answers (RFC 9111 §5.2.1.2).
    StaleAccepted,
    /// Ask the origin because the client wants it (`no-cache`, `max-age`, `min-fresh`).
    Unwanted,
    /// Ask the origin because its life is over.
    Stale,
}

/// Decides whether an answer to a GET may be stored, and on which terms (RFC 9111 §3).
///
/// # Errors
///
/// The reason why not, for events and tests.
pub(crate) fn terms(answer: &Answer<'_>, rules: &Rules) -> Result<Terms, &'static str> {
    let control = CacheControl::of_response(answer.headers);
    forbidden(answer, &control)?;

    // RFC 9111 §3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization
    // header field .. unless the response contains .. must-revalidate, public, s-maxage."
    let for_everyone = control.public || control.must_revalidate || control.s_maxage.is_some();
    if answer.credentials && !for_everyone {
        return Err("credentials");
    }

    let explicit = explicit_lifetime(answer, &control);
    let lifetime = match explicit {
        Some(lifetime) => lifetime,
        None if !heuristically_cacheable(answer.status) && !control.public => {
            return Err("status");
        }
        None => rules.ttl_default,
    };
    let seconds = |said: Option<u64>, default: Duration| said.map_or(default, Duration::from_secs);
    // RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit
    // in-protocol directive" -- must-revalidate, proxy-revalidate, s-maxage (§5.2.2.10), no-cache.
    let may_be_stale = !(control.must_revalidate
        || control.proxy_revalidate
        || control.s_maxage.is_some()
        || control.no_cache);
    let stale = |said: Option<u64>, default| {
        // An `s-maxage` beside an explicit RFC 5861 window is a wish for that window.
        let hard = control.must_revalidate || control.proxy_revalidate || control.no_cache;
        if hard || (said.is_none() && !may_be_stale) {
            Duration::ZERO
        } else {
            seconds(said, default)
        }
    };
    let terms = Terms {
        lifetime,
        initial_age: initial_age(answer),
        always_validate: control.no_cache,
        stale_while_revalidate: stale(control.stale_while_revalidate, rules.stale_while_revalidate),
        stale_if_error: stale(control.stale_if_error, rules.stale_if_error),
        may_be_stale,
        for_everyone,
    };
    if worth_keeping(&terms, answer.headers) {
        Ok(terms)
    } else {
        Err("no lifetime")
    }
}

/// RFC 9111 §3: what no lifetime can make storable.
fn forbidden(answer: &Answer<'_>, control: &CacheControl) -> Result<(), &'static str> {
    let status = answer.status;
    // "the response status code is final", and 304 belongs to a stored answer, not into the store.
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Err("status");
    }
    // A part is not the whole, and this cache does not combine parts.
    if status == StatusCode::PARTIAL_CONTENT {
        return Err("partial");
    }
    // RFC 6585 §4: "Responses with the 429 status code MUST NOT be stored by a cache."
    if status == StatusCode::TOO_MANY_REQUESTS {
        return Err("status");
    }
    // "if the must-understand cache directive is present, the cache understands .. that status code",
    // and §5.2.2.3: then "SHOULD ignore the no-store directive".
    if control.must_understand && !understood(status) {
        return Err("must-understand");
    }
    if control.no_store && !control.must_understand {
        return Err("no-store");
    }
    // "if the cache is shared: the private response directive is not present".
    if control.private {
        return Err("private");
    }
    // A cookie is one person's, whatever the other fields say: the leak of rustango#1251 and its kin.
    if answer.headers.contains_key(SET_COOKIE) {
        return Err("set-cookie");
    }
    // §4.1: "A stored response with a Vary header field value containing a member '*' always fails to
    // match."
    if answer
        .headers
        .get_all(VARY)
        .iter()
        .any(|line| line.as_bytes().contains(&b'*'))
    {
        return Err("vary");
    }
    Ok(())
}

/// The lifetime that the handler or the fields give (RFC 9111 §4.2.1): s-maxage, max-age, Expires - Date.
fn explicit_lifetime(answer: &Answer<'_>, control: &CacheControl) -> Option<Duration> {
    if let Some(ttl) = answer.ttl {
        return Some(ttl);
    }
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some(Duration::from_secs(seconds));
    }
    let mut lines = answer.headers.get_all(EXPIRES).iter();
    let expires = lines.next()?;
    // §5.3: "A cache recipient MUST interpret invalid date formats, especially the value "0", as
    // representing a time in the past"; two different lines are no date either.
    let Some(expires) = http_date(expires.as_bytes()).filter(|_| lines.next().is_none()) else {
        return Some(Duration::ZERO);
    };
    let date = date_of(answer.headers).unwrap_or(answer.arrived);
    Some(expires.duration_since(date).unwrap_or(Duration::ZERO))
}

/// RFC 9111 §4.2.3.
fn initial_age(answer: &Answer<'_>) -> Duration {
    let date = date_of(answer.headers).unwrap_or(answer.arrived);
    let apparent = answer
        .arrived
        .duration_since(date)
        .unwrap_or(Duration::ZERO);
    apparent.max(age_value(answer.headers).saturating_add(answer.delay))
}

/// §5.1: one delta-seconds; a value that is none is ignored, and of several the first counts.
fn age_value(headers: &HeaderMap) -> Duration {
    let Some(line) = headers.get(AGE) else {
        return Duration::ZERO;
    };
    let first = line
        .as_bytes()
        .split(|byte| *byte == b',')
        .next()
        .unwrap_or_default();
    let digits = std::str::from_utf8(first.trim_ascii()).unwrap_or_default();
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = if plain {
        digits.parse().unwrap_or(AGE_SECONDS_MAX)
    } else {
        0
    };
    Duration::from_secs(seconds.min(AGE_SECONDS_MAX))
}

fn date_of(headers: &HeaderMap) -> Option<SystemTime> {
    headers
        .get(DATE)
        .and_then(|date| http_date(date.as_bytes()))
}

pub(crate) fn http_date(text: &[u8]) -> Option<SystemTime> {
    httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()
}

/// What would never be served again is not kept: no lifetime, nothing to ask the origin with, and no
/// leave to serve it stale.
fn worth_keeping(terms: &Terms, headers: &HeaderMap) -> bool {
    terms.lifetime > terms.initial_age
        || headers.contains_key(http::header::ETAG)
        || headers.contains_key(http::header::LAST_MODIFIED)
        || terms.lifetime.saturating_add(terms.stale_while_revalidate) > terms.initial_age
        || terms.lifetime.saturating_add(terms.stale_if_error) > terms.initial_age
}

/// RFC 9110 §15.1.
fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The codes of RFC 9110 §15 whose caching needs nothing beyond what this cache does.
fn understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=204 | 300..=303 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505)
}

/// Whether the request carries something that may make its answer one person's.
pub(crate) fn has_credentials(headers: &HeaderMap, rules: &Rules) -> bool {
    headers.contains_key(AUTHORIZATION)
        || rules
            .credential_headers
            .iter()
            .any(|name| headers.contains_key(name))
}

impl Terms {
    /// What may be done at `age` for a request of these directives (RFC 9111 §4.2, §4.2.4, §5.2.1).
    pub(crate) fn freshness(&self, age: Duration, request: &CacheControl) -> Freshness {
        if self.always_validate {
            return Freshness::Stale;
        }
        if request.no_cache {
            return Freshness::Unwanted;
        }
        // §5.2.1.1: "the client prefers a response whose age is less than or equal to .. max-age".
        if request.max_age.is_some_and(|limit| age.as_secs() > limit) && request.max_stale.is_none()
        {
            return Freshness::Unwanted;
        }
        // §5.2.1.3: "its freshness lifetime is no less than its current age plus the specified time".
        let left = self.lifetime.saturating_sub(age);
        if request
            .min_fresh
            .is_some_and(|wish| left < Duration::from_secs(wish))
        {
            return Freshness::Unwanted;
        }
        // §4.2: "response_is_fresh = (freshness_lifetime > current_age)".
        if self.lifetime > age {
            return Freshness::Fresh;
        }
        let staleness = age.saturating_sub(self.lifetime);
        if self.may_be_stale
            && request
                .max_stale
                .is_some_and(|limit| staleness <= Duration::from_secs(limit))
        {
            return Freshness::StaleAccepted;
        }
        if staleness < self.stale_while_revalidate {
            return Freshness::StaleWhileRevalidate;
        }
        Freshness::Stale
    }

    /// Whether an answer of this age may stand in for an origin that fails (RFC 5861 §4).
    pub(crate) fn covers_error(&self, age: Duration, request: &CacheControl) -> bool {
        let staleness = age.saturating_sub(self.lifetime);
        let asked = request
            .stale_if_error
            .map(Duration::from_secs)
            .filter(|_| self.may_be_stale);
        !self.always_validate && staleness < self.stale_if_error.max(asked.unwrap_or_default())
    }
}

/// Some 68 years, as for delta-seconds.
const AGE_SECONDS_MAX: u64 = 1 << 31;
