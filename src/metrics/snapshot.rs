//! All figures, at one moment or of a stretch of time, to be read by a program or written as JSON.
//!
//! Figures are read one after the other while requests go on, so sums may be off by what happened
//! meanwhile; within one route, whatever has left flight is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::metrics::figures::Quantiles;
use crate::metrics::overload::{CircuitTotals, ConnectionTotals, GuardTotals};
use crate::metrics::routes::{UNMATCHED, method_named};
use crate::metrics::sheet::{RouteRow, Sheet};
use crate::metrics::totals::{Count, Time, Word};

/// The figures of a [`Metrics`](crate::metrics::Metrics) since it was made, or those of a [window](crate::metrics::Window).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// All requests.
    pub http: HttpTotals,
    /// Requests by route and method: templates by name, `unmatched` last.
    pub routes: Vec<RouteFigures>,
    /// What the cache tells.
    pub cache: CacheTotals,
    /// What typed caches tell, and the tiers behind memory.
    pub tiers: TierTotals,
    /// What the rate limiter tells, by rule.
    pub rate_limit: BTreeMap<Arc<str>, RuleFigures>,
    /// What the guard tells.
    pub guard: GuardTotals,
    /// What circuit breakers tell.
    pub circuits: CircuitTotals,
    /// What the slots of long-lived connections tell.
    pub connections: ConnectionTotals,
    /// Invalidations recorded in the journal.
    pub invalidations: u64,
    /// The keys, tags and patterns in them.
    pub invalidation_markers: u64,
    /// Those that could not be confirmed everywhere in time.
    pub invalidations_pending: u64,
    /// How often this instance did not know whether what it stores still holds, by reason.
    pub journal_doubts: BTreeMap<Arc<str>, u64>,
    /// How often the journal's past was lost, so that everything stored before was old.
    pub journal_replaced: u64,
    /// Invalidations that were checked to be carried out everywhere, by how long after: `10ms`, ..
    pub coherency_checks: BTreeMap<Arc<str>, u64>,
    /// What those checks found broken, by invariant: `served`, ..
    pub coherency_violations: BTreeMap<Arc<str>, u64>,
    /// Database queries.
    pub queries: Quantiles,
    /// Those of them that took longer than the configured threshold.
    pub queries_slow: u64,
    /// Waits for a database connection, or a slot before one.
    pub database_waits: Quantiles,
    /// Those of them that were in vain.
    pub database_unserved: u64,
    /// Requests that waited for a remote's quota before they were sent.
    pub remote_waits: u64,
    /// Requests that were not sent because of a remote's quota.
    pub remote_refusals: u64,
    /// Steps that progress streams took.
    pub progress_events: u64,
    /// How often Redis went away, or was away for another reason than before.
    pub redis_downs: u64,
    /// Commands and batches that Redis answered.
    pub redis: Quantiles,
    /// Those that it did not answer, by reason: `timeout`, `lost`, `crowded`.
    pub redis_failed: BTreeMap<Arc<str>, u64>,
    /// Changes of alerts, by what they became: `firing`, `escalated`, `resolved`.
    pub alerts: BTreeMap<Arc<str>, u64>,
    /// Warnings about the way something is set up.
    pub warnings: u64,
    /// Clients that were banned, counted once for each ban.
    pub bans: u64,
    /// Requests refused because of who sent them, by reason: `banned`, `deny_listed`.
    pub shut_out: BTreeMap<Arc<str>, u64>,
    /// Requests that carried no peer address.
    pub peers_unknown: u64,
}

