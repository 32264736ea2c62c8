//! What a stack knows, brought together for a report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::keep::parts::Keep;
use crate::metrics::{Snapshot, Window, WindowFigures};
use crate::report::{
    Baseline, CacheSection, ConnectionsSection, DatabaseSection, Day, Degradation, GuardSection,
    InvalidationSection, LimiterSection, MemorySection, Observed, READ_EVERY, RedisSection, Report,
    ReportError, RuntimeSection, Settings, Table, TiersSection, judge,
};

impl Keep {
    /// How the service has done over `window`: a score with its reasons, what to change, and the figures behind
    /// both. See [`Report`] for how it is judged.
    ///
    /// Asks nobody and waits for nothing. Takes some microseconds for each route: for people and tickers, not for
    /// requests.
    #[must_use]
    pub fn report(&self, window: Window) -> Report {
        judge(&self.observed(window))
    }

    /// Whether the service does less well than it should, and why: from the health board and the last minute.
    /// Takes some microseconds for each route.
    #[must_use]
    pub fn is_degraded(&self) -> Degradation {
        judge(&self.observed(Window::Minute)).degradation()
    }

    /// Keeps the report of `window` under a name, for later ones to be compared with; of this instance, in Redis
    /// for all of them. An earlier one of that name is replaced. See [`Baselines::save`](crate::report::Baselines::save).
    ///
    /// # Errors
    ///
    /// A name that is none; the store's error, after which it may be saved again.
    pub async fn save_baseline(&self, name: &str, window: Window) -> Result<Baseline, ReportError> {
        let baseline = self.report(window).baseline();
        self.archive().baselines.save(name, &baseline).await?;
        Ok(baseline)
    }

    /// What was saved under this name, if anything; for [`Report::compare`].
    ///
    /// # Errors
    ///
    /// A name that is none, the store's error, or something else than a baseline under its key.
    pub async fn baseline(&self, name: &str) -> Result<Option<Baseline>, ReportError> {
        self.archive().baselines.load(name).await
    }

    /// The last `days` days, at most `report.trend_days`, oldest first; with Redis those of all instances. See
    /// [`Trend::days`](crate::report::Trend::days).
    pub async fn trend(&self, days: u32) -> Vec<Day> {
        self.archive().trend.days(days).await
    }

    /// Adds what has been counted since the last time to the day, at once and not within
    /// `report.trend_every_ms`; see [`Trend::add_up`](crate::report::Trend::add_up).
    pub async fn add_up_trend(&self) {
        self.archive().trend.add_up().await;
    }

    fn observed(&self, window: Window) -> Observed {
        let seen = self.metrics().window(window);
        let WindowFigures {
            covers, figures, ..
        } = &seen;
        let table = Table::of(&figures.routes, *covers);
        Observed {
            instance: self.health_board().instance().to_owned(),
            at: self.clock().wall(),
            window,
            covers: *covers,
            traffic: table.all,
            routes: table.worst,
            rest: table.rest,
            others: table.others,
            cache: cache(self, figures),
            tiers: tiers(self, &seen),
            limiter: limiter(self, figures),
            guard: guard(self, figures),
            connections: ConnectionsSection {
                opened: figures.connections.opened,
                refused_full: named(&figures.connections.refused, "full"),
                open: self.connections().open_count() as u64,
            },
            memory: memory(self, figures),
            runtime: runtime(self),
            database: DatabaseSection {
                queries: figures.queries.count,
                slow: figures.queries_slow,
                p95: figures.queries.p95,
                waits: figures.database_waits.count,
                unserved: figures.database_unserved,
                wait_p95: figures.database_waits.p95,
            },
            redis: redis(self, figures),
            invalidation: InvalidationSection {
                recorded: figures.invalidations,
                pending: figures.invalidations_pending,
                verified: self.metrics().gauge_value("keep_journal_verified") != Some(0.0),
                doubts: sum(&figures.journal_doubts),
                violations: sum(&figures.coherency_violations),
                markers: self.journal().figures().markers as u64,
            },
            health: self.health(),
            settings: settings(self),
        }
    }
}

/// Starts adding up days, which goes on until the stack is shut down or dropped.
pub(crate) fn start(keep: &Keep) {
    if keep.config().metrics.enabled {
        keep.archive().trend.start(&keep.spawner());
        let (evictions, tiers) = (keep.archive().evictions.clone(), keep.tiers().clone());
        keep.spawner()
            .every(READ_EVERY, move || evictions.note(tiers.evictions()));
    }
}

fn cache(keep: &Keep, figures: &Snapshot) -> CacheSection {
    let totals = &figures.cache;
    CacheSection {
        enabled: keep.config().cache.enabled,
        hits: totals.hits + totals.collapsed,
        stale_hits: totals.stale_hits,
        misses: totals.missed(),
        misses_stale: totals.stale_misses,
        hit_ratio: None,
        bytes: keep.http_cache().bytes(),
    }
}

fn tiers(keep: &Keep, seen: &WindowFigures) -> TiersSection {
    let (tiers, counted) = (keep.tiers(), &seen.figures.tiers);
    let evictions = &keep.archive().evictions;
    TiersSection {
        found_behind: sum(&counted.hits),
        computed: counted.computed.count,
        failed: counted.failed,
        bytes: tiers.bytes(),
        evictions: evictions.within(seen.covers, tiers.evictions()),
    }
}

