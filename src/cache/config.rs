//! What can be set about the cache.

use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;
use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::cache::asked::Credentials;
use crate::cache::fields::FieldRules;
use crate::cache::plan::{Plan, check_parameters};
use crate::cache::policy::Rules;
use crate::cache::query::QueryRules;
use crate::cache::rule::CacheRule;
use crate::cache::status::StatusDetail;
use crate::cache::vary::VaryRules;
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
    /// Whether an answer that does not say how long it is fresh, but when it was last modified, is fresh for a
    /// tenth of the time since then, and at most a day (RFC 9111 §4.2.2). Off by default: guessing serves
    /// what was just changed.
    pub heuristic_freshness: bool,
    /// How long a 404 or 410 is fresh that does not say so itself; zero, the default, leaves them to
    /// `ttl_default`. At most a year.
    #[serde(rename = "ttl_negative_ms", with = "crate::config_time::millis")]
    pub ttl_negative: Duration,
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
    /// How long past its life an answer may stand in when there is no other at all, because the service
    /// failed without one or was not called, its circuit being open (RFC 9111 §4.2.4, "disconnected"). At most
    /// 30 days.
    #[serde(
        rename = "stale_if_disconnected_ms",
        with = "crate::config_time::millis"
    )]
    pub stale_if_disconnected: Duration,
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
    /// Parameters of the query that do not tell answers apart, such as `utm_*` and `fbclid`; a `*` at the end
    /// stands for any rest. The service still sees them, so name none that it reads.
    pub query_ignored: Vec<String>,
    /// If there are any, only these parameters of the query tell answers apart. At most 64, like the ignored
    /// ones.
    pub query_only: Vec<String>,
    /// Whether `?a=1&b=2` and `?b=2&a=1` are the same.
    pub query_sorted: bool,
    /// Whether `Accept-Language: en, de` and `de, en` ask for the same, where an answer varies by it, and
    /// likewise `Accept`. Off by default, for services that take the first one.
    pub any_preference_order: bool,
    /// Request fields that identify the caller, as `Authorization` does: what is asked with one of them
    /// is stored, and served from the store, only if the answer is `public` (or has `s-maxage` or
    /// `must-revalidate`).
    pub credential_headers: Vec<String>,
    /// Whether an answer that sets a cookie may be stored like any other, and its cookie be sent to everybody.
    /// RFC 9111 §7.3 allows it and leaves it to services to say `private` where they mean it. Off by default.
    pub set_cookie_shared: bool,
    /// Whether what is stored under the target of a POST, PUT, PATCH or DELETE is out of date even after a
    /// server error, which may come after a commit, and a timeout. RFC 9111 §4.4 asks for it only after
    /// success.
    pub error_invalidates: bool,
    /// The fields that speak to this cache and to no other, the first of which takes the place of
    /// `Cache-Control` and `Expires` (RFC 9213).
    pub targeted_fields: Vec<String>,
    /// Response fields that list tags, separated by spaces or commas.
    pub tag_fields: Vec<String>,
    /// Whether clients are spared the tag fields.
    pub tag_fields_stripped: bool,
    /// Bodies longer than this are kept compressed (LZ4) if that saves a fifth: less memory, and a hit costs
    /// unpacking. Zero, the default, keeps all as they are.
    pub compress_above_bytes: u64,
    /// Whether an answer is fetched to its end for others when the client it was for leaves.
    pub finish_when_left: bool,
    /// What answers say of what the cache did. The figures of single routes are read from it: with
    /// [`Off`](StatusDetail::Off) there are no hits and misses by route, and no `keep_http_requests_cacheable_total`.
    /// Those of the cache as a whole, and its alerts, do not depend on it.
    pub cache_status: StatusDetail,
    /// What is said of single routes: at most 256 rules.
    pub rules: Vec<CacheRule>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            capacity_bytes: 128 << 20,
            body_bytes_max: 4 << 20,
            heuristic_freshness: false,
            ttl_negative: Duration::ZERO,
            ttl_default: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            stale_if_disconnected: Duration::ZERO,
            flight_wait: Duration::from_secs(5),
            pass_ttl: Duration::from_secs(10),
            key_authority: true,
            variants_max: 16,
            query_ignored: Vec::new(),
            query_only: Vec::new(),
            query_sorted: false,
            any_preference_order: false,
            credential_headers: vec!["cookie".to_owned(), "x-api-key".to_owned()],
            set_cookie_shared: false,
            error_invalidates: true,
            targeted_fields: vec!["cdn-cache-control".to_owned()],
            tag_fields: vec!["surrogate-key".to_owned(), "cache-tag".to_owned()],
            tag_fields_stripped: false,
            compress_above_bytes: 0,
            finish_when_left: false,
            cache_status: StatusDetail::Outcome,
            rules: Vec::new(),
        }
    }
}

