//! The families of what the rooms tell: a table of names, and where each figure is counted.

use std::sync::atomic::AtomicU64;

use crate::metrics::edges::EDGES;
use crate::metrics::figures::read;
use crate::metrics::totals::{Count, RuleTotals, Time, Totals, Word};
use crate::metrics::visitor::{Family, Kind, Visitor};

/// A family, and where its figures are counted.
#[derive(Debug)]
pub(crate) struct TotalsFamily {
    pub(crate) family: Family,
    rows: Rows,
}

/// Where a family's figures are counted, and under which labels.
#[derive(Debug)]
enum Rows {
    /// One figure without a label.
    Count(Count),
    /// How many durations were recorded.
    Recorded(Time),
    /// One for each word of the program.
    Words(&'static str, Word),
    /// Of what is fresh and what is stale.
    Stale([Count; 2]),
    /// One for each rule of the rate limiter.
    Rules(fn(&RuleTotals) -> &AtomicU64),
    /// Durations.
    Times(Time),
}

impl TotalsFamily {
    /// Tells the family and all its figures. Takes some microseconds at most: rules and words are bounded.
    pub(crate) fn tell(&self, totals: &Totals, visitor: &mut dyn Visitor) {
        visitor.family(&self.family);
        match &self.rows {
            Rows::Count(count) => visitor.count(&[], read(totals.one(*count))),
            Rows::Recorded(time) => visitor.count(&[], totals.time(*time).snapshot().count()),
            Rows::Words(label, word) => {
                for (word, count) in totals.words(*word) {
                    visitor.count(&[(label, &word)], read(&count));
                }
            }
            Rows::Stale(counts) => {
                for (stale, count) in ["false", "true"].into_iter().zip(counts) {
                    visitor.count(&[("stale", stale)], read(totals.one(*count)));
                }
            }
            Rows::Rules(of) => {
                for (rule, figures) in totals.rules() {
                    visitor.count(&[("rule", &rule)], read(of(&figures)));
                }
            }
            Rows::Times(time) => visitor.times(&[], &totals.time(*time).snapshot()),
        }
    }
}

const fn counter(name: &'static str, help: &'static str, rows: Rows) -> TotalsFamily {
    let kind = Kind::Counter;
    let family = Family { name, help, kind };
    TotalsFamily { family, rows }
}

const fn histogram(name: &'static str, help: &'static str, of: Time) -> TotalsFamily {
    let kind = Kind::Histogram(EDGES);
    let family = Family { name, help, kind };
    let rows = Rows::Times(of);
    TotalsFamily { family, rows }
}

/// All of them, in the order in which they are written.
pub(crate) static FAMILIES: &[TotalsFamily] = &[
    counter(
        "keep_cache_hits_total",
        "Answers from the cache, by whether they were past their freshness lifetime.",
        Rows::Stale([Count::Hits, Count::StaleHits]),
    ),
    counter(
        "keep_cache_forwards_total",
        "Requests that the cache let through, by reason (RFC 9211).",
        Rows::Words("reason", Word::Forwards),
    ),
    counter(
        "keep_cache_misses_total",
        "Requests that the cache might have answered, by whether what it had was too old.",
        Rows::Stale([Count::Misses, Count::StaleMisses]),
    ),
    counter(
        "keep_cache_collapsed_total",
        "Requests that shared the answer of one under way.",
        Rows::Count(Count::Collapsed),
    ),
    counter(
        "keep_cache_stored_total",
        "Answers that the cache stored.",
        Rows::Count(Count::Stored),
    ),
    counter(
        "keep_cache_stored_bytes_total",
        "Bytes of the answers that the cache stored.",
        Rows::Count(Count::StoredBytes),
    ),
    counter(
        "keep_tier_hits_total",
        "Values and answers that were found behind memory, by tier.",
        Rows::Words("tier", Word::TierHits),
    ),
    histogram(
        "keep_value_computing_seconds",
        "What computing values took.",
        Time::Values,
    ),
    counter(
        "keep_values_failed_total",
        "Computations that came to nothing.",
        Rows::Count(Count::ValuesFailed),
    ),
    counter(
        "keep_entries_unreadable_total",
        "Stored entries that could not be read, by reason.",
        Rows::Words("why", Word::Unreadable),
    ),
    counter(
        "keep_warming_jobs_total",
        "What was done before somebody had to wait for it, by why.",
        Rows::Words("class", Word::WarmedClasses),
    ),
    counter(
        "keep_warmed_total",
        "The same, by what came of it.",
        Rows::Words("outcome", Word::WarmedOutcomes),
    ),
    counter(
        "keep_rate_limit_allowed_total",
        "Requests that a rule let through.",
        Rows::Rules(|rule| &rule.allowed),
    ),
    counter(
        "keep_rate_limit_denied_total",
        "Requests that a rule turned away.",
        Rows::Rules(|rule| &rule.denied),
    ),
    counter(
        "keep_rate_limit_shadow_denied_total",
        "Requests that a rule in shadow mode would have turned away.",
        Rows::Rules(|rule| &rule.shadow_denied),
    ),
    counter(
        "keep_guard_admitted_total",
        "Requests that the guard admitted.",
        Rows::Recorded(Time::QueueWait),
    ),
    counter(
        "keep_guard_refused_total",
        "Requests that the guard turned away, by reason.",
        Rows::Words("why", Word::Refused),
    ),
    counter(
        "keep_guard_pressure_changes_total",
        "Changes of the level of memory pressure, by the level they led to.",
        Rows::Words("to", Word::PressureChanges),
    ),
    histogram(
        "keep_guard_queue_wait_seconds",
        "How long admitted requests waited in the guard's queue.",
        Time::QueueWait,
    ),
    counter(
        "keep_guard_left_total",
        "Requests whose client left while they waited for a slot.",
        Rows::Count(Count::Left),
    ),
    counter(
        "keep_guard_slots_changes_total",
        "How often the number of slots was adapted.",
        Rows::Count(Count::SlotsChanges),
    ),
    counter(
        "keep_runtime_lags_total",
        "How often the runtime began to lag behind.",
        Rows::Count(Count::Lags),
    ),
    counter(
        "keep_memory_relieved_total",
        "How often memory was given back, by action.",
        Rows::Words("action", Word::Relieved),
    ),
    counter(
        "keep_memory_leaks_suspected_total",
        "How often a leak of memory was suspected.",
        Rows::Count(Count::Leaks),
    ),
    counter(
        "keep_circuit_changes_total",
        "Changes of circuit breakers, by the state they led to.",
        Rows::Words("to", Word::CircuitChanges),
    ),
    counter(
        "keep_circuit_refused_total",
        "Calls that were not made because their circuit was open.",
        Rows::Count(Count::CircuitRefused),
    ),
    counter(
        "keep_connections_opened_total",
        "Long-lived connections that were let in.",
        Rows::Count(Count::ConnectionsOpened),
    ),
    counter(
        "keep_connections_closed_total",
        "Long-lived connections that are gone, by reason.",
        Rows::Words("why", Word::ConnectionsClosed),
    ),
    counter(
        "keep_connections_refused_total",
        "Long-lived connections that were not let in, by reason.",
        Rows::Words("why", Word::ConnectionsRefused),
    ),
    counter(
        "keep_database_queries_slow_total",
        "Database queries above the slow-query threshold.",
        Rows::Count(Count::QueriesSlow),
    ),
    histogram(
        "keep_database_query_duration_seconds",
        "How long database queries took, given-up ones included.",
        Time::Queries,
    ),
    histogram(
        "keep_database_wait_seconds",
        "Waits for a database connection, or a slot before one, those in vain included.",
        Time::DatabaseWaits,
    ),
    counter(
        "keep_database_unserved_total",
        "Waits for a database connection that were in vain.",
        Rows::Count(Count::DatabaseUnserved),
    ),
    histogram(
        "keep_redis_command_duration_seconds",
        "How long Redis took to answer a command or a batch.",
        Time::RedisAnswers,
    ),
    counter(
        "keep_redis_failed_total",
        "Commands and batches that Redis did not answer.",
        Rows::Words("why", Word::RedisFailed),
    ),
    counter(
        "keep_invalidations_total",
        "Invalidations recorded in the journal.",
        Rows::Count(Count::Invalidations),
    ),
    counter(
        "keep_invalidation_markers_total",
        "Keys, tags and patterns in the recorded invalidations.",
        Rows::Count(Count::Markers),
    ),
    counter(
        "keep_invalidations_pending_total",
        "Invalidations that could not be confirmed everywhere in time.",
        Rows::Count(Count::InvalidationsPending),
    ),
    counter(
        "keep_journal_unverified_total",
        "How often this instance did not know whether what it stores still holds.",
        Rows::Words("why", Word::JournalDoubts),
    ),
    counter(
        "keep_journal_replaced_total",
        "How often the journal's past was lost.",
        Rows::Count(Count::JournalReplaced),
    ),
    counter(
        "keep_coherency_checks_total",
        "Invalidations that were checked to be carried out everywhere, by how long after.",
        Rows::Words("window", Word::CoherencyChecks),
    ),
    counter(
        "keep_coherency_violations_total",
        "What checks of invalidations found broken.",
        Rows::Words("invariant", Word::CoherencyViolations),
    ),
    counter(
        "keep_remote_waits_total",
        "Requests that waited for a remote's quota before they were sent.",
        Rows::Count(Count::RemoteWaits),
    ),
    counter(
        "keep_remote_refusals_total",
        "Requests that were not sent because of a remote's quota.",
        Rows::Count(Count::RemoteRefusals),
    ),
    counter(
        "keep_progress_events_total",
        "Steps that progress streams took.",
        Rows::Count(Count::Progress),
    ),
    counter(
        "keep_redis_downs_total",
        "How often Redis went away, or was away for another reason than before.",
        Rows::Count(Count::RedisDowns),
    ),
    counter(
        "keep_alerts_total",
        "Changes of alerts, by what they became.",
        Rows::Words("state", Word::Alerts),
    ),
    counter(
        "keep_warnings_total",
        "Warnings about the way something is set up.",
        Rows::Count(Count::Warnings),
    ),
    counter(
        "keep_rate_limit_bans_total",
        "Clients that were banned, counted once for each ban.",
        Rows::Count(Count::Bans),
    ),
    counter(
        "keep_rate_limit_shut_out_total",
        "Requests refused because of who sent them.",
        Rows::Words("reason", Word::ShutOut),
    ),
    counter(
        "keep_peer_unknown_total",
        "Requests without a peer address, which share one rate limit.",
        Rows::Count(Count::PeersUnknown),
    ),
];
