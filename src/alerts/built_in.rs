//! The rules that every service begins with.

use std::time::Duration;

use crate::alerts::measure::Measure;
use crate::alerts::rule::{AlertRule, AlertScope};
use crate::alerts::severity::Severity;
use crate::metrics::Window;

/// The built-in rules, by name, for a guard whose queue has so many places. Ratios and percentiles are over five
/// minutes and at least 50 requests: three slow ones at night are no incident.
pub(crate) fn built_in(places: usize) -> Vec<AlertRule> {
    let mut rules = traffic().to_vec();
    rules.extend(cache());
    rules.extend(instance(places));
    rules
}

/// From how many requests on a queue is long: 80 % of its places, and 1,000 at the most. Without places nobody waits.
fn long(places: usize) -> usize {
    match places {
        0 => 1_000,
        _ => places.min(1_250) * 4 / 5,
    }
}

/// What clients see, wherever it comes from: one instance speaks for all.
fn traffic() -> [AlertRule; 4] {
    [
        AlertRule {
            resolve: Some(2.5),
            lasting: MINUTE,
            escalate_after: Some(10 * MINUTE),
            advice: "see slow requests and slow queries; cache what is asked often, or lower guard.slots so \
                 that fewer requests share the processor"
                .to_owned(),
            ..over_five_minutes(AlertRule::above("response_slow", Measure::ResponseP95, 3.0))
        },
        AlertRule {
            resolve: Some(0.03),
            lasting: MINUTE,
            severity: Severity::Critical,
            escalate_after: Some(10 * MINUTE),
            advice: "see which routes answer 5xx in keep_http_requests_total and read the service's log of \
                 them"
                .to_owned(),
            ..over_five_minutes(AlertRule::above("errors", Measure::ErrorRatio, 0.05))
        },
        AlertRule {
            resolve: Some(0.05),
            lasting: MINUTE,
            severity: Severity::Critical,
            escalate_after: Some(10 * MINUTE),
            advice: "clients give up before an answer begins: see what requests wait for (the database, \
                 another service), and put a timeout around it that answers instead"
                .to_owned(),
            ..over_five_minutes(AlertRule::above("unanswered", Measure::UnansweredRatio, 0.10))
        },
        AlertRule {
            resolve: Some(5.0),
            lasting: MINUTE,
            window: Window::FiveMinutes,
            cooldown: 15 * MINUTE,
            advice: "see the log for the names of slow queries; add an index, cache the result, or raise \
                 database.slow_query_ms if that is how long they take"
                .to_owned(),
            ..AlertRule::above("slow_queries", Measure::SlowQueriesPerMinute, 10.0)
        },
    ]
}

fn cache() -> [AlertRule; 2] {
    let low = |name: &str, threshold: f64| {
        AlertRule {
        resolve: Some(threshold + 0.05),
        lasting: 10 * MINUTE,
        cooldown: 60 * MINUTE,
        advice: "see keep_cache_misses_total: raise max-age or cache.ttl_default_ms where most were stale, else \
             cache.capacity_bytes; and have answers vary by less where keep_cache_forwards_total has many `vary-miss`"
            .to_owned(),
        ..over_five_minutes(AlertRule::below(name, Measure::HitRatio, threshold))
    }
    };
    [
        low("hit_ratio_low", 0.70),
        AlertRule {
            severity: Severity::Critical,
            ..low("hit_ratio_very_low", 0.50)
        },
    ]
}

/// What is about one instance: each speaks for itself.
fn instance(places: usize) -> Vec<AlertRule> {
    let long = long(places) as f64;
    let here = |rule: AlertRule, advice: &str| AlertRule {
        scope: AlertScope::Instance,
        advice: advice.to_owned(),
        ..rule
    };
    let memory = |name: &str, threshold: f64, severity: Severity| AlertRule {
        resolve: Some(threshold - 0.05),
        lasting: HALF,
        severity,
        ..here(
            AlertRule::above(name, Measure::MemoryRatio, threshold),
            "lower cache.capacity_bytes or tiers.capacity_bytes, or raise MEMORY_LIMIT if the host has more",
        )
    };
    vec![
        memory("memory_high", 0.80, Severity::Warning),
        memory("memory_very_high", 0.90, Severity::Critical),
        memory("memory_exhausted", 0.95, Severity::Emergency),
        AlertRule {
            resolve: Some(0.85),
            lasting: HALF,
            ..here(
                AlertRule::above("concurrency_full", Measure::ConcurrencyRatio, 0.95),
                "requests are about to queue: see what they wait for, raise guard.slots, or add an instance",
            )
        },
        AlertRule {
            resolve: Some(long / 2.0),
            lasting: HALF,
            severity: Severity::Critical,
            ..here(
                AlertRule::above("queue_long", Measure::QueueDepth, long),
                "more comes in than is served: lower guard.queue so that the excess is refused at once, or \
                 add an instance",
            )
        },
        AlertRule {
            lasting: HALF,
            severity: Severity::Critical,
            ..here(
                AlertRule::above("redis_down", Measure::RedisDown, 0.5),
                "see `redis` in the health report for the reason; state is in memory until it is back",
            )
        },
        AlertRule {
            lasting: MINUTE,
            ..here(
                AlertRule::above("journal_unverified", Measure::JournalUnverified, 0.5),
                "see `invalidation` in the health report for the reason; answers are not served from memory \
                 for longer than journal.max_unverified_ms meanwhile",
            )
        },
    ]
}

fn over_five_minutes(rule: AlertRule) -> AlertRule {
    AlertRule {
        window: Window::FiveMinutes,
        least_count: 50,
        ..rule
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HALF: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// More than 1,000 never waited: no profile has so many places.
    #[test]
    fn a_queue_is_long_when_four_fifths_of_its_places_are_taken_and_at_a_thousand_at_the_latest() {
        for (places, threshold) in [
            (0, 1_000.0),
            (1, 0.0),
            (128, 102.0),
            (512, 409.0),
            (1_250, 1_000.0),
            (usize::MAX, 1_000.0),
        ] {
            let rules = built_in(places);
            let rule = rules.iter().find(|rule| rule.name == "queue_long").unwrap();
            assert_eq!(rule.threshold, threshold, "{places}");
            assert_eq!(rule.resolve, Some(threshold / 2.0), "{places}");
        }
    }
}
