//! All figures as Prometheus reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::ConfigError;
use crate::metrics::engine::Metrics;
use crate::metrics::exposition::{Exposition, Kind};
use crate::metrics::gauges::Gauge;
use crate::metrics::overload::{CircuitTotals, ConnectionTotals, GuardTotals};
use crate::metrics::snapshot::{CacheTotals, RouteFigures, RuleFigures, Snapshot, TierTotals};

/// The gauge of this room's own, and its histograms: nobody else's gauge may take their names. Its
/// counters end in what no gauge may end in.
const IN_FLIGHT: &str = "keep_http_requests_in_flight";
const REQUEST_DURATION: &str = "keep_http_request_duration_seconds";
const QUEUE_WAIT: &str = "keep_guard_queue_wait_seconds";
const QUERY_DURATION: &str = "keep_database_query_duration_seconds";
const REDIS_DURATION: &str = "keep_redis_command_duration_seconds";
const DATABASE_WAIT: &str = "keep_database_wait_seconds";
const OURS: [&str; 6] = [
    IN_FLIGHT,
    REQUEST_DURATION,
    QUEUE_WAIT,
    QUERY_DURATION,
    REDIS_DURATION,
    DATABASE_WAIT,
];

impl Metrics {
    /// All figures in the text format of Prometheus, version 0.0.4, to be served as
    /// `text/plain; version=0.0.4; charset=utf-8`.
    ///
    /// Takes some 10 µs per route and method on the caller's thread. Counters begin at zero with the
    /// process. The buckets of histograms may put a record on the wrong side of a limit that it is
    /// within 6.25 % of; sums and counts are exact.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let snapshot = self.snapshot();
        let mut text = Exposition::default();
        write_http(&mut text, &snapshot.routes);
        write_cache(&mut text, &snapshot.cache);
        write_tiers(&mut text, &snapshot.tiers);
        write_rate_limit(&mut text, &snapshot.rate_limit);
        write_guard(&mut text, &snapshot.guard);
        write_circuits(&mut text, &snapshot.circuits);
        write_connections(&mut text, &snapshot.connections);
        write_stores(&mut text, &snapshot);
        write_rest(&mut text, &snapshot);
        for gauge in &*self.gauges().all() {
            text.family(gauge.name, gauge.help, Kind::Gauge);
            text.sample(gauge.name, &[], (gauge.read)());
        }
        text.into_text()
    }

    /// What the gauge `name` shows now; nothing where there is none of that name.
    #[must_use]
    pub fn gauge_value(&self, name: &str) -> Option<f64> {
        self.gauges().read(name)
    }

    /// Shows the figure that `read` returns as the gauge `name`, each time somebody asks. A gauge of
    /// the same name is replaced.
    ///
    /// `read` must be quick and must not block or panic. If it holds a clone of these metrics,
    /// neither is ever freed.
    ///
    /// # Errors
    ///
    /// If `name` is no metric name (`[a-zA-Z_:][a-zA-Z0-9_:]*`), or one that belongs to counters and
    /// histograms by its ending (`_total`, `_bucket`, `_sum`, `_count`), or one of the metrics' own
    /// (`keep_http_requests_in_flight`, `keep_http_request_duration_seconds`,
    /// `keep_guard_queue_wait_seconds`, `keep_database_query_duration_seconds`,
    /// `keep_database_wait_seconds`, `keep_redis_command_duration_seconds`).
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), ConfigError> {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        let spelled =
            name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        let endings = ["_total", "_bucket", "_sum", "_count"];
        let taken = OURS.contains(&name) || endings.iter().any(|ending| name.ends_with(ending));
        if !spelled || taken {
            let allowed =
                "must be letters, digits, `_` and `:` and no counter's or histogram's name";
            return Err(ConfigError::one("metrics.gauge", name, allowed));
        }
        let read = Arc::new(read);
        self.gauges().put(&Gauge { name, help, read });
        Ok(())
    }
}

fn write_http(text: &mut Exposition, routes: &[RouteFigures]) {
    let name = "keep_http_requests_total";
    let help = "Requests answered to the end of the body, by status class.";
    text.family(name, help, Kind::Counter);
    for row in routes {
        for (status, count) in row.counts.status.labelled() {
            // A class that never came is no series yet: most routes only ever use two.
            if count > 0 {
                let [route, method] = labels(row);
                text.count(name, &[route, method, ("status", status)], count);
            }
        }
    }
    let name = "keep_http_requests_cancelled_total";
    let help = "Requests whose client left, or whose body failed, before the answer's end.";
    text.family(name, help, Kind::Counter);
    for row in routes {
        text.count(name, &labels(row), row.counts.cancelled);
    }
    let name = "keep_http_requests_slow_total";
    let help = "Answers whose head took longer than metrics.slow_request_ms.";
    text.family(name, help, Kind::Counter);
    for row in routes {
        text.count(name, &labels(row), row.counts.slow);
    }
    let help = "Requests begun whose answer's body has not ended.";
    text.family(IN_FLIGHT, help, Kind::Gauge);
    for row in routes {
        text.count(IN_FLIGHT, &labels(row), row.counts.in_flight);
    }
    let help = "Time from the request's head to the answer's head.";
    text.family(REQUEST_DURATION, help, Kind::Histogram);
    for row in routes {
        text.histogram(REQUEST_DURATION, &labels(row), &row.latency.histogram);
    }
}