fn limiter(keep: &Keep, figures: &Snapshot) -> LimiterSection {
    let rules = &figures.rate_limit;
    let strictest = rules.iter().max_by_key(|(_, rule)| rule.denied);
    let strictest = strictest.filter(|(_, rule)| rule.denied > 0);
    LimiterSection {
        allowed: rules.values().map(|rule| rule.allowed).sum(),
        denied: rules.values().map(|rule| rule.denied).sum(),
        shadow_denied: rules.values().map(|rule| rule.shadow_denied).sum(),
        default_rule: rules
            .get("default")
            .map_or((0, 0), |rule| (rule.allowed, rule.denied)),
        strictest: strictest.map(|(name, rule)| (Arc::clone(name), rule.denied)),
        bans: figures.bans,
        shut_out: sum(&figures.shut_out),
        evictions: keep.limiter().evictions(),
    }
}

fn guard(keep: &Keep, figures: &Snapshot) -> GuardSection {
    let totals = &figures.guard;
    let for_load = totals.refused.iter().filter(|(why, _)| is_for_load(why));
    GuardSection {
        admitted: totals.admitted.count,
        refused: totals.refused.clone(),
        refused_for_load: for_load.map(|(_, count)| count).sum(),
        left: totals.left,
        wait_p95: totals.admitted.p95,
        slots: keep.guard().slots() as u64,
        queued: keep.guard().queued() as u64,
    }
}

/// More slots would have helped.
fn is_for_load(why: &str) -> bool {
    !matches!(why, "memory_pressure" | "route_full")
}

fn memory(keep: &Keep, figures: &Snapshot) -> MemorySection {
    let reading = keep.guard().memory();
    MemorySection {
        used_bytes: reading.used_bytes,
        budget_bytes: reading.budget_bytes,
        relieved: sum(&figures.guard.relieved),
        leaks: figures.guard.leaks,
    }
}

fn runtime(keep: &Keep) -> RuntimeSection {
    let reading = keep.guard().runtime();
    RuntimeSection {
        busy: reading.busy.map(f64::from),
        lag_p99: reading.lag_p99,
        cpu: reading.cpu.map(f64::from),
    }
}

fn redis(keep: &Keep, figures: &Snapshot) -> RedisSection {
    let up = keep.metrics().gauge_value("keep_redis_up");
    RedisSection {
        configured: keep.config().redis.url.is_some(),
        up: up.is_some_and(|up| up > 0.0),
        answered: figures.redis.count,
        failed: sum(&figures.redis_failed),
        timeouts: named(&figures.redis_failed, "timeout"),
        p95: figures.redis.p95,
        downs: figures.redis_downs,
    }
}

fn settings(keep: &Keep) -> Settings {
    let config = keep.config();
    Settings {
        metrics_slow_request_ms: millis(config.metrics.slow_request),
        metrics_routes_max: config.metrics.routes_max as u64,
        guard_enabled: config.guard.enabled,
        guard_slots: config.guard.slots as u64,
        guard_slots_min: config.guard.slots_min as u64,
        guard_queue: config.guard.queue as u64,
        guard_lag_target_ms: millis(config.guard.lag_target),
        connections_max: config.connections.connections_max as u64,
        rate_limit_requests_max: config.rate_limit.requests_max.into(),
        rate_limit_keys_max: config.rate_limit.keys_max as u64,
        cache_capacity_bytes: config.cache.capacity_bytes,
        cache_body_bytes_max: config.cache.body_bytes_max,
        cache_stale_while_revalidate_ms: millis(config.cache.stale_while_revalidate),
        tiers_capacity_bytes: config.tiers.capacity_bytes,
        journal_markers_max: config.journal.markers_max as u64,
        database_connections_max: config.database.connections_max.into(),
        redis_command_timeout_ms: millis(config.redis.command_timeout),
    }
}

fn sum(counts: &BTreeMap<Arc<str>, u64>) -> u64 {
    counts.values().sum()
}

fn named(counts: &BTreeMap<Arc<str>, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or_default()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::event::Event;
    use crate::profile::Profile;
    use crate::tiers::{CacheError, EntryOptions};

    #[tokio::test(start_paused = true)]
    async fn what_typed_caches_let_go_counts_in_the_window_in_which_they_did() {
        let (clock, hand) = Clock::manual();
        let small = serde_json::json!({"tiers": {
            "capacity_bytes": 1 << 20, "tenant_bytes_max": 1 << 20, "value_bytes_max": 128 << 10,
        }});
        let builder = Keep::builder(Profile::development()).clock(clock);
        let keep = builder.overlay(small).build().unwrap();
        let evictions = |window| keep.report(window).observed.tiers.evictions;
        let cache = keep.cache::<String>("pages");
        for page in 0..100 {
            let compute = || async { Ok::<_, CacheError>("x".repeat(64 << 10)) };
            let (key, options) = (page.to_string(), EntryOptions::new());
            cache.get_or_compute(&key, &options, compute).await.unwrap();
        }
        let let_go = keep.tiers().evictions();
        assert!(let_go > 0);
        assert_eq!(evictions(Window::Minute), let_go);
        for _ in 0..12 {
            hand.advance(READ_EVERY);
            tokio::time::sleep(READ_EVERY).await;
        }
        assert_eq!(evictions(Window::Minute), 0);
        assert_eq!(evictions(Window::Hour), let_go);
    }

    #[tokio::test]
    async fn neither_memory_nor_the_rule_of_a_route_makes_the_guard_short_of_slots() {
        let keep = Keep::builder(Profile::development()).build().unwrap();
        for why in [
            "overloaded",
            "queue_timeout",
            "shed",
            "displaced",
            "memory_pressure",
            "route_full",
        ] {
            keep.events().emit(Event::GuardRefused {
                why,
                waited: Duration::ZERO,
            });
        }
        let guard = keep.report(Window::Minute).observed.guard;
        assert_eq!((guard.asked(), guard.refused_for_load), (6, 4));
    }
}
