//! What an operator says of the answers of one route, in place of or beside what they say themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A rule for the answers of the paths that match a template. If several match, the most exact one counts,
/// as in axum's router.
///
/// ```
/// use std::time::Duration;
/// use tower_keep::cache::{Browser, CacheRule};
///
/// // Kept for five minutes here and asked about each time by browsers: what is purged is gone everywhere.
/// let report = CacheRule::new("/reports/{id}")
///     .ttl(Duration::from_secs(300))
///     .browser(Browser::Revalidate)
///     .tags(["reports"]);
/// # let _ = report;
/// ```
///
/// In files: `{"route": "/reports/{id}", "store": "obey", "ttl_ms": 300000, "tags": ["reports"],
/// "browser": "revalidate", "query_only": ["page"]}`, of which only `route` must be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRule {
    /// The path template: `/reports/{id}`, `/files/{*path}`.
    pub route: String,
    /// Whether answers are stored.
    #[serde(default)]
    pub store: Store,
    /// How long they are fresh here, whatever their fields say; zero leaves that to them. At most a year.
    #[serde(default, rename = "ttl_ms", with = "crate::config_time::millis")]
    pub ttl: Duration,
    /// Tags by which they can be purged.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What clients are told of the life of those that are stored.
    #[serde(default)]
    pub browser: Browser,
    /// If there are any, only these parameters of the query tell answers apart.
    #[serde(default)]
    pub query_only: Vec<String>,
}

/// Whether the answers of a route are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Store {
    /// As they say themselves (RFC 9111).
    #[default]
    Obey,
    /// Whatever `Cache-Control`, `Expires` and targeted fields say: `no-store`, `private` and `no-cache`
    /// do not count, and the rule's `ttl` must be given. Cookies and the caller's credentials count as
    /// ever: nobody is sent what was made for somebody else.
    Force,
    /// Never.
    Never,
}

/// What clients are told of the life of a stored answer, in place of its own `Cache-Control`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Browser {
    /// What the answer says.
    #[default]
    AsSaid,
    /// `no-cache`: keep it, and ask each time. A purge is seen at once, and asking costs a 304.
    Revalidate,
    /// `no-store`: keep nothing.
    NoStore,
    /// `public, max-age=31536000, immutable` (RFC 8246): for what has its version in its name. Said of
    /// successes only: a file that is missing now may be there in a minute.
    Immutable,
}

impl CacheRule {
    /// A rule that changes nothing yet.
    #[must_use]
    pub fn new(route: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            store: Store::Obey,
            ttl: Duration::ZERO,
            tags: Vec::new(),
            browser: Browser::AsSaid,
            query_only: Vec::new(),
        }
    }

    /// Whether answers are stored.
    #[must_use]
    pub const fn store(mut self, store: Store) -> Self {
        self.store = store;
        self
    }

    /// How long they are fresh here.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Tags by which they can be purged.
    #[must_use]
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// What clients are told of their life.
    #[must_use]
    pub const fn browser(mut self, browser: Browser) -> Self {
        self.browser = browser;
        self
    }

    /// The only parameters of the query that tell answers apart.
    #[must_use]
    pub fn query_only(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.query_only = names.into_iter().map(Into::into).collect();
        self
    }
}
