//! What to change: recommendations, each of which names a setting.

use std::fmt::{self, Display};

use serde::Serialize;

use crate::report::observed::Observed;
use crate::report::spoken::{mebibytes, percent, ratio, time};

/// A setting to change, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recommendation {
    /// The setting, as it is called in a file: `guard.slots`.
    pub setting: &'static str,
    /// What it is now.
    pub now: String,
    /// What it might be, in the same unit.
    pub proposed: String,
    /// What speaks for that, for a person to read.
    pub why: String,
}

impl Display for Recommendation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            setting,
            now,
            proposed,
            why,
        } = self;
        write!(f, "{setting} = {now}: {why}: set it to {proposed}")
    }
}

/// All that the figures speak for, the most pressing first. One at a time, then look again: they were found
/// independently of each other.
pub(crate) fn recommendations(seen: &Observed) -> Vec<Recommendation> {
    RULES.iter().filter_map(|rule| rule(seen)).collect()
}

const RULES: [fn(&Observed) -> Option<Recommendation>; 12] = [
    smaller_cache,
    fewer_slots,
    more_slots,
    more_database_connections,
    longer_command_timeout,
    stale_while_revalidate,
    larger_cache,
    larger_tiers,
    more_requests_for_each,
    more_connections,
    more_markers,
    more_routes,
];

/// A share of so few says nothing.
const ENOUGH: u64 = 100;

/// The most that the configuration allows caches to hold.
const CAPACITY_MAX: u64 = 64 << 30;

/// The runtime has time to spare, as far as is known.
fn is_idle(seen: &Observed) -> bool {
    seen.runtime.busy.is_none_or(|busy| busy < 0.70)
}

/// There is memory to spare, as far as is known.
fn has_memory(seen: &Observed) -> bool {
    seen.memory.share().is_none_or(|share| share < 0.70)
}

fn busy(seen: &Observed) -> String {
    match seen.runtime.busy {
        Some(busy) => format!("the runtime was busy {}", percent(busy)),
        None => "nobody knows how busy the runtime was".to_owned(),
    }
}

fn memory(seen: &Observed) -> String {
    match seen.memory.share() {
        Some(share) => format!("{} of the memory is used", percent(share)),
        None => "nobody knows how much memory is used".to_owned(),
    }
}

fn change(
    setting: &'static str,
    now: impl Display,
    proposed: impl Display,
    why: String,
) -> Recommendation {
    Recommendation {
        setting,
        now: now.to_string(),
        proposed: proposed.to_string(),
        why,
    }
}

fn smaller_cache(seen: &Observed) -> Option<Recommendation> {
    let share = seen.memory.share().filter(|share| *share >= 0.90)?;
    let (stored, now) = (seen.cache.bytes, seen.settings.cache_capacity_bytes);
    let is_large = ratio(stored, seen.memory.used_bytes).is_some_and(|part| part >= 0.25);
    let why = format!(
        "{} of the memory is used, {} of it by stored answers",
        percent(share),
        mebibytes(stored)
    );
    // The configuration refuses a cache that four of the largest answers do not fit into.
    let least = seen.settings.cache_body_bytes_max.saturating_mul(4);
    let less = (now / 2).max(least).max(1 << 20);
    (is_large && less < now).then(|| change("cache.capacity_bytes", now, less, why))
}

fn fewer_slots(seen: &Observed) -> Option<Recommendation> {
    let now = seen.settings.guard_slots;
    let target = seen.settings.guard_lag_target_ms;
    let late = seen.runtime.lag_p99.as_millis() >= u128::from(target) * 10;
    let busy = seen.runtime.busy.filter(|busy| *busy >= 0.90)?;
    let why = format!(
        "tasks wait up to {} for a runtime that is busy {}",
        time(seen.runtime.lag_p99),
        percent(busy)
    );
    let less = (now / 2).max(seen.settings.guard_slots_min);
    let possible = late && target > 0 && now > 4 && less < now;
    possible.then(|| change("guard.slots", now, less, why))
}