fn labels(row: &RouteFigures) -> [(&'static str, &str); 2] {
    [("route", &row.route), ("method", row.method)]
}

fn write_cache(text: &mut Exposition, cache: &CacheTotals) {
    let name = "keep_cache_hits_total";
    let help = "Answers from the cache, by whether they were past their freshness lifetime.";
    text.family(name, help, Kind::Counter);
    text.count(name, &[("stale", "false")], cache.hits);
    text.count(name, &[("stale", "true")], cache.stale_hits);
    let help = "Requests that the cache let through, by reason (RFC 9211).";
    by_word(
        text,
        ("keep_cache_forwards_total", help),
        "reason",
        &cache.forwards,
    );
    let help = "Requests that shared the answer of one under way.";
    total(text, "keep_cache_collapsed_total", help, cache.collapsed);
    let help = "Answers that the cache stored.";
    total(text, "keep_cache_stored_total", help, cache.stored);
    let help = "Bytes of the answers that the cache stored.";
    total(
        text,
        "keep_cache_stored_bytes_total",
        help,
        cache.stored_bytes,
    );
}

fn write_tiers(text: &mut Exposition, tiers: &TierTotals) {
    let help = "Values and answers that were found behind memory, by tier.";
    by_word(text, ("keep_tier_hits_total", help), "tier", &tiers.hits);
    let name = "keep_value_computing_seconds";
    text.family(name, "What computing values took.", Kind::Histogram);
    text.histogram(name, &[], &tiers.computed.histogram);
    let help = "Computations that came to nothing.";
    total(text, "keep_values_failed_total", help, tiers.failed);
    let help = "Stored entries that could not be read, by reason.";
    let family = ("keep_entries_unreadable_total", help);
    by_word(text, family, "why", &tiers.unreadable);
    let help = "What was done before somebody had to wait for it, by why.";
    let family = ("keep_warming_jobs_total", help);
    by_word(text, family, "class", &tiers.warmed_by_class);
    let help = "The same, by what came of it.";
    let family = ("keep_warmed_total", help);
    by_word(text, family, "outcome", &tiers.warmed_by_outcome);
}

fn write_rate_limit(text: &mut Exposition, rules: &BTreeMap<Arc<str>, RuleFigures>) {
    type Pick = fn(&RuleFigures) -> u64;
    let families: [(&str, &str, Pick); 3] = [
        (
            "keep_rate_limit_allowed_total",
            "Requests that a rule let through.",
            |rule| rule.allowed,
        ),
        (
            "keep_rate_limit_denied_total",
            "Requests that a rule turned away.",
            |rule| rule.denied,
        ),
        (
            "keep_rate_limit_shadow_denied_total",
            "Requests that a rule in shadow mode would have turned away.",
            |rule| rule.shadow_denied,
        ),
    ];
    for (name, help, pick) in families {
        text.family(name, help, Kind::Counter);
        for (rule, figures) in rules {
            text.count(name, &[("rule", rule)], pick(figures));
        }
    }
}

fn write_guard(text: &mut Exposition, guard: &GuardTotals) {
    let help = "Requests that the guard admitted.";
    total(
        text,
        "keep_guard_admitted_total",
        help,
        guard.admitted.count,
    );
    let help = "Requests that the guard turned away, by reason.";
    by_word(
        text,
        ("keep_guard_refused_total", help),
        "why",
        &guard.refused,
    );
    let help = "Changes of the level of memory pressure, by the level they led to.";
    let family = ("keep_guard_pressure_changes_total", help);
    by_word(text, family, "to", &guard.pressure_changes);
    let help = "How long admitted requests waited in the guard's queue.";
    text.family(QUEUE_WAIT, help, Kind::Histogram);
    text.histogram(QUEUE_WAIT, &[], &guard.admitted.histogram);
    let help = "Requests whose client left while they waited for a slot.";
    total(text, "keep_guard_left_total", help, guard.left);
    let help = "How often the number of slots was adapted.";
    total(
        text,
        "keep_guard_slots_changes_total",
        help,
        guard.slots_changes,
    );
    let help = "How often the runtime began to lag behind.";
    total(text, "keep_runtime_lags_total", help, guard.lags);
    let help = "How often memory was given back, by action.";
    let family = ("keep_memory_relieved_total", help);
    by_word(text, family, "action", &guard.relieved);
    let help = "How often a leak of memory was suspected.";
    total(text, "keep_memory_leaks_suspected_total", help, guard.leaks);
}

fn write_circuits(text: &mut Exposition, circuits: &CircuitTotals) {
    let help = "Changes of circuit breakers, by the state they led to.";
    let family = ("keep_circuit_changes_total", help);
    by_word(text, family, "to", &circuits.changes);
    let help = "Calls that were not made because their circuit was open.";
    total(text, "keep_circuit_refused_total", help, circuits.refused);
}

fn write_connections(text: &mut Exposition, connections: &ConnectionTotals) {
    let help = "Long-lived connections that were let in.";
    total(
        text,
        "keep_connections_opened_total",
        help,
        connections.opened,
    );
    let help = "Long-lived connections that are gone, by reason.";
    let family = ("keep_connections_closed_total", help);
    by_word(text, family, "why", &connections.closed);
    let help = "Long-lived connections that were not let in, by reason.";
    let family = ("keep_connections_refused_total", help);
    by_word(text, family, "why", &connections.refused);
}

fn write_stores(text: &mut Exposition, figures: &Snapshot) {
    let help = "Database queries above the slow-query threshold.";
    total(
        text,
        "keep_database_queries_slow_total",
        help,
        figures.queries_slow,
    );
    let help = "How long database queries took, given-up ones included.";
    text.family(QUERY_DURATION, help, Kind::Histogram);
    text.histogram(QUERY_DURATION, &[], &figures.queries.histogram);
    let help = "Waits for a database connection, or a slot before one, those in vain included.";
    text.family(DATABASE_WAIT, help, Kind::Histogram);
    text.histogram(DATABASE_WAIT, &[], &figures.database_waits.histogram);
    let help = "Waits for a database connection that were in vain.";
    let unserved = figures.database_unserved;
    total(text, "keep_database_unserved_total", help, unserved);
    let help = "How long Redis took to answer a command or a batch.";
    text.family(REDIS_DURATION, help, Kind::Histogram);
    text.histogram(REDIS_DURATION, &[], &figures.redis.histogram);
    let help = "Commands and batches that Redis did not answer.";
    let family = ("keep_redis_failed_total", help);
    by_word(text, family, "why", &figures.redis_failed);
}

fn write_rest(text: &mut Exposition, figures: &Snapshot) {
    let help = "Invalidations recorded in the journal.";
    total(
        text,
        "keep_invalidations_total",
        help,
        figures.invalidations,
    );
    let help = "Keys, tags and patterns in the recorded invalidations.";
    let markers = figures.invalidation_markers;
    total(text, "keep_invalidation_markers_total", help, markers);
    let help = "Invalidations that could not be confirmed everywhere in time.";
    let pending = figures.invalidations_pending;
    total(text, "keep_invalidations_pending_total", help, pending);
    let help = "How often this instance did not know whether what it stores still holds.";
    let family = ("keep_journal_unverified_total", help);
    by_word(text, family, "why", &figures.journal_doubts);
    let help = "How often the journal's past was lost.";
    let replaced = figures.journal_replaced;
    total(text, "keep_journal_replaced_total", help, replaced);
    let help = "Invalidations that were checked to be carried out everywhere, by how long after.";
    let family = ("keep_coherency_checks_total", help);
    by_word(text, family, "window", &figures.coherency_checks);
    let help = "What checks of invalidations found broken.";
    let family = ("keep_coherency_violations_total", help);
    by_word(text, family, "invariant", &figures.coherency_violations);
    let help = "Requests that waited for a remote's quota before they were sent.";
    total(text, "keep_remote_waits_total", help, figures.remote_waits);
    let help = "Requests that were not sent because of a remote's quota.";
    let refusals = figures.remote_refusals;
    total(text, "keep_remote_refusals_total", help, refusals);
    let help = "Steps that progress streams took.";
    total(
        text,
        "keep_progress_events_total",
        help,
        figures.progress_events,
    );
    let help = "How often Redis went away, or was away for another reason than before.";
    total(text, "keep_redis_downs_total", help, figures.redis_downs);
    let help = "Changes of alerts, by what they became.";
    let family = ("keep_alerts_total", help);
    by_word(text, family, "state", &figures.alerts);
    let help = "Warnings about the way something is set up.";
    total(text, "keep_warnings_total", help, figures.warnings);
    let help = "Clients that were banned, counted once for each ban.";
    total(text, "keep_rate_limit_bans_total", help, figures.bans);
    let names = (
        "keep_rate_limit_shut_out_total",
        "Requests refused because of who sent them.",
    );
    by_word(text, names, "reason", &figures.shut_out);
    let help = "Requests without a peer address, which share one rate limit.";
    total(text, "keep_peer_unknown_total", help, figures.peers_unknown);
}

/// A counter without labels.
fn total(text: &mut Exposition, name: &str, help: &str, count: u64) {
    text.family(name, help, Kind::Counter);
    text.count(name, &[], count);
}

/// A counter with one label.
fn by_word(
    text: &mut Exposition,
    (name, help): (&str, &str),
    label: &'static str,
    counts: &BTreeMap<Arc<str>, u64>,
) {
    text.family(name, help, Kind::Counter);
    for (word, count) in counts {
        text.count(name, &[(label, word)], *count);
    }
}