impl CacheConfig {
    /// What RFC 9111 allows a shared cache, no less: lifetimes are guessed from `Last-Modified`, only
    /// `Authorization` identifies a caller, cookies keep nothing out of the store, errors invalidate nothing,
    /// and what is stored stands in for a service that is gone.
    ///
    /// For a gateway before services that say `private` or `no-store` where they mean it. **Before any other
    /// service this shows one visitor's page to the next**: the defaults do not.
    #[must_use]
    pub fn rfc9111() -> Self {
        Self {
            heuristic_freshness: true,
            stale_if_disconnected: DAY,
            any_preference_order: true,
            credential_headers: Vec::new(),
            set_cookie_shared: true,
            error_invalidates: false,
            ..Self::default()
        }
    }

    /// Whether keys are made of less than the path and query as they were sent. Then the key that was written
    /// down for a purge may be no entry's: see
    /// [`Invalidator::for_rewritten_keys`](crate::invalidation::Invalidator::for_rewritten_keys).
    #[must_use]
    pub fn rewrites_keys(&self) -> bool {
        self.query_rules().rewrite() || self.rules.iter().any(|rule| !rule.query_only.is_empty())
    }

    /// Whether answers say what the cache did.
    pub(crate) fn tells(&self) -> bool {
        self.enabled && self.cache_status != StatusDetail::Off
    }

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
        faults.within_time(field("ttl_negative_ms"), self.ttl_negative, zero..=year);
        faults.within_time(field("stale_if_error_ms"), self.stale_if_error, zero..=day);
        let month = DAY * 30;
        faults.within_time(
            field("stale_if_disconnected_ms"),
            self.stale_if_disconnected,
            zero..=month,
        );
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(60));
        faults.within_time(field("flight_wait_ms"), self.flight_wait, least..=most);
        let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
        faults.within_time(field("pass_ttl_ms"), self.pass_ttl, least..=most);
        faults.within(field("variants_max"), self.variants_max, 1..=64, "answers");
        self.check_lists(room, faults);
    }

    fn check_lists(&self, room: &str, faults: &mut Faults) {
        let field = |name: &str| format!("{room}.{name}");
        for (list, names) in [
            ("credential_headers", &self.credential_headers),
            ("targeted_fields", &self.targeted_fields),
            ("tag_fields", &self.tag_fields),
        ] {
            faults.within(field(list), names.len(), 0..=64, "fields");
            for name in names {
                if HeaderName::from_bytes(name.as_bytes()).is_err() {
                    faults.add(field(list), name, "must be names of header fields");
                }
            }
        }
        check_parameters(&self.query_ignored, &field("query_ignored"), faults);
        check_parameters(&self.query_only, &field("query_only"), faults);
        faults.within(field("rules"), self.rules.len(), 0..=256, "rules");
        Plan::compile(&self.rules, &self.query_rules(), &field("rules"), faults);
    }

    /// The part that the policy needs, checked before.
    pub(crate) fn policy(&self) -> Rules {
        Rules {
            ttl_default: self.ttl_default,
            ttl_negative: self.ttl_negative,
            heuristic: self.heuristic_freshness,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            stale_if_disconnected: self.stale_if_disconnected,
            set_cookie_shared: self.set_cookie_shared,
            targets: names(&self.targeted_fields),
        }
    }

    /// A number for the settings that decide what is stored and which request it is for, the same in every
    /// process that has the same.
    pub(crate) fn fingerprint(&self) -> u64 {
        let keys = (
            self.key_authority,
            (&self.query_ignored, &self.query_only, self.query_sorted),
        );
        let sharing = (&self.credential_headers, self.set_cookie_shared);
        let sharing = (
            sharing,
            &self.targeted_fields,
            &self.tag_fields,
            &self.rules,
        );
        FixedState::with_seed(0x6b65_7973).hash_one(format!("{keys:?}{sharing:?}"))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new(&names(&self.credential_headers))
    }

    pub(crate) fn query_rules(&self) -> QueryRules {
        QueryRules {
            sorted: self.query_sorted,
            only: self.query_only.clone(),
            ignored: self.query_ignored.clone(),
        }
    }

    pub(crate) fn field_rules(&self) -> FieldRules {
        let stripped = if self.tag_fields_stripped {
            names(&self.tag_fields)
        } else {
            Vec::new()
        };
        FieldRules {
            status: self.cache_status != StatusDetail::Off,
            stripped,
        }
    }

    pub(crate) const fn vary_rules(&self) -> VaryRules {
        VaryRules {
            any_preference_order: self.any_preference_order,
        }
    }
}

/// Names that were checked before.
pub(crate) fn names(texts: &[String]) -> Vec<HeaderName> {
    let names = texts
        .iter()
        .map(|text| HeaderName::from_bytes(text.as_bytes()));
    names.filter_map(Result::ok).collect()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
