//! What the dashboard shows, in one piece.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::sources::{AdminEngines, AdminSources};
use crate::admin::views::latency;
use crate::clock::Moment;
use crate::metrics::{RouteFigures, Snapshot, Window, WindowFigures};

/// How many routes are shown, those with most requests first.
const ROUTES: usize = 50;
/// How many slow requests are shown.
const SLOW: usize = 20;
/// How many rules are shown, those that refuse most first.
const RULES: usize = 50;

/// What takes longest to put together and changes least: the last hour, of which the frames of all routes are
/// merged, and the report, which takes a window of its own.
#[derive(Debug)]
pub(crate) struct Seldom {
    taken: Moment,
    hour: Value,
    report: Option<Value>,
}

impl Seldom {
    /// How old it may be.
    const AGE: Duration = Duration::from_secs(10);

    fn of(sources: &AdminSources, taken: Moment) -> Self {
        let report = sources.report.as_ref();
        Self {
            taken,
            hour: window(&sources.metrics.window(Window::Hour)),
            report: report.map(|report| judged(&report(Window::FiveMinutes))),
        }
    }
}

/// The figures of this moment, but for those of `before` that are not too old. Takes some microseconds per route.
pub(crate) fn overview(sources: &AdminSources, before: &mut Option<Seldom>) -> Value {
    let now = sources.clock.now();
    let young = before.take().filter(|it| now.since(it.taken) < Seldom::AGE);
    let Seldom { hour, report, .. } =
        before.insert(young.unwrap_or_else(|| Seldom::of(sources, now)));
    let metrics = &sources.metrics;
    let so_far = metrics.snapshot();
    let minute = metrics.window(Window::Minute);
    let lately = &metrics.window(Window::FiveMinutes);
    let mut slow = metrics.slow_requests();
    slow.truncate(SLOW);
    let since = sources.clock.wall();
    let since = since.duration_since(std::time::UNIX_EPOCH);
    json!({
        "at_ms": since.map_or(0, |since| since.as_millis() as u64),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": (sources.ready)(),
        "health": sources.health.health(),
        "report": report,
        "requests": so_far.http,
        "windows": [&window(&minute), &window(lately), hour],
        "routes": routes(lately),
        "cache": cache(lately, sources.engines.as_ref()),
        "limiter": limiter(&lately.figures, sources.engines.as_ref()),
        "guard": guard(lately, sources.engines.as_ref()),
        "memory": sources.engines.as_ref().map(memory),
        "redis": redis(sources, &lately.figures),
        "database": database(&lately.figures, sources.engines.as_ref()),
        "alerts": sources.alerts.as_ref().map(|alerts| alerts()),
        "slow": slow,
    })
}

/// Of a report what the figures beside it do not say.
fn judged(report: &Value) -> Value {
    let names = ["score", "status", "penalties", "recommendations"];
    let said = names
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), report.get(name)?.clone())));
    Value::Object(said.collect())
}

fn window(figures: &WindowFigures) -> Value {
    let http = &figures.figures.http;
    json!({
        "window": figures.window,
        "covers_s": figures.covers.as_secs_f64(),
        "requests": http.requests,
        "per_second": figures.per_second(http.requests),
        "status": http.status,
        "cancelled": http.cancelled,
        "slow": http.slow,
        "error_ratio": figures.error_ratio(),
        "hit_ratio": figures.hit_ratio(),
        "latency": latency(&figures.latency),
    })
}

fn routes(figures: &WindowFigures) -> Value {
    let mut rows: Vec<&RouteFigures> = figures.figures.routes.iter().collect();
    // Where everything hangs, none is over.
    let seen = |row: &RouteFigures| row.counts.requests + row.counts.in_flight;
    rows.retain(|row| seen(row) > 0);
    let all = rows.len();
    rows.sort_by_key(|row| std::cmp::Reverse(seen(row)));
    rows.truncate(ROUTES);
    json!({"window": figures.window, "all": all, "rows": rows})
}

fn cache(figures: &WindowFigures, engines: Option<&AdminEngines>) -> Value {
    let counted = &figures.figures;
    let held = engines.map(|engines| {
        let (answers, tiers) = (engines.cache.totals(), &engines.tiers);
        json!({
            "answers": answers,
            "values": {
                "entries": tiers.len(),
                "bytes": tiers.bytes(),
                "capacity_bytes": tiers.capacity_bytes(),
            },
        })
    });
    json!({
        "window": figures.window,
        "hit_ratio": figures.hit_ratio(),
        "counted": counted.cache,
        "behind_memory": counted.tiers.hits,
        "computed": counted.tiers.computed.count,
        "held": held,
    })
}

fn limiter(figures: &Snapshot, engines: Option<&AdminEngines>) -> Value {
    let mut rules: Vec<_> = figures.rate_limit.iter().collect();
    rules.sort_by_key(|(_, rule)| std::cmp::Reverse(rule.denied));
    rules.truncate(RULES);
    let rules = rules.into_iter().map(|(name, rule)| {
        json!({
            "rule": name,
            "allowed": rule.allowed,
            "denied": rule.denied,
            "shadow_denied": rule.shadow_denied,
        })
    });
    json!({
        "enabled": engines.map(|engines| engines.limiter.is_enabled()),
        "rules": rules.collect::<Vec<_>>(),
        "bans": figures.bans,
        "shut_out": figures.shut_out,
    })
}

fn guard(figures: &WindowFigures, engines: Option<&AdminEngines>) -> Value {
    let counted = &figures.figures.guard;
    let now = engines.map(|engines| {
        let (guard, runtime) = (&engines.guard, engines.guard.runtime());
        json!({
            "slots": guard.slots(),
            "in_flight": guard.in_flight(),
            "queued": guard.queued(),
            "connections": engines.connections.open_count(),
            "circuits_open": engines.breakers.open(),
            "lag_p99_ms": runtime.lag_p99.as_secs_f64() * 1e3,
            "busy": runtime.busy,
            "cpu": runtime.cpu,
        })
    });
    json!({
        "now": now,
        "refused": counted.refused,
        "waited": latency(&counted.admitted),
    })
}

fn memory(engines: &AdminEngines) -> Value {
    let memory = engines.guard.memory();
    let leak = engines.guard.leak().map(|leak| {
        json!({
            "bytes_per_hour": leak.bytes_per_hour,
            "until_limit_s": leak.until_limit.as_secs(),
            "recommendation": leak.recommendation,
        })
    });
    json!({
        "used_bytes": memory.used_bytes,
        "budget_bytes": memory.budget_bytes,
        "level": engines.guard.pressure().name(),
        "stalled_percent": memory.stalled_percent,
        "leak": leak,
    })
}

fn redis(sources: &AdminSources, figures: &Snapshot) -> Value {
    json!({
        "now": sources.redis.as_ref().map(|redis| redis()),
        "latency": latency(&figures.redis),
        "failed": figures.redis_failed,
        "downs": figures.redis_downs,
    })
}

fn database(figures: &Snapshot, engines: Option<&AdminEngines>) -> Value {
    json!({
        "slots_in_use": engines.map(|engines| engines.database_slots.in_flight()),
        "slots_queued": engines.map(|engines| engines.database_slots.queued()),
        "queries": latency(&figures.queries),
        "queries_slow": figures.queries_slow,
        "waits": latency(&figures.database_waits),
        "unserved": figures.database_unserved,
    })
}