/// Requests of all routes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HttpTotals {
    /// Requests answered or cancelled; those in flight are not in it yet.
    pub requests: u64,
    /// Answers delivered, by status class.
    pub status: StatusCounts,
    /// Requests whose answer was not delivered to its end.
    pub cancelled: u64,
    /// Those of them that had waited for their answer's head in vain: whoever is served by something that hangs.
    pub unanswered: u64,
    /// Answers whose head took longer than the configured threshold, and requests that were given up after as long.
    pub slow: u64,
    /// Requests begun and not over.
    pub in_flight: u64,
    /// Bytes of the requests' bodies, as far as `Content-Length` announced them and they may have come by the time of
    /// the answer's head: a byte in a nanosecond, and 1 MiB. Requests that were refused or had no answer are not in it.
    pub bytes_received: u64,
    /// Bytes of the answers' bodies that were handed to connections, without what a connection adds.
    pub bytes_sent: u64,
    /// Answers that the cache served, stale and shared ones included. Of this and the next nothing is known where
    /// `cache.cache_status` is `off`.
    pub cached: u64,
    /// Answers that it might have served, and did not: see [`CacheTotals::missed`].
    pub uncached: u64,
}

/// Answers by status class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatusCounts {
    /// 1xx: the connection was switched to another protocol.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// 2xx.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// 3xx.
    #[serde(rename = "3xx")]
    pub redirection: u64,
    /// 4xx, and the cache's 504 to `Cache-Control: only-if-cached`: nothing has failed but the client's condition.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// 5xx, errors of the service and panics included.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// Requests of one route and method.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RouteFigures {
    /// The path template, `unmatched` or `other`.
    pub route: Arc<str>,
    /// The method, or `_OTHER`.
    pub method: &'static str,
    /// The counts.
    #[serde(flatten)]
    pub counts: HttpTotals,
    /// Time to the answer's head.
    pub latency: Quantiles,
}

/// What the cache tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheTotals {
    /// Answers from memory within their freshness lifetime.
    pub hits: u64,
    /// Answers from memory past it.
    pub stale_hits: u64,
    /// Requests for which there was nothing, and whose answer may be stored.
    pub misses: u64,
    /// Requests for which there was an answer, but one past its freshness lifetime.
    pub stale_misses: u64,
    /// Requests let through to the service, by reason (RFC 9211 §2.2): whether they may be cached or not.
    pub forwards: BTreeMap<Arc<str>, u64>,
    /// Requests that shared the answer of one under way.
    pub collapsed: u64,
    /// Answers stored: those of misses, and those found behind memory, fetched behind a client's back or anew.
    pub stored: u64,
    /// Their bytes, summed up; what is still held is a gauge of the cache.
    pub stored_bytes: u64,
}

/// What typed caches tell, and the tiers that they share with the cache of answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TierTotals {
    /// What was found behind memory, by tier: `warm`, `cold`.
    pub hits: BTreeMap<Arc<str>, u64>,
    /// Values that were computed, and what that took.
    pub computed: Quantiles,
    /// How many of them came to nothing.
    pub failed: u64,
    /// Stored bytes that could not be read, by reason.
    pub unreadable: BTreeMap<Arc<str>, u64>,
    /// What was done ahead of time, by why: `invalidated`, `near_expiry`, `boot`, `scheduled`.
    pub warmed_by_class: BTreeMap<Arc<str>, u64>,
    /// The same by what came of it: `computed`, `found`, `joined`, `failed`, `dropped`.
    pub warmed_by_outcome: BTreeMap<Arc<str>, u64>,
}

/// What one rule of the rate limiter tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleFigures {
    /// Requests it let through.
    pub allowed: u64,
    /// Requests it turned away.
    pub denied: u64,
    /// Requests it would have turned away had it not been in shadow mode.
    pub shadow_denied: u64,
}

