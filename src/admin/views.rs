//! What the engines look like from outside, as JSON. Everything is bounded: lists are the first of their kind.

use serde_json::{Value, json};

use crate::admin::sources::{AdminEngines, AdminSources};
use crate::journal::JournalStatus;
use crate::metrics::{Quantiles, Window};
use crate::rate_limit::TopEntry;
use crate::tiers::CacheStats;

/// How long lists are: tenants, keys, those who press against limits.
const LIST: usize = 50;

/// The last slow requests.
pub(crate) fn slow(sources: &AdminSources) -> Value {
    json!({"slow": sources.metrics.slow_requests()})
}

/// Stored answers, typed values, and what is done ahead of time.
pub(crate) fn cache(sources: &AdminSources, engines: &AdminEngines) -> Value {
    let figures = sources.metrics.window(Window::FiveMinutes);
    let tiers = &engines.tiers;
    let hottest = engines.warmer.hottest(LIST);
    let hottest: Vec<_> = hottest.iter().map(ToString::to_string).collect();
    json!({
        "enabled": engines.cache.config().enabled,
        "answers": engines.cache.totals(),
        "window": Window::FiveMinutes,
        "hit_ratio": figures.hit_ratio(),
        "counted": figures.figures.cache,
        "values": values(&tiers.stats(), tiers.capacity_bytes()),
        "behind_memory": figures.figures.tiers.hits,
        "cold": tiers.cold_figures().map(|cold| json!({
            "waiting": cold.waiting,
            "written": cold.written,
            "dropped": cold.dropped,
            "failures": cold.failures,
        })),
        "warming": engines.warmer.stats(),
        "hottest": hottest,
    })
}

/// What typed caches have done since the start, and hold.
fn values(stats: &CacheStats, capacity_bytes: u64) -> Value {
    json!({
        "hits_hot": stats.hits_hot,
        "hits_warm": stats.hits_warm,
        "hits_cold": stats.hits_cold,
        "misses": stats.misses,
        "hit_ratio": stats.hit_ratio(),
        "served_stale": stats.served_stale,
        "collapsed": stats.collapsed,
        "computed": stats.computed,
        "failed": stats.failed,
        "evictions": stats.evictions,
        "entries": stats.entries,
        "bytes": stats.bytes,
        "capacity_bytes": capacity_bytes,
        "saved_ms": stats.saved.as_millis() as u64,
    })
}

/// The limits, who presses against them, and the room there is for counting.
pub(crate) fn limiter(sources: &AdminSources, engines: &AdminEngines) -> Value {
    let figures = sources.metrics.window(Window::FiveMinutes).figures;
    let limiter = &engines.limiter;
    let top = limiter.top(LIST);
    json!({
        "enabled": limiter.is_enabled(),
        "window": Window::FiveMinutes,
        "rules": figures.rate_limit,
        "bans": figures.bans,
        "shut_out": figures.shut_out,
        "table_bytes": limiter.table_bytes(),
        "evictions": limiter.evictions(),
        "top": top.iter().map(pressing).collect::<Vec<_>>(),
    })
}

fn pressing(entry: &TopEntry) -> Value {
    json!({
        "rule": entry.rule,
        "who": entry.who,
        "refused": entry.refused,
        "near": entry.near,
        "seen_ms_ago": entry.seen.as_millis() as u64,
    })
}

/// What was invalidated, and whether everything is heard.
pub(crate) fn journal(sources: &AdminSources, engines: &AdminEngines) -> Value {
    let journal = engines.cache.journal();
    let (position, figures) = (journal.position(), journal.figures());
    let counted = sources.metrics.window(Window::FiveMinutes).figures;
    let (status, since_ms, why) = match journal.status() {
        JournalStatus::Verified => ("verified", None, None),
        JournalStatus::Unverified { since, why } => (
            "unverified",
            Some(since.as_millis() as u64),
            Some(why.as_str()),
        ),
    };
    json!({
        "status": status,
        "why": why,
        "since_ms": since_ms,
        // As text, since not every reader of JSON has numbers of 64 bits.
        "incarnation": format!("{:016x}", position.inc),
        "seq": position.seq,
        "markers": figures.markers,
        "bytes": figures.bytes,
        "waiting": figures.waiting,
        "window": Window::FiveMinutes,
        "invalidations": counted.invalidations,
        "invalidations_pending": counted.invalidations_pending,
        "doubts": counted.journal_doubts,
        "coherency": engines.coherency.report(),
    })
}

/// The tenants that take up most.
pub(crate) fn tenants(engines: &AdminEngines) -> Value {
    let memory = engines.tiers.largest_tenants(LIST);
    let memory: Vec<_> = memory
        .iter()
        .map(|it| {
            json!({
                "tenant": it.tenant,
                "entries": it.entries,
                "bytes": it.bytes,
                "evictions": it.evictions,
            })
        })
        .collect();
    let connections = engines.connections.busiest_tenants(LIST);
    let connections: Vec<_> = connections
        .iter()
        .map(|(tenant, open)| json!({"tenant": tenant, "open": open}))
        .collect();
    json!({
        "memory": memory,
        "connections": connections,
        "connections_open": engines.connections.open_count(),
        "tenants_connected": engines.connections.tenants(),
    })
}

/// A time in milliseconds, or nothing.
pub(crate) fn latency(quantiles: &Quantiles) -> Value {
    serde_json::to_value(quantiles).unwrap_or_default()
}