fn more_slots(seen: &Observed) -> Option<Recommendation> {
    let (refused, asked) = (seen.guard.refused_for_load, seen.guard.asked());
    let share = ratio(refused, asked).filter(|share| *share >= 0.01 && asked >= ENOUGH)?;
    let now = seen.settings.guard_slots;
    let why = format!(
        "{} of the requests were turned away while {} and {}",
        percent(share),
        busy(seen),
        memory(seen)
    );
    let more = (now * 2).min(100_000);
    // Where fewer are in force, latency or the runtime's lag has taken the others: more would not be used.
    let in_force = seen.guard.slots >= now;
    let possible = in_force && is_idle(seen) && has_memory(seen) && more > now;
    possible.then(|| change("guard.slots", now, more, why))
}

fn more_database_connections(seen: &Observed) -> Option<Recommendation> {
    let database = &seen.database;
    let in_vain = ratio(database.unserved, database.waits).is_some_and(|share| share >= 0.01);
    let waited = database.wait_p95.unwrap_or_default();
    let long = waited.as_millis() >= 100;
    let now = seen.settings.database_connections_max;
    let why = format!(
        "one wait for a connection in 20 took {} or longer, {} of {} were in vain; if the server allows more",
        time(waited),
        database.unserved,
        database.waits
    );
    let more = (now + now.div_ceil(2)).min(1000);
    let needed = (in_vain || long) && database.waits >= ENOUGH && more > now;
    needed.then(|| change("database.connections_max", now, more, why))
}

fn longer_command_timeout(seen: &Observed) -> Option<Recommendation> {
    let redis = &seen.redis;
    let asked = redis.answered + redis.failed;
    let share = ratio(redis.timeouts, asked).filter(|share| *share >= 0.01 && asked >= ENOUGH)?;
    let now = seen.settings.redis_command_timeout_ms;
    let p95 = redis.p95.unwrap_or_default();
    // Where most answers come far below the limit, the rest will not come just above it.
    let close = p95.as_millis() * 2 >= u128::from(now);
    let why = format!(
        "Redis gave {} of its answers too late, and one in 20 takes {} or longer",
        percent(share),
        time(p95)
    );
    let more = (now * 2).min(60_000);
    (close && more > now).then(|| change("redis.command_timeout_ms", now, more, why))
}

fn stale_while_revalidate(seen: &Observed) -> Option<Recommendation> {
    let (stale, lookups) = (seen.cache.misses_stale, seen.cache.lookups());
    let share = ratio(stale, lookups).filter(|share| *share >= 0.10 && lookups >= ENOUGH)?;
    let now = seen.settings.cache_stale_while_revalidate_ms;
    let why = format!(
        "{} of the requests waited for an answer that was there and only just too old; if an older one may be \
         served while a new one is made, and those answers do not forbid it by `must-revalidate`, \
         `proxy-revalidate` or `s-maxage`",
        percent(share)
    );
    (now == 0).then(|| change("cache.stale_while_revalidate_ms", now, 30_000, why))
}

fn larger_cache(seen: &Observed) -> Option<Recommendation> {
    let hits = seen.cache.share_of_hits().filter(|hits| *hits < 0.70)?;
    let (stored, now) = (seen.cache.bytes, seen.settings.cache_capacity_bytes);
    let is_full = ratio(stored, now).is_some_and(|share| share >= 0.90);
    let why = format!(
        "the cache answered {} of the requests and is full, and {}",
        percent(hits),
        memory(seen)
    );
    // The configuration refuses a cache of more than half of a budget.
    let most = match seen.memory.budget_bytes {
        0 => u64::MAX,
        budget => budget / 2,
    };
    let more = now.saturating_mul(2).min(most).min(CAPACITY_MAX);
    let needed = seen.cache.lookups() >= ENOUGH && is_full && has_memory(seen) && more > now;
    needed.then(|| change("cache.capacity_bytes", now, more, why))
}