impl Snapshot {
    pub(crate) fn of(sheet: &Sheet) -> Self {
        let routes = sheet.routes.iter();
        let routes = routes.map(|((route, method), row)| RouteFigures {
            route: Arc::clone(route),
            method: method_named(*method),
            counts: HttpTotals::of(row),
            latency: Quantiles::of(row.latency.clone()),
        });
        let mut routes: Vec<_> = routes.collect();
        routes.sort_by_key(|row| &*row.route == UNMATCHED);
        let mut http = HttpTotals::default();
        for route in &routes {
            http.add(&route.counts);
        }
        Self {
            http,
            routes,
            cache: CacheTotals::of(sheet),
            tiers: TierTotals::of(sheet),
            rate_limit: rules(sheet),
            guard: GuardTotals::of(sheet),
            circuits: CircuitTotals::of(sheet),
            connections: ConnectionTotals::of(sheet),
            invalidations: sheet.count(Count::Invalidations),
            invalidation_markers: sheet.count(Count::Markers),
            invalidations_pending: sheet.count(Count::InvalidationsPending),
            journal_doubts: sheet.word(Word::JournalDoubts),
            journal_replaced: sheet.count(Count::JournalReplaced),
            coherency_checks: sheet.word(Word::CoherencyChecks),
            coherency_violations: sheet.word(Word::CoherencyViolations),
            queries: Quantiles::of(sheet.time(Time::Queries).clone()),
            queries_slow: sheet.count(Count::QueriesSlow),
            database_waits: Quantiles::of(sheet.time(Time::DatabaseWaits).clone()),
            database_unserved: sheet.count(Count::DatabaseUnserved),
            remote_waits: sheet.count(Count::RemoteWaits),
            remote_refusals: sheet.count(Count::RemoteRefusals),
            progress_events: sheet.count(Count::Progress),
            redis_downs: sheet.count(Count::RedisDowns),
            redis: Quantiles::of(sheet.time(Time::RedisAnswers).clone()),
            redis_failed: sheet.word(Word::RedisFailed),
            alerts: sheet.word(Word::Alerts),
            warnings: sheet.count(Count::Warnings),
            bans: sheet.count(Count::Bans),
            shut_out: sheet.word(Word::ShutOut),
            peers_unknown: sheet.count(Count::PeersUnknown),
        }
    }
}

impl HttpTotals {
    const fn of(row: &RouteRow) -> Self {
        let [
            c1,
            c2,
            c3,
            c4,
            c5,
            cancelled,
            slow,
            received,
            sent,
            cached,
            uncached,
            unanswered,
        ] = row.counts;
        Self {
            requests: c1 + c2 + c3 + c4 + c5 + cancelled,
            status: StatusCounts {
                informational: c1,
                success: c2,
                redirection: c3,
                client_error: c4,
                server_error: c5,
            },
            cancelled,
            slow,
            in_flight: row.in_flight,
            bytes_received: received,
            bytes_sent: sent,
            cached,
            uncached,
            unanswered,
        }
    }

    const fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.status.informational += other.status.informational;
        self.status.success += other.status.success;
        self.status.redirection += other.status.redirection;
        self.status.client_error += other.status.client_error;
        self.status.server_error += other.status.server_error;
        self.cancelled += other.cancelled;
        self.slow += other.slow;
        self.in_flight += other.in_flight;
        self.bytes_received = self.bytes_received.saturating_add(other.bytes_received);
        self.bytes_sent = self.bytes_sent.saturating_add(other.bytes_sent);
        self.cached += other.cached;
        self.uncached += other.uncached;
        self.unanswered += other.unanswered;
    }
}

impl StatusCounts {
    /// The counts with the labels they go by.
    #[must_use]
    pub const fn labelled(&self) -> [(&'static str, u64); 5] {
        [
            ("1xx", self.informational),
            ("2xx", self.success),
            ("3xx", self.redirection),
            ("4xx", self.client_error),
            ("5xx", self.server_error),
        ]
    }
}

impl CacheTotals {
    /// Requests that the cache served from what it had, or with the answer of one under way.
    #[must_use]
    pub const fn served(&self) -> u64 {
        self.hits + self.stale_hits + self.collapsed
    }

    /// Requests that it might have served, and did not: what it had was too old, or it had nothing and the answer
    /// may be stored. What may not be stored, or has to be asked about whenever it is used (`no-cache`, `max-age=0`), is no
    /// miss: a service that caches little has not a bad cache.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.misses + self.stale_misses
    }

    fn of(sheet: &Sheet) -> Self {
        Self {
            hits: sheet.count(Count::Hits),
            stale_hits: sheet.count(Count::StaleHits),
            misses: sheet.count(Count::Misses),
            stale_misses: sheet.count(Count::StaleMisses),
            forwards: sheet.word(Word::Forwards),
            collapsed: sheet.count(Count::Collapsed),
            stored: sheet.count(Count::Stored),
            stored_bytes: sheet.count(Count::StoredBytes),
        }
    }
}

