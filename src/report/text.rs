//! A report as text, for a person at a terminal.

use std::fmt;
use std::time::Duration;

use crate::report::lines::RouteLine;
use crate::report::observed::Observed;
use crate::report::spoken::{mebibytes, percent, time};
use crate::report::verdict::Report;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.observed;
        writeln!(
            f,
            "{} ({} of 100): {}, last {} ({} s of it)",
            self.status.name(),
            self.score,
            seen.instance,
            seen.window.name(),
            seen.covers.as_secs()
        )?;
        for penalty in &self.penalties {
            writeln!(
                f,
                "  -{:<3} {}: {}",
                penalty.points, penalty.figure, penalty.reason
            )?;
        }
        if !self.recommendations.is_empty() {
            writeln!(f, "\nRecommendations")?;
        }
        for recommendation in &self.recommendations {
            writeln!(f, "  {recommendation}")?;
        }
        writeln!(f)?;
        doors(f, seen)?;
        ground(f, seen)?;
        stores(f, seen)?;
        routes(f, seen)
    }
}

/// What kept work away from the service.
fn doors(f: &mut fmt::Formatter<'_>, seen: &Observed) -> fmt::Result {
    let (cache, tiers, limiter, guard) = (&seen.cache, &seen.tiers, &seen.limiter, &seen.guard);
    writeln!(
        f,
        "cache         {} of {} answered, {} stored",
        share(cache.share_of_hits()),
        cache.lookups(),
        mebibytes(cache.bytes)
    )?;
    writeln!(
        f,
        "typed caches  {} computed, {} failed, {} found behind memory, {} stored",
        tiers.computed,
        tiers.failed,
        tiers.found_behind,
        mebibytes(tiers.bytes)
    )?;
    let (allowed, denied) = (limiter.allowed, limiter.denied);
    write!(f, "limiter       {allowed} allowed, {denied} denied")?;
    if let Some((rule, denied)) = &limiter.strictest {
        write!(f, ", {denied} of them by `{rule}`")?;
    }
    writeln!(f, ", {} bans, {} shut out", limiter.bans, limiter.shut_out)?;
    let refused: u64 = guard.refused.values().sum();
    writeln!(
        f,
        "guard         {} let in, {refused} turned away, {} wait, {} slots, wait p95 {}",
        guard.admitted,
        guard.queued,
        guard.slots,
        maybe(guard.wait_p95)
    )
}

/// What the service stands on.
fn ground(f: &mut fmt::Formatter<'_>, seen: &Observed) -> fmt::Result {
    let (memory, runtime) = (&seen.memory, &seen.runtime);
    writeln!(
        f,
        "memory        {} of {} ({})",
        mebibytes(memory.used_bytes),
        mebibytes(memory.budget_bytes),
        share(memory.share())
    )?;
    writeln!(
        f,
        "runtime       busy {}, lag p99 {}, cpu {}",
        share(runtime.busy),
        time(runtime.lag_p99),
        share(runtime.cpu)
    )
}

/// What it asks.
fn stores(f: &mut fmt::Formatter<'_>, seen: &Observed) -> fmt::Result {
    let (database, redis, invalidation) = (&seen.database, &seen.redis, &seen.invalidation);
    writeln!(
        f,
        "database      {} queries, {} slow, p95 {}, {} waits, {} in vain",
        database.queries,
        database.slow,
        maybe(database.p95),
        database.waits,
        database.unserved
    )?;
    let there = match (redis.configured, redis.up) {
        (false, _) => "not used",
        (true, true) => "up",
        (true, false) => "away",
    };
    writeln!(
        f,
        "redis         {there}, {} answered, {} not, p95 {}",
        redis.answered,
        redis.failed,
        maybe(redis.p95)
    )?;
    let heard = match invalidation.verified {
        true => "all are heard",
        false => "not all may be heard",
    };
    writeln!(
        f,
        "invalidation  {} recorded, {} pending, {} broken, {heard}",
        invalidation.recorded, invalidation.pending, invalidation.violations
    )
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), percent)
}

fn maybe(wait: Option<Duration>) -> String {
    wait.map_or_else(|| "-".to_owned(), time)
}

fn routes(f: &mut fmt::Formatter<'_>, seen: &Observed) -> fmt::Result {
    writeln!(
        f,
        "\n{:>9} {:>8} {:>8} {:>7} {:>9} {:>9} {:>9}  route",
        "per s", "errors", "slow", "cached", "p50", "p95", "p99"
    )?;
    let lines = [&seen.traffic].into_iter().chain(&seen.routes);
    for line in lines.chain(&seen.rest) {
        route(f, line)?;
    }
    Ok(())
}

fn route(f: &mut fmt::Formatter<'_>, line: &RouteLine) -> fmt::Result {
    let RouteLine {
        route,
        method,
        errors,
        slow,
        per_second,
        ..
    } = line;
    let cached = share(line.cache_share);
    let [p50, p95, p99] = [line.p50, line.p95, line.p99].map(maybe);
    writeln!(
        f,
        "{per_second:>9.2} {errors:>8} {slow:>8} {cached:>7} {p50:>9} {p95:>9} {p99:>9}  {method} {route}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Window;
    use crate::report::verdict::judge;

    #[test]
    fn a_person_finds_score_reasons_advice_and_routes() {
        let mut seen = Observed::nothing(Window::Minute);
        seen.instance = "a1".to_owned();
        seen.covers = Duration::from_secs(60);
        seen.traffic.requests = 1000;
        seen.traffic.errors = 50;
        seen.settings.connections_max = 350;
        seen.connections.refused_full = 2;
        let mut line = RouteLine::named("/reports/{id}", "GET");
        line.p95 = Some(Duration::from_millis(12));
        seen.routes.push(line);
        let text = judge(&seen).to_string();
        for words in [
            "good (80 of 100): a1, last 1m (60 s of it)\n  -20  errors: 5.0 % of 1000 answers were 5xx\n",
            "\nRecommendations\n  connections.connections_max = 350: 2 connections",
            "set it to 700\n",
            "  GET /reports/{id}\n",
            "  12.0 ms",
            "redis         not used",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
    }
}