fn larger_tiers(seen: &Observed) -> Option<Recommendation> {
    let tiers = &seen.tiers;
    let now = seen.settings.tiers_capacity_bytes;
    let is_full = ratio(tiers.bytes, now).is_some_and(|share| share >= 0.90);
    let behind = tiers.found_behind + tiers.computed;
    let why = format!(
        "typed caches are full and let {} values go, {behind} had to be fetched or computed, and {}",
        tiers.evictions,
        memory(seen)
    );
    let more = now.saturating_mul(2).min(CAPACITY_MAX);
    // Where few had to go, the others would have had to be fetched or computed all the same.
    let lost = ratio(tiers.evictions, behind).is_some_and(|share| share >= 0.10);
    let pressed = is_full && lost && behind >= ENOUGH;
    let possible = pressed && has_memory(seen) && more > now;
    possible.then(|| change("tiers.capacity_bytes", now, more, why))
}

fn more_requests_for_each(seen: &Observed) -> Option<Recommendation> {
    let (allowed, denied) = seen.limiter.default_rule;
    let asked = allowed + denied;
    let share = ratio(denied, asked).filter(|share| *share >= 0.10 && asked >= ENOUGH)?;
    let now = seen.settings.rate_limit_requests_max;
    let why = format!(
        "the rule `default` turned away {} of the requests while {}; if those are users and not an attack",
        percent(share),
        busy(seen)
    );
    let more = (now * 2).min(u64::from(u32::MAX));
    (is_idle(seen) && more > now).then(|| change("rate_limit.requests_max", now, more, why))
}

fn more_connections(seen: &Observed) -> Option<Recommendation> {
    let (refused, now) = (seen.connections.refused_full, seen.settings.connections_max);
    let why = format!(
        "{refused} connections that stay were turned away, and {}",
        memory(seen)
    );
    let more = (now * 2).min(1_000_000);
    let needed = refused > 0 && has_memory(seen) && more > now;
    needed.then(|| change("connections.connections_max", now, more, why))
}

fn more_markers(seen: &Observed) -> Option<Recommendation> {
    let (markers, now) = (seen.invalidation.markers, seen.settings.journal_markers_max);
    let share = ratio(markers, now).filter(|share| *share >= 0.90)?;
    let why = format!(
        "{} of the places for what was invalidated are taken, and beyond them older answers are forgotten",
        percent(share)
    );
    let more = (now * 2).min(16_777_216);
    let possible = has_memory(seen) && more > now;
    possible.then(|| change("journal.markers_max", now, more, why))
}

