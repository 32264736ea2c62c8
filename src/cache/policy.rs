//! What may be stored, and on which terms: RFC 9111 §3 as pure functions.
//!
//! Time comes in as values; nothing here reads a clock or a store.

use std::time::{Duration, SystemTime};

use http::header::{SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, StatusCode};

use crate::cache::control::CacheControl;
use crate::cache::lifetime::{explicit_lifetime, heuristic_lifetime, initial_age};
use crate::cache::part::Part;
use crate::cache::targeted::targeted;
use crate::cache::terms::Terms;

/// What the operator decided where the RFC leaves room.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Lifetime of answers that say nothing about theirs; zero stores only what says so.
    pub(crate) ttl_default: Duration,
    /// Lifetime of 404 and 410 that say nothing about theirs.
    pub(crate) ttl_negative: Duration,
    /// Whether a lifetime is guessed from `Last-Modified` where none is said.
    pub(crate) heuristic: bool,
    /// `stale-while-revalidate` of answers that do not say.
    pub(crate) stale_while_revalidate: Duration,
    /// `stale-if-error` of answers that do not say.
    pub(crate) stale_if_error: Duration,
    /// How long past its life an answer may be served when there is no other.
    pub(crate) stale_if_disconnected: Duration,
    /// Whether answers that set a cookie may be stored like others.
    pub(crate) set_cookie_shared: bool,
    /// The targeted fields that this cache listens to, in order (RFC 9213 §2.2).
    pub(crate) targets: Vec<HeaderName>,
}

/// The answer, as far as the decision to store needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// A lifetime that was given in code or by a rule, above what the fields say.
    pub(crate) ttl: Option<Duration>,
    /// Whether a rule says that it is to be stored whatever its fields say.
    pub(crate) forced: bool,
    /// Whether the request carried credentials.
    pub(crate) credentials: bool,
    /// The time of day when the head arrived.
    pub(crate) arrived: SystemTime,
    /// How long the origin took to answer.
    pub(crate) delay: Duration,
}