impl TierTotals {
    fn of(sheet: &Sheet) -> Self {
        Self {
            hits: sheet.word(Word::TierHits),
            computed: Quantiles::of(sheet.time(Time::Values).clone()),
            failed: sheet.count(Count::ValuesFailed),
            unreadable: sheet.word(Word::Unreadable),
            warmed_by_class: sheet.word(Word::WarmedClasses),
            warmed_by_outcome: sheet.word(Word::WarmedOutcomes),
        }
    }
}

fn rules(sheet: &Sheet) -> BTreeMap<Arc<str>, RuleFigures> {
    let rules = sheet.rules.iter();
    rules
        .map(|(name, &[allowed, denied, shadow_denied])| {
            let figures = RuleFigures {
                allowed,
                denied,
                shadow_denied,
            };
            (Arc::clone(name), figures)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::event::{Event, Recorder};
    use crate::metrics::config::MetricsConfig;
    use crate::metrics::engine::Metrics;

    #[test]
    fn every_event_ends_in_its_figure() {
        let metrics = Metrics::new(&MetricsConfig::default(), Clock::manual().0).unwrap();
        let took = Duration::from_millis(2);
        for event in [
            Event::CacheHit { stale: false },
            Event::CacheHit { stale: true },
            Event::CacheForwarded { reason: "uri-miss" },
            Event::CacheForwarded { reason: "bypass" },
            Event::CacheForwarded { reason: "uri-miss" },
            Event::CacheMissed { stale: false },
            Event::CacheMissed { stale: true },
            Event::CacheCollapsed,
            Event::CacheStored { bytes: 42 },
            Event::RateLimitAllowed { rule: "login" },
            Event::RateLimitDenied {
                rule: "login",
                shadow: false,
            },
            Event::RateLimitDenied {
                rule: "all",
                shadow: true,
            },
            Event::ClientBanned {
                who: "caller:a",
                lasts: took,
            },
            Event::ClientShutOut { why: "banned" },
            Event::PeerUnknown,
            Event::GuardAdmitted { waited: took },
            Event::GuardRefused {
                why: "overloaded",
                waited: Duration::ZERO,
            },
            Event::PressureChanged {
                from: "normal",
                to: "high",
                used_bytes: 9,
                budget_bytes: 10,
            },
            Event::Invalidated {
                seq: 70,
                markers: 3,
            },
            Event::InvalidationPending { why: "queued" },
            Event::JournalUnverified { why: "gap" },
            Event::JournalVerified,
            Event::JournalReplaced,
            Event::RemoteQuotaWaited {
                remote: "a.test",
                waited: took,
            },
        ]
        .into_iter()
        .chain(OF_TROUBLE.into_iter().chain(AND_MORE).chain(OF_OVERLOAD))
        {
            metrics.record(&event);
        }
        let mut json = serde_json::to_value(metrics.snapshot()).unwrap();
        for timed in [
            "/queries",
            "/guard/admitted",
            "/tiers/computed",
            "/database_waits",
            "/redis",
        ] {
            let p50 = json.pointer_mut(&format!("{timed}/p50_ms")).unwrap().take();
            assert!((1.87..2.13).contains(&p50.as_f64().unwrap()));
            let object = json.pointer_mut(timed).unwrap().as_object_mut().unwrap();
            object.retain(|key, _| key == "count");
        }
        assert_eq!(json, figures_of_every_event());
    }

    const AND_MORE: [Event<'static>; 7] = [
        Event::QueryFinished {
            name: "q",
            took: Duration::from_millis(2),
            slow: true,
        },
        Event::QueryFinished {
            name: "q",
            took: Duration::from_millis(2),
            slow: false,
        },
        Event::ProgressPublished,
        Event::TierHit { tier: "warm" },
        Event::ValueComputed {
            took: Duration::from_millis(2),
            failed: true,
        },
        Event::EntryUnreadable {
            tier: "warm",
            why: "corrupt",
        },
        Event::Warmed {
            class: "boot",
            outcome: "found",
        },
    ];

    const OF_OVERLOAD: [Event<'static>; 10] = [
        Event::GuardLeft {
            waited: Duration::from_millis(2),
        },
        Event::GuardSlotsChanged { slots: 7 },
        Event::RuntimeLagging {
            lag: Duration::from_millis(2),
        },
        Event::MemoryRelieved {
            action: "evict",
            before_bytes: 9,
            after_bytes: 7,
        },
        Event::LeakSuspected {
            bytes_per_hour: 9,
            until_limit: Duration::from_secs(9),
        },
        Event::CircuitChanged {
            circuit: "a.test",
            from: "closed",
            to: "open",
        },
        Event::CircuitRefused { circuit: "a.test" },
        Event::ConnectionOpened,
        Event::ConnectionClosed { why: "stale" },
        Event::ConnectionRefused { why: "full" },
    ];

    const OF_TROUBLE: [Event<'static>; 9] = [
        Event::RedisAnswered {
            took: Duration::from_millis(2),
        },
        Event::RedisFailed { why: "timeout" },
        Event::DatabaseWaited {
            waited: Duration::from_millis(2),
            served: false,
        },
        Event::AlertChanged {
            rule: "errors",
            severity: "critical",
            state: "firing",
        },
        Event::RemoteQuotaRefused { remote: "a.test" },
        Event::RedisDown { reason: "gone" },
        Event::Warning { text: "odd" },
        Event::CoherencyChecked { window: "10ms" },
        Event::CoherencyViolation {
            invariant: "served",
            window: "10ms",
            detail: "by 7",
        },
    ];

    fn figures_of_every_event() -> serde_json::Value {
        serde_json::json!({
            "http": {
                "requests": 0, "cancelled": 0, "slow": 0, "in_flight": 0,
                "bytes_received": 0, "bytes_sent": 0, "cached": 0, "uncached": 0, "unanswered": 0,
                "status": {"1xx": 0, "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0}
            },
            "routes": [],
            "cache": {
                "hits": 1, "stale_hits": 1, "misses": 1, "stale_misses": 1,
                "forwards": {"uri-miss": 2, "bypass": 1},
                "collapsed": 1, "stored": 1, "stored_bytes": 42
            },
            "tiers": {
                "hits": {"warm": 1}, "computed": {"count": 1}, "failed": 1, "unreadable": {"corrupt": 1},
                "warmed_by_class": {"boot": 1}, "warmed_by_outcome": {"found": 1}
            },
            "rate_limit": {
                "all": {"allowed": 0, "denied": 0, "shadow_denied": 1},
                "login": {"allowed": 1, "denied": 1, "shadow_denied": 0}
            },
            "guard": {
                "admitted": {"count": 1}, "refused": {"overloaded": 1},
                "pressure_changes": {"high": 1},
                "left": 1, "slots_changes": 1, "lags": 1, "relieved": {"evict": 1}, "leaks": 1
            },
            "circuits": {"changes": {"open": 1}, "refused": 1},
            "connections": {"opened": 1, "closed": {"stale": 1}, "refused": {"full": 1}},
            "invalidations": 1, "invalidation_markers": 3, "invalidations_pending": 1,
            "journal_doubts": {"gap": 1}, "journal_replaced": 1,
            "coherency_checks": {"10ms": 1}, "coherency_violations": {"served": 1},
            "queries": {"count": 2}, "queries_slow": 1,
            "database_waits": {"count": 1}, "database_unserved": 1,
            "redis": {"count": 1}, "redis_failed": {"timeout": 1}, "alerts": {"firing": 1},
            "remote_waits": 1, "remote_refusals": 1,
            "progress_events": 1, "redis_downs": 1, "warnings": 1, "peers_unknown": 1,
            "bans": 1, "shut_out": {"banned": 1}
        })
    }

    #[test]
    fn disabled_metrics_ignore_events() {
        let config = MetricsConfig {
            enabled: false,
            ..MetricsConfig::default()
        };
        let metrics = Metrics::new(&config, Clock::manual().0).unwrap();
        metrics.record(&Event::PeerUnknown);
        assert_eq!(metrics.snapshot().peers_unknown, 0);
    }
}