fn more_routes(seen: &Observed) -> Option<Recommendation> {
    let all = seen.routes.iter().chain(&seen.others);
    let tables = all.filter(|line| &*line.route == "other");
    let others: u64 = tables.map(|line| line.requests).sum();
    let share = ratio(others, seen.traffic.requests).filter(|share| *share >= 0.01)?;
    let now = seen.settings.metrics_routes_max;
    let why = format!(
        "{} of the requests are on routes that are not told apart",
        percent(share)
    );
    let more = (now * 2).min(10_000);
    (more > now).then(|| change("metrics.routes_max", now, more, why))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Window;
    use crate::report::lines::RouteLine;

    /// A service with the settings of a small host on which nothing is amiss.
    fn small() -> Observed {
        let mut seen = Observed::nothing(Window::FiveMinutes);
        seen.memory.used_bytes = 200 << 20;
        seen.memory.budget_bytes = 450 << 20;
        seen.runtime.busy = Some(0.4);
        seen.cache.enabled = true;
        seen.guard.slots = 16;
        let settings = &mut seen.settings;
        settings.metrics_routes_max = 512;
        settings.guard_slots = 16;
        settings.guard_lag_target_ms = 10;
        settings.connections_max = 350;
        settings.rate_limit_requests_max = 300;
        settings.rate_limit_keys_max = 65_536;
        settings.cache_capacity_bytes = 64 << 20;
        settings.tiers_capacity_bytes = 16 << 20;
        settings.journal_markers_max = 16_384;
        settings.database_connections_max = 3;
        settings.redis_command_timeout_ms = 50;
        seen
    }

    type Change = fn(&mut Observed);

    /// The setting, what brings the recommendation about, what is proposed, and what takes it away again.
    const TABLE: &[(&str, Change, &str, Change)] = &[
        (
            "cache.capacity_bytes",
            |seen| {
                seen.memory.used_bytes = 420 << 20;
                seen.cache.bytes = 120 << 20;
                seen.settings.cache_capacity_bytes = 128 << 20;
            },
            "67108864",
            |seen| seen.cache.bytes = 50 << 20,
        ),
        (
            "guard.slots",
            |seen| {
                seen.runtime.busy = Some(0.95);
                seen.runtime.lag_p99 = Duration::from_millis(180);
            },
            "8",
            |seen| seen.runtime.lag_p99 = Duration::from_millis(50),
        ),
        (
            "guard.slots",
            |seen| {
                seen.guard.admitted = 880;
                seen.guard.refused.insert("overloaded".into(), 120);
                seen.guard.refused_for_load = 120;
            },
            "32",
            |seen| seen.runtime.busy = Some(0.9),
        ),
        (
            "guard.slots",
            |seen| {
                seen.guard.admitted = 880;
                seen.guard.refused.insert("shed".into(), 120);
                seen.guard.refused_for_load = 120;
            },
            "32",
            |seen| seen.memory.used_bytes = 400 << 20,
        ),
        (
            "guard.slots",
            |seen| {
                seen.guard.admitted = 880;
                seen.guard.refused.insert("overloaded".into(), 120);
                seen.guard.refused_for_load = 120;
            },
            "32",
            |seen| seen.guard.slots = 15,
        ),
        (
            "guard.slots",
            |seen| {
                seen.guard.admitted = 880;
                seen.guard.refused.insert("overloaded".into(), 120);
                seen.guard.refused_for_load = 120;
            },
            "32",
            |seen| {
                // By the rule of a route.
                seen.guard.refused = [("route_full".into(), 120)].into();
                seen.guard.refused_for_load = 0;
            },
        ),
        (
            "database.connections_max",
            |seen| {
                seen.database.waits = 200;
                seen.database.unserved = 2;
            },
            "5",
            |seen| seen.database.unserved = 1,
        ),
        (
            "database.connections_max",
            |seen| {
                seen.database.waits = 200;
                seen.database.wait_p95 = Some(Duration::from_millis(100));
            },
            "5",
            |seen| seen.database.wait_p95 = Some(Duration::from_millis(99)),
        ),
        (
            "redis.command_timeout_ms",
            |seen| {
                seen.redis.answered = 980;
                (seen.redis.failed, seen.redis.timeouts) = (20, 20);
                seen.redis.p95 = Some(Duration::from_millis(30));
            },
            "100",
            |seen| seen.redis.p95 = Some(Duration::from_millis(2)),
        ),
        (
            "cache.stale_while_revalidate_ms",
            |seen| {
                (seen.cache.hits, seen.cache.misses) = (800, 200);
                seen.cache.misses_stale = 150;
            },
            "30000",
            |seen| seen.cache.misses_stale = 50,
        ),
        (
            "cache.capacity_bytes",
            |seen| {
                (seen.cache.hits, seen.cache.misses) = (400, 600);
                seen.cache.bytes = 60 << 20;
            },
            "134217728",
            |seen| seen.cache.bytes = 40 << 20,
        ),
        (
            "tiers.capacity_bytes",
            |seen| {
                (seen.tiers.bytes, seen.tiers.evictions) = (15 << 20, 20);
                seen.tiers.computed = 200;
            },
            "33554432",
            |seen| seen.tiers.evictions = 19,
        ),
        (
            "rate_limit.requests_max",
            |seen| seen.limiter.default_rule = (850, 150),
            "600",
            |seen| seen.limiter.default_rule = (950, 50),
        ),
        (
            "connections.connections_max",
            |seen| seen.connections.refused_full = 1,
            "700",
            |seen| seen.connections.refused_full = 0,
        ),
        (
            "journal.markers_max",
            |seen| seen.invalidation.markers = 15_000,
            "32768",
            |seen| seen.invalidation.markers = 14_000,
        ),
        (
            "metrics.routes_max",
            |seen| {
                seen.traffic.requests = 1000;
                let mut other = RouteLine::named("other", "GET");
                other.requests = 20;
                seen.routes.push(other);
            },
            "1024",
            |seen| seen.routes.clear(),
        ),
        (
            "metrics.routes_max",
            |seen| {
                seen.traffic.requests = 1000;
                let mut other = RouteLine::named("other", "GET");
                other.requests = 20;
                seen.others.push(other);
            },
            "1024",
            |seen| seen.others.clear(),
        ),
    ];

    #[test]
    fn each_recommendation_comes_with_its_cause_and_goes_with_it() {
        assert_eq!(recommendations(&small()), []);
        for (at, (setting, cause, proposed, remedy)) in TABLE.iter().enumerate() {
            let mut seen = small();
            cause(&mut seen);
            let found = recommendations(&seen);
            assert_eq!(found.len(), 1, "row {at}: {found:?}");
            assert_eq!(
                (found[0].setting, &*found[0].proposed),
                (*setting, *proposed),
                "row {at}"
            );
            remedy(&mut seen);
            let left = recommendations(&seen);
            assert_eq!(left, [], "row {at}");
        }
    }

    #[test]
    fn it_is_said_in_one_sentence() {
        let mut seen = small();
        seen.guard.admitted = 880;
        seen.guard.refused.insert("overloaded".into(), 120);
        seen.guard.refused_for_load = 120;
        assert_eq!(
            recommendations(&seen)[0].to_string(),
            "guard.slots = 16: 12 % of the requests were turned away while the runtime was busy 40 % and \
             44 % of the memory is used: set it to 32"
        );
    }

    /// Whether they do is not counted.
    #[test]
    fn answers_that_forbid_to_be_served_stale_are_no_reason_to_allow_it() {
        let mut seen = small();
        (seen.cache.hits, seen.cache.misses) = (800, 200);
        seen.cache.misses_stale = 150;
        let why = &recommendations(&seen)[0].why;
        for directive in ["must-revalidate", "proxy-revalidate", "s-maxage"] {
            assert!(why.contains(directive), "{why}");
        }
    }

    #[test]
    fn what_is_at_its_limit_is_not_raised() {
        let mut seen = small();
        seen.settings.database_connections_max = 1000;
        (seen.database.waits, seen.database.unserved) = (100, 100);
        seen.settings.cache_capacity_bytes = 225 << 20;
        seen.cache.bytes = 225 << 20;
        seen.cache.misses = 1000;
        seen.settings.journal_markers_max = 16_777_216;
        seen.invalidation.markers = 16_777_216;
        assert_eq!(recommendations(&seen), []);
        let mut seen = small();
        (seen.memory.used_bytes, seen.memory.budget_bytes) = (1 << 30, 1 << 40);
        seen.settings.tiers_capacity_bytes = CAPACITY_MAX;
        (seen.tiers.bytes, seen.tiers.evictions) = (CAPACITY_MAX, 700);
        seen.tiers.computed = 1000;
        assert_eq!(recommendations(&seen), []);
    }

    /// `build()` refuses a cache into which four of the largest answers do not fit, and fewer slots than the
    /// fewest.
    #[test]
    fn nothing_is_lowered_below_what_other_settings_need() {
        let mut seen = small();
        seen.memory.used_bytes = 420 << 20;
        seen.cache.bytes = 120 << 20;
        seen.settings.cache_body_bytes_max = 12 << 20;
        assert_eq!(
            recommendations(&seen)[0].proposed,
            (48_u64 << 20).to_string()
        );
        seen.settings.cache_body_bytes_max = 16 << 20;
        assert_eq!(recommendations(&seen), []);
        let mut seen = small();
        seen.runtime.busy = Some(0.95);
        seen.runtime.lag_p99 = Duration::from_millis(180);
        seen.settings.guard_slots_min = 12;
        assert_eq!(recommendations(&seen)[0].proposed, "12");
        seen.settings.guard_slots_min = 16;
        assert_eq!(recommendations(&seen), []);
    }
}