/// Decides whether an answer to a GET may be stored, and on which terms (RFC 9111 §3).
///
/// # Errors
///
/// The reason why not, for events and tests.
pub(crate) fn terms(answer: &Answer<'_>, rules: &Rules) -> Result<Terms, &'static str> {
    let (mut control, by_target) = control_of(answer.headers, rules);
    if answer.forced {
        control = CacheControl {
            public: control.public,
            ..CacheControl::default()
        };
    }
    forbidden(answer, &control, rules)?;

    // RFC 9111 §3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization
    // header field .. unless the response contains .. must-revalidate, public, s-maxage."
    let for_everyone = control.is_for_everyone();
    if answer.credentials && !for_everyone {
        return Err("credentials");
    }

    let explicit = answer.ttl.or_else(|| {
        explicit_lifetime(answer.headers, &control, !by_target, answer.arrived)
            .filter(|_| !answer.forced)
    });
    let lifetime = match explicit {
        Some(lifetime) => lifetime,
        None => guessed_lifetime(answer, &control, rules)?,
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
    // What says nothing of its life, and is given none, is not served unasked for an operator's window either.
    let lives = explicit.is_some() || !lifetime.is_zero();
    let revalidated = match lives {
        true => rules.stale_while_revalidate,
        false => Duration::ZERO,
    };
    let terms = Terms {
        lifetime,
        ttl: answer.ttl,
        initial_age: initial_age(answer.headers, answer.arrived, answer.delay),
        always_validate: control.no_cache,
        stale_while_revalidate: stale(control.stale_while_revalidate, revalidated),
        stale_if_error: stale(control.stale_if_error, rules.stale_if_error),
        stale_if_disconnected: stale(None, rules.stale_if_disconnected),
        may_be_stale,
        for_everyone,
    };
    let lives = lives
        || control
            .stale_while_revalidate
            .or(control.stale_if_error)
            .is_some();
    if worth_keeping(&terms, lives, answer.headers) {
        Ok(terms)
    } else {
        Err("no lifetime")
    }
}

/// The directives that count for this cache, and whether they come from a field that is targeted at it. RFC
/// 9213 §2.2: "If a response contains a targeted field .. the cache MUST use that field [and] ignore the
/// Cache-Control and Expires header fields".
pub(crate) fn control_of(headers: &HeaderMap, rules: &Rules) -> (CacheControl, bool) {
    match targeted(headers, &rules.targets) {
        Some(control) => (control, true),
        None => (CacheControl::of_response(headers), false),
    }
}

/// Whether an answer says how long it is fresh, in its fields or in code.
pub(crate) fn says_its_lifetime(answer: &Answer<'_>, rules: &Rules) -> bool {
    let (control, by_target) = control_of(answer.headers, rules);
    answer.ttl.is_some()
        || explicit_lifetime(answer.headers, &control, !by_target, answer.arrived).is_some()
}

/// RFC 9111 §3: what no lifetime can make storable.
fn forbidden(
    answer: &Answer<'_>,
    control: &CacheControl,
    rules: &Rules,
) -> Result<(), &'static str> {
    let status = answer.status;
    // "the response status code is final", and 304 belongs to a stored answer, not into the store.
    if status.is_informational() || status == StatusCode::NOT_MODIFIED {
        return Err("status");
    }
    // "if the response status code is 206 .., the cache understands the response status code": a part that
    // says which part it is.
    if status == StatusCode::PARTIAL_CONTENT && Part::of(answer.headers).is_none() {
        return Err("partial");
    }
    // What a server says of ranges concerns one request; and RFC 6585 §4: "Responses with the 429 status
    // code MUST NOT be stored by a cache."
    if status == StatusCode::RANGE_NOT_SATISFIABLE || status == StatusCode::TOO_MANY_REQUESTS {
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
    // (RFC 9111 §7.3 lets it be stored; `set_cookie_shared` is for those who want just that.)
    if answer.headers.contains_key(SET_COOKIE) && !rules.set_cookie_shared {
        return Err("set-cookie");
    }
    // §4.1: "A stored response with a Vary header field value containing a member "*" always fails to
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

/// The lifetime of an answer that does not say its own (RFC 9111 §4.2.2).
fn guessed_lifetime(
    answer: &Answer<'_>,
    control: &CacheControl,
    rules: &Rules,
) -> Result<Duration, &'static str> {
    let status = answer.status;
    // "When .. a response [is] not defined as heuristically cacheable .. and not explicitly marked as
    // cacheable (e.g., with a public response directive)": no guess.
    if !heuristically_cacheable(status) && !control.public {
        return Err("status");
    }
    // A redirection that says nothing of its life often depends on the scheme or on a forwarding field,
    // neither of which is in the key: guessed at, it would send clients round in circles.
    if status.is_redirection() && !control.public {
        return Err("no lifetime");
    }
    // A cookie whose answer does not say that it may be kept is not kept on a guess.
    if answer.headers.contains_key(SET_COOKIE) {
        return Err("set-cookie");
    }
    if matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE) && !rules.ttl_negative.is_zero() {
        return Ok(rules.ttl_negative);
    }
    let guess = rules
        .heuristic
        .then(|| heuristic_lifetime(answer.headers, answer.arrived));
    Ok(guess.flatten().unwrap_or(rules.ttl_default))
}

/// What would never be served again is not kept: no lifetime, nothing to ask the origin with, and no
/// leave to serve it stale.
fn worth_keeping(terms: &Terms, lives: bool, headers: &HeaderMap) -> bool {
    let windows = [
        terms.stale_while_revalidate,
        terms.stale_if_error,
        terms.stale_if_disconnected,
    ];
    let window = windows.into_iter().max().unwrap_or_default();
    (lives && terms.lifetime.saturating_add(window) > terms.initial_age)
        || headers.contains_key(http::header::ETAG)
        || headers.contains_key(http::header::LAST_MODIFIED)
}

/// RFC 9110 §15.1.
fn heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The codes of RFC 9110 §15 whose caching needs nothing beyond what this cache does.
fn understood(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=204 | 206 | 300..=303 | 307 | 308 | 400..=415 | 417 | 421 | 422 | 426 | 500..=505)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{CACHE_CONTROL, PRAGMA};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::terms::{Failure, Freshness};

    /// Thu, 01 Jan 2026 00:00:00 GMT.
    const NOW_SECS: u64 = 1_767_225_600;
    const NOW: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const MINUTE_AGO: &str = "Wed, 31 Dec 2025 23:59:00 GMT";
    const IN_A_MINUTE: &str = "Thu, 01 Jan 2026 00:01:00 GMT";

    type Fields<'a> = &'a [(&'static str, &'a str)];

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECS)
    }

    fn headers(fields: Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn rules() -> Rules {
        Rules {
            ttl_default: Duration::ZERO,
            ttl_negative: Duration::ZERO,
            heuristic: false,
            stale_if_disconnected: Duration::ZERO,
            set_cookie_shared: false,
            targets: vec![HeaderName::from_static("cdn-cache-control")],
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        }
    }

    /// An answer that came at once, at [`NOW`], to a request without credentials.
    fn plain(status: u16, headers: &HeaderMap) -> Answer<'_> {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            ttl: None,
            forced: false,
            credentials: false,
            arrived: now(),
            delay: Duration::ZERO,
        }
    }

    /// The terms of such an answer.
    fn judged(status: u16, fields: Fields<'_>) -> Result<Terms, &'static str> {
        answered(status, fields, |_| {})
    }

    fn answered(
        status: u16,
        fields: Fields<'_>,
        change: impl FnOnce(&mut Answer<'_>),
    ) -> Result<Terms, &'static str> {
        let headers = headers(fields);
        let mut answer = plain(status, &headers);
        change(&mut answer);
        terms(&answer, &rules())
    }

    fn request(directives: &str) -> CacheControl {
        let value = HeaderValue::from_str(directives).unwrap();
        CacheControl::of_request(&HeaderMap::from_iter([(CACHE_CONTROL, value)]))
    }

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// RFC 9111 §3: "the response contains at least one of the following: a public response directive;
    /// .. an Expires header field; a max-age response directive; .. s-maxage; .. or a status code that
    /// is defined as heuristically cacheable".
    #[test]
    fn any_final_status_with_a_lifetime_is_stored_but_for_those_that_must_not() {
        let minute = &[("cache-control", "max-age=60")][..];
        for status in [
            200, 201, 203, 204, 299, 300, 301, 302, 307, 308, 400, 404, 405, 410, 414, 418, 451,
            500, 501, 503, 599, 799,
        ] {
            assert_eq!(
                judged(status, minute).map(|terms| terms.lifetime),
                Ok(secs(60)),
                "{status}"
            );
        }
        for (status, why) in [
            (100, "status"),
            (103, "status"),
            // A part is not combined with others here (§3.4 is an option).
            (206, "partial"),
            // §3.2: it updates a stored answer, and is none itself.
            (304, "status"),
            // RFC 6585 §4: "Responses with the 429 status code MUST NOT be stored by a cache."
            (429, "status"),
        ] {
            assert_eq!(judged(status, minute), Err(why), "{status}");
        }
    }

    /// RFC 9111 §5.2.2 and §3, directive by directive.
    #[test]
    fn what_forbids_storing() {
        let minute = ("cache-control", "max-age=60");
        for (fields, expected) in [
            (&[minute][..], Ok(secs(60))),
            // §5.2.2.5.
            (&[minute, ("cache-control", "no-store")], Err("no-store")),
            (&[minute, ("cache-control", "No-Store")], Err("no-store")),
            // §5.2.2.7, in both forms.
            (&[minute, ("cache-control", "private")], Err("private")),
            (
                &[minute, ("cache-control", "private=\"x-a\"")],
                Err("private"),
            ),
            (
                &[minute, ("cache-control", "public, private")],
                Err("private"),
            ),
            // Cookies are one person's, whatever the other fields say.
            (&[minute, ("set-cookie", "a=1")], Err("set-cookie")),
            (
                &[
                    ("cache-control", "public, s-maxage=60"),
                    ("set-cookie", "a=1"),
                ],
                Err("set-cookie"),
            ),
            // §4.1: "a member '*' always fails to match".
            (&[minute, ("vary", "*")], Err("vary")),
            (&[minute, ("vary", "accept, *")], Err("vary")),
            (&[minute, ("vary", "accept"), ("vary", "*")], Err("vary")),
            (&[minute, ("vary", "accept")], Ok(secs(60))),
        ] {
            let lifetime = judged(200, fields).map(|terms| terms.lifetime);
            assert_eq!(lifetime, expected, "{fields:?}");
        }
    }

    /// RFC 9111 §5.2.2.3: "a cache that supports .. must-understand .. SHOULD ignore the no-store
    /// response directive if it understands and implements the status code's caching requirements".
    #[test]
    fn must_understand_counts_above_no_store() {
        let fields = &[("cache-control", "must-understand, no-store, max-age=60")][..];
        assert_eq!(
            judged(200, fields).map(|terms| terms.lifetime),
            Ok(secs(60))
        );
        assert_eq!(
            judged(404, fields).map(|terms| terms.lifetime),
            Ok(secs(60))
        );
        for status in [299, 418, 599] {
            assert_eq!(judged(status, fields), Err("must-understand"), "{status}");
        }
        let private = &[("cache-control", "must-understand, private, max-age=60")][..];
        assert_eq!(judged(200, private), Err("private"));
    }

    /// RFC 9111 §3.5: "unless the response contains a response directive that allows it to be stored by
    /// a shared cache .. must-revalidate, public, and s-maxage".
    #[test]
    fn what_was_asked_for_with_credentials_is_stored_only_if_it_is_for_everyone() {
        for (line, expected) in [
            ("max-age=60", Err("credentials")),
            ("max-age=60, proxy-revalidate", Err("credentials")),
            ("max-age=60, public", Ok(true)),
            ("max-age=60, must-revalidate", Ok(true)),
            ("s-maxage=60", Ok(true)),
        ] {
            let fields = &[("cache-control", line)][..];
            let with = answered(200, fields, |answer| answer.credentials = true);
            assert_eq!(with.map(|terms| terms.for_everyone), expected, "{line}");
            let without = judged(200, fields).unwrap();
            assert_eq!(without.for_everyone, expected.is_ok(), "{line}");
        }
        // What the handler says in code is about time, not about people.
        let in_code = answered(200, &[], |answer| {
            answer.credentials = true;
            answer.ttl = Some(secs(60));
        });
        assert_eq!(in_code, Err("credentials"));
    }

    /// RFC 9111 §4.2.1: s-maxage, then max-age, then Expires minus Date.
    #[test]
    fn the_lifetime_comes_from_the_strongest_that_says_one() {
        for (fields, lifetime) in [
            (
                &[
                    ("cache-control", "s-maxage=1, max-age=2"),
                    ("expires", IN_A_MINUTE),
                ][..],
                1,
            ),
            (
                &[("cache-control", "max-age=2"), ("expires", IN_A_MINUTE)],
                2,
            ),
            (&[("expires", IN_A_MINUTE), ("date", NOW)], 60),
            // Counted from Date, not from our own clock.
            (&[("expires", IN_A_MINUTE), ("date", MINUTE_AGO)], 120),
            // Without Date from the arrival; a Date that is none counts as none.
            (&[("expires", IN_A_MINUTE)], 60),
            (&[("expires", IN_A_MINUTE), ("date", "today")], 60),
            // RFC 9110 §5.6.7: the two obsolete forms of dates.
            (&[("expires", "Thursday, 01-Jan-26 00:01:00 GMT")], 60),
            (&[("expires", "Thu Jan  1 00:01:00 2026")], 60),
            // "the most restrictive directive should be honored", over lines as well.
            (
                &[
                    ("cache-control", "max-age=9"),
                    ("cache-control", "max-age=5"),
                ],
                5,
            ),
        ] {
            assert_eq!(
                judged(200, fields).unwrap().lifetime,
                secs(lifetime),
                "{fields:?}"
            );
        }
    }

    /// RFC 9111 §5.3: "MUST interpret invalid date formats, especially the value \"0\", as representing
    /// a time in the past (i.e., \"already expired\")".
    #[test]
    fn an_expires_that_is_no_date_has_expired() {
        for expires in ["0", "-1", "", "soon", MINUTE_AGO, NOW] {
            let fields = &[("expires", expires), ("date", NOW), ("etag", "\"a\"")][..];
            assert_eq!(
                judged(200, fields).unwrap().lifetime,
                Duration::ZERO,
                "{expires}"
            );
            // It counts as an explicit lifetime: the default does not come in.
            assert_eq!(judged(200, &fields[..2]), Err("no lifetime"), "{expires}");
        }
        let twice = &[
            ("expires", IN_A_MINUTE),
            ("expires", NOW),
            ("etag", "\"a\""),
        ][..];
        assert_eq!(judged(200, twice).unwrap().lifetime, Duration::ZERO);
    }

    #[test]
    fn what_the_handler_says_in_code_counts_above_the_fields() {
        let fields = &[("cache-control", "s-maxage=1, max-age=2"), ("expires", NOW)][..];
        let minute = |answer: &mut Answer<'_>| answer.ttl = Some(secs(60));
        let terms = answered(200, fields, minute).unwrap();
        assert_eq!((terms.lifetime, terms.ttl), (secs(60), Some(secs(60))));
        assert_eq!(answered(299, &[], minute).unwrap().lifetime, secs(60));
        for (line, why) in [("no-store", "no-store"), ("private", "private")] {
            assert_eq!(answered(200, &[("cache-control", line)], minute), Err(why));
        }
        assert_eq!(answered(429, &[], minute), Err("status"));
    }

    /// RFC 9111 §4.2.2: "a cache MUST NOT use heuristics to determine freshness when an explicit
    /// expiration time is present", nor for other codes "unless .. explicitly marked as cacheable
    /// (e.g., by using the public response directive)".
    #[test]
    fn the_default_lifetime_is_for_silent_answers_of_cacheable_status() {
        let rules = Rules {
            ttl_default: secs(30),
            ..rules()
        };
        let lifetime = |status: u16, fields: Fields<'_>| {
            let headers = headers(fields);
            let answer = plain(status, &headers);
            terms(&answer, &rules).map(|terms| terms.lifetime)
        };
        for status in [200, 203, 204, 404, 405, 410, 414, 501] {
            assert_eq!(lifetime(status, &[]), Ok(secs(30)), "{status}");
        }
        // Cacheable, but what they say often depends on what is not in the key.
        for status in [300, 301, 308] {
            assert_eq!(lifetime(status, &[]), Err("no lifetime"), "{status}");
            let public = lifetime(status, &[("cache-control", "public")]);
            assert_eq!(public, Ok(secs(30)), "{status}");
        }
        for status in [201, 202, 302, 303, 307, 400, 401, 403, 500, 502, 503, 299] {
            assert_eq!(lifetime(status, &[]), Err("status"), "{status}");
            let public = lifetime(status, &[("cache-control", "public")]);
            assert_eq!(public, Ok(secs(30)), "{status}");
        }
        assert_eq!(
            lifetime(200, &[("cache-control", "max-age=0")]),
            Err("no lifetime")
        );
        assert_eq!(lifetime(200, &[("expires", NOW)]), Err("no lifetime"));
    }

    /// The windows of the operator's are for what says how long it is fresh, or is given a life by its rules.
    #[test]
    fn what_says_nothing_of_its_life_is_not_kept_for_an_operators_windows() {
        let minute = secs(60);
        let windows = |ttl_default| Rules {
            stale_while_revalidate: minute,
            stale_if_error: minute,
            stale_if_disconnected: minute,
            ttl_default,
            ..rules()
        };
        let judged = |fields: &[(&'static str, &'static str)], rules: &Rules| {
            let headers = headers(fields);
            let answer = plain(200, &headers);
            terms(&answer, rules).map(|terms| terms.stale_while_revalidate)
        };
        let none = windows(Duration::ZERO);
        assert_eq!(judged(&[], &none), Err("no lifetime"));
        assert_eq!(judged(&[("etag", "\"a\"")], &none), Ok(Duration::ZERO));
        let fresh = [("cache-control", "max-age=1")];
        assert_eq!(judged(&fresh, &none), Ok(minute));
        assert_eq!(judged(&[], &windows(secs(1))), Ok(minute));
    }

    #[test]
    fn what_could_never_be_served_is_not_kept() {
        assert_eq!(judged(200, &[]), Err("no lifetime"));
        for fields in [
            &[("etag", "\"a\"")][..],
            &[("last-modified", MINUTE_AGO)],
            &[("cache-control", "max-age=0, stale-while-revalidate=1")],
            &[("cache-control", "max-age=0, stale-if-error=1")],
            &[("cache-control", "max-age=60"), ("age", "59")],
        ] {
            assert!(judged(200, fields).is_ok(), "{fields:?}");
        }
        for fields in [
            &[("cache-control", "max-age=60"), ("age", "60")][..],
            &[("cache-control", "max-age=60"), ("date", MINUTE_AGO)],
            &[(
                "cache-control",
                "max-age=0, stale-while-revalidate=1, must-revalidate",
            )],
        ] {
            assert_eq!(judged(200, fields), Err("no lifetime"), "{fields:?}");
        }
    }

    /// RFC 9111 §4.2.3: apparent_age = max(0, response_time - date_value); corrected_age_value =
    /// age_value + response_delay; corrected_initial_age = max(apparent_age, corrected_age_value).
    #[test]
    fn the_age_at_arrival_is_the_larger_of_what_the_clocks_and_the_caches_say() {
        for (fields, delay, age) in [
            (&[][..], 0, 0),
            (&[], 7, 7),
            (&[("age", "30")], 7, 37),
            (&[("date", MINUTE_AGO)], 0, 60),
            (&[("date", MINUTE_AGO), ("age", "30")], 7, 60),
            (&[("date", MINUTE_AGO), ("age", "59")], 7, 66),
            // A clock that runs ahead makes nothing younger than new.
            (&[("date", IN_A_MINUTE)], 0, 0),
            (&[("date", IN_A_MINUTE), ("age", "30")], 0, 30),
            // §5.1: of several the first counts, and what is no number counts as absent.
            (&[("age", "30, 50")], 0, 30),
            (&[("age", "30"), ("age", "50")], 0, 30),
            (&[("age", " 30 ")], 0, 30),
            (&[("age", "-30")], 0, 0),
            (&[("age", "+30")], 0, 0),
            (&[("age", "3.5")], 0, 0),
            (&[("age", "old")], 0, 0),
            (&[("age", "")], 0, 0),
            (&[("age", ",30")], 0, 0),
            // §1.2.2: what is too large is 2^31.
            (&[("age", "99999999999999999999999")], 0, 1 << 31),
            (&[("age", "18446744073709551615")], 9, (1 << 31) + 9),
        ] {
            let mut all = vec![("cache-control", "max-age=60"), ("etag", "\"a\"")];
            all.extend_from_slice(fields);
            let terms = answered(200, &all, |answer| answer.delay = secs(delay)).unwrap();
            assert_eq!(terms.initial_age, secs(age), "{fields:?} after {delay} s");
        }
    }

    /// RFC 9111 §4.2: "response_is_fresh = (freshness_lifetime > current_age)".
    #[test]
    fn an_answer_is_fresh_until_its_age_reaches_its_lifetime() {
        let terms = judged(200, &[("cache-control", "max-age=60")]).unwrap();
        let none = CacheControl::default();
        assert_eq!(terms.freshness(Duration::ZERO, &none), Freshness::Fresh);
        let last = secs(60) - Duration::from_nanos(1);
        assert_eq!(terms.freshness(last, &none), Freshness::Fresh);
        assert_eq!(terms.freshness(secs(60), &none), Freshness::Stale);
    }

    /// RFC 9111 §5.2.1, on an answer that lives for a minute.
    #[test]
    fn the_client_may_ask_for_less_or_accept_more() {
        use Freshness::{Fresh, Stale, StaleAccepted, Unwanted};
        let terms = judged(200, &[("cache-control", "max-age=60")]).unwrap();
        for (directives, age, expected) in [
            ("", 59, Fresh),
            ("no-cache", 0, Unwanted),
            // §5.2.1.1.
            ("max-age=10", 10, Fresh),
            ("max-age=10", 11, Unwanted),
            ("max-age=0", 0, Fresh),
            ("max-age=0", 1, Unwanted),
            ("max-age=junk", 1, Unwanted),
            ("max-age=100", 60, Stale),
            // §5.2.1.3.
            ("min-fresh=10", 50, Fresh),
            ("min-fresh=10", 51, Unwanted),
            ("min-fresh=0", 61, Unwanted),
            // §5.2.1.2.
            ("max-stale=10", 60, StaleAccepted),
            ("max-stale=10", 70, StaleAccepted),
            ("max-stale=10", 71, Stale),
            ("max-stale", 1_000_000, StaleAccepted),
            ("max-stale=junk", 61, Stale),
            // Both: what is granted counts from the age asked for.
            ("max-age=10, max-stale=5", 15, Fresh),
            ("max-age=10, max-stale=5", 16, Unwanted),
            ("max-age=10, max-stale", 1_000, StaleAccepted),
            ("max-age=100, max-stale=5", 64, StaleAccepted),
            ("max-age=100, max-stale=5", 66, Stale),
        ] {
            let found = terms.freshness(secs(age), &request(directives));
            assert_eq!(found, expected, "{directives} at {age}");
        }
        let pragma = HeaderMap::from_iter([(PRAGMA, HeaderValue::from_static("no-cache"))]);
        let pragma = CacheControl::of_request(&pragma);
        assert_eq!(terms.freshness(Duration::ZERO, &pragma), Unwanted);
    }

    /// RFC 9111 §4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit
    /// in-protocol directive (e.g., by a no-cache, must-revalidate, proxy-revalidate or s-maxage)".
    #[test]
    fn what_must_not_be_served_stale_is_not_whoever_asks() {
        let tag = ("etag", "\"a\"");
        for line in [
            "max-age=60, must-revalidate",
            "max-age=60, proxy-revalidate",
            "s-maxage=60",
            "max-age=60, must-revalidate, stale-while-revalidate=60, stale-if-error=60",
            "max-age=60, no-cache, stale-while-revalidate=60, stale-if-error=60",
        ] {
            let headers = headers(&[("cache-control", line), tag]);
            let answer = plain(200, &headers);
            let rules = Rules {
                stale_while_revalidate: secs(60),
                stale_if_error: secs(60),
                ..rules()
            };
            let terms = terms(&answer, &rules).unwrap();
            for directives in ["", "max-stale", "stale-if-error=60"] {
                let request = request(directives);
                let found = terms.freshness(secs(61), &request);
                assert_eq!(found, Freshness::Stale, "{line}; {directives}");
                assert!(
                    !terms.covers(Failure::Error, secs(61), request.stale_if_error),
                    "{line}; {directives}"
                );
            }
        }
    }

    /// RFC 9111 §5.2.2.4: no-cache "MUST NOT be used to satisfy any other request without forwarding it
    /// for validation and receiving a successful response".
    #[test]
    fn no_cache_is_stored_and_always_asked_about() {
        let fields = &[("cache-control", "max-age=60, no-cache"), ("etag", "\"a\"")][..];
        let terms = judged(200, fields).unwrap();
        for directives in ["", "max-stale", "only-if-cached"] {
            let found = terms.freshness(Duration::ZERO, &request(directives));
            assert_eq!(found, Freshness::Stale);
        }
        assert!(!terms.serves_others());
    }

    /// RFC 5861 §3 and §4: "after it becomes stale, up to the indicated number of seconds".
    #[test]
    fn the_windows_of_rfc_5861_begin_and_end_where_they_say() {
        let line = "max-age=60, stale-while-revalidate=30, stale-if-error=90";
        let terms = judged(200, &[("cache-control", line)]).unwrap();
        let none = CacheControl::default();
        let nano = Duration::from_nanos(1);
        for (age, expected) in [
            (secs(60) - nano, Freshness::Fresh),
            (secs(60), Freshness::StaleWhileRevalidate),
            (secs(90) - nano, Freshness::StaleWhileRevalidate),
            (secs(90), Freshness::Stale),
        ] {
            assert_eq!(terms.freshness(age, &none), expected, "{age:?}");
        }
        assert!(terms.covers(Failure::Error, secs(150) - nano, None));
        assert!(!terms.covers(Failure::Error, secs(150), None));
        // "the client does not wish to receive a stale response" (RFC 9111 §5.2.1.1).
        let young = request("max-age=3600");
        assert_eq!(terms.freshness(secs(61), &young), Freshness::Stale);
        assert_eq!(
            terms.freshness(secs(61), &request("min-fresh=0")),
            Freshness::Unwanted
        );
    }

    /// RFC 5861 §4: the directive is one of requests as well.
    #[test]
    fn the_client_may_accept_more_staleness_when_the_origin_fails() {
        let terms = judged(200, &[("cache-control", "max-age=60")]).unwrap();
        let asking = request("stale-if-error=30");
        assert!(terms.covers(Failure::Error, secs(89), asking.stale_if_error));
        assert!(!terms.covers(Failure::Error, secs(90), asking.stale_if_error));
        assert!(!terms.covers(Failure::Error, secs(61), None));
    }

    #[test]
    fn an_s_maxage_beside_a_window_of_its_own_keeps_the_window() {
        let line = "s-maxage=60, stale-while-revalidate=30";
        let terms = judged(200, &[("cache-control", line)]).unwrap();
        let none = CacheControl::default();
        assert_eq!(
            terms.freshness(secs(61), &none),
            Freshness::StaleWhileRevalidate
        );
        assert_eq!(
            terms.freshness(secs(61), &request("max-stale")),
            Freshness::StaleWhileRevalidate
        );
    }

    /// Field lines as a hostile or broken origin may send them: mostly near what is looked for.
    fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
        let names = [
            "cache-control",
            "expires",
            "date",
            "age",
            "vary",
            "etag",
            "set-cookie",
        ];
        let value = prop_oneof![
            prop::collection::vec(
                any::<u8>().prop_filter("a field", |b| *b >= 0x20 && *b != 0x7f),
                0..40
            ),
            "(max-age|s-maxage|min-fresh|max-stale|stale-if-error|stale-while-revalidate|public)\
             (=\"?[0-9]{0,25}\"?)?(, *(no-cache|must-revalidate|max-age=[0-9]{1,12}))?"
                .prop_map(String::into_bytes),
            "[0-9]{0,25}".prop_map(String::into_bytes),
            any::<u32>().prop_map(|secs| {
                let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(secs));
                httpdate::fmt_http_date(time).into_bytes()
            }),
        ];
        (prop::sample::select(names.to_vec()), value).prop_map(|(name, value)| {
            let value = HeaderValue::from_bytes(&value).unwrap();
            (HeaderName::from_static(name), value)
        })
    }

    fn map(fields: Vec<(HeaderName, HeaderValue)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    proptest! {
        /// No field makes the policy panic, and time never heals: once an answer is not fresh it never
        /// is again, and each further step is a step down.
        #[test]
        fn whatever_the_fields_an_answer_only_gets_older(
            fields in prop::collection::vec(field(), 0..6),
            asked in prop::collection::vec(field(), 0..3),
            status in 100u16..600,
            ttl in prop::option::of(any::<u64>()),
            delay in any::<u64>(),
            mut ages in prop::collection::vec(any::<u64>(), 2..8),
            near in prop::collection::vec(0u64..200, 2..8),
            (swr, sie) in (0u64..100, 0u64..100),
        ) {
            let (headers, asked) = (map(fields), CacheControl::of_request(&map(asked)));
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: &headers,
                ttl: ttl.map(Duration::from_secs),
                forced: false,
            credentials: false,
                arrived: now(),
                delay: Duration::from_secs(delay),
            };
            let rules = Rules {
                stale_while_revalidate: Duration::from_secs(swr),
                stale_if_error: Duration::from_secs(sie),
                ..rules()
            };
            if let Ok(terms) = terms(&answer, &rules) {
                prop_assert!(!headers.contains_key(SET_COOKIE));
                ages.extend(near);
                ages.sort_unstable();
                let rank = |age: &u64| {
                    let age = terms.initial_age.saturating_add(Duration::from_secs(*age));
                    let covered = terms.covers(Failure::Error, age, asked.stale_if_error);
                    let rank = match terms.freshness(age, &asked) {
                        Freshness::Fresh => 0,
                        Freshness::StaleAccepted => 1,
                        Freshness::StaleWhileRevalidate => 2,
                        Freshness::Unwanted | Freshness::Stale => 3,
                    };
                    (rank, !covered)
                };
                let ranks: Vec<_> = ages.iter().map(rank).collect();
                for pair in ranks.windows(2) {
                    prop_assert!(pair[0].0 <= pair[1].0, "{ranks:?} at {ages:?}");
                    prop_assert!(pair[0].1 <= pair[1].1, "{ranks:?} at {ages:?}");
                }
                if terms.freshness(Duration::MAX, &asked) == Freshness::Fresh {
                    prop_assert!(false, "nothing is fresh for ever");
                }
            }
        }
    }
}
