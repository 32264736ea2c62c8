//! The rules of all routes, made ready: matched by one look, nothing left that can be refused.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::cache::query::QueryRules;
use crate::cache::rule::{Browser, CacheRule, Store};
use crate::cache::say::{CacheTags, TAG_BYTES_MAX, TAGS_MAX};
use crate::error::Faults;

/// One route's rule, ready.
#[derive(Debug)]
pub(crate) struct RoutePlan {
    store: Store,
    ttl: Option<Duration>,
    tags: CacheTags,
    browser: Option<HeaderValue>,
    query: Option<QueryRules>,
}

/// All of them.
pub(crate) struct Plan {
    matcher: matchit::Router<Arc<RoutePlan>>,
    is_empty: bool,
    /// Whether any of them has a say in the key, so that the route must be known before it is made.
    makes_keys: bool,
}

impl RoutePlan {
    pub(crate) fn is_never_stored(&self) -> bool {
        self.store == Store::Never
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.store == Store::Force
    }

    pub(crate) const fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    pub(crate) const fn tags(&self) -> &CacheTags {
        &self.tags
    }

    /// What clients are told of an answer of this status. A file that is missing now may be there in a
    /// minute: only a success is immutable.
    pub(crate) fn browser(&self, status: StatusCode) -> Option<&HeaderValue> {
        let said = self.browser.as_ref();
        said.filter(|said| status.is_success() || **said != IMMUTABLE)
    }

    pub(crate) const fn query(&self) -> Option<&QueryRules> {
        self.query.as_ref()
    }
}

impl Plan {
    /// Reads the rules, beside what is done to all `query`s; what is wrong with one is noted under `field`.
    pub(crate) fn compile(
        rules: &[CacheRule],
        query: &QueryRules,
        field: &str,
        faults: &mut Faults,
    ) -> Self {
        let mut matcher = matchit::Router::new();
        let mut makes_keys = false;
        for (at, rule) in rules.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let ready = Arc::new(ready(rule, query, &field, faults));
            makes_keys |= ready.query.is_some();
            if !rule.route.starts_with('/') {
                let why = "must be a path template that begins with `/`";
                faults.add(format!("{field}.route"), &rule.route, why);
            } else if let Err(why) = matcher.insert(&rule.route, ready) {
                faults.add(format!("{field}.route"), &rule.route, why.to_string());
            }
        }
        Self {
            matcher,
            is_empty: rules.is_empty(),
            makes_keys,
        }
    }

    #[inline]
    pub(crate) fn route(&self, path: &str) -> Option<&Arc<RoutePlan>> {
        if self.is_empty {
            return None;
        }
        self.matcher.at(path).ok().map(|found| found.value)
    }

    /// The route's rule, if any rule has a say in keys.
    #[inline]
    pub(crate) fn key_route(&self, path: &str) -> Option<&Arc<RoutePlan>> {
        if !self.makes_keys {
            return None;
        }
        self.route(path)
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("is_empty", &self.is_empty)
            .finish_non_exhaustive()
    }
}

fn ready(rule: &CacheRule, all: &QueryRules, field: &str, faults: &mut Faults) -> RoutePlan {
    faults.within_time(format!("{field}.ttl_ms"), rule.ttl, Duration::ZERO..=YEAR);
    if rule.store == Store::Force && rule.ttl.is_zero() {
        let why = "must be given where answers are stored whatever they say";
        faults.add(format!("{field}.ttl_ms"), 0, why);
    }
    faults.within(
        format!("{field}.tags"),
        rule.tags.len(),
        0..=TAGS_MAX,
        "tags",
    );
    for tag in &rule.tags {
        let sound = (1..=TAG_BYTES_MAX).contains(&tag.len()) && !tag.starts_with('/');
        if !sound || tag.chars().any(char::is_control) {
            let why = format!(
                "must have 1 to {TAG_BYTES_MAX} bytes, no control characters, and no `/` in front"
            );
            faults.add(format!("{field}.tags"), tag, why);
        }
    }
    check_parameters(&rule.query_only, &format!("{field}.query_only"), faults);
    let idle = !rule.ttl.is_zero() || !rule.tags.is_empty() || rule.browser != Browser::AsSaid;
    if rule.store == Store::Never && idle {
        let why = "is `never`, so that `ttl_ms`, `tags` and `browser` would do nothing";
        faults.add(format!("{field}.store"), "never", why);
    }
    let query = (!rule.query_only.is_empty()).then(|| QueryRules {
        only: rule.query_only.clone(),
        ..all.clone()
    });
    RoutePlan {
        store: rule.store,
        ttl: Some(rule.ttl).filter(|ttl| !ttl.is_zero()),
        tags: CacheTags::new(&rule.tags),
        browser: match rule.browser {
            Browser::AsSaid => None,
            Browser::Revalidate => Some(HeaderValue::from_static("no-cache")),
            Browser::NoStore => Some(HeaderValue::from_static("no-store")),
            Browser::Immutable => Some(IMMUTABLE),
        },
        query,
    }
}

/// Notes what are no names of a query's parameters.
pub(crate) fn check_parameters(names: &[String], field: &str, faults: &mut Faults) {
    faults.within(field, names.len(), 0..=PARAMETERS_MAX, "parameters");
    if names
        .iter()
        .any(|name| name.is_empty() || name.contains(['&', '=', '?']))
    {
        faults.add(field, names.join(","), "must be names of parameters");
    }
}

const PARAMETERS_MAX: usize = 64;

const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
