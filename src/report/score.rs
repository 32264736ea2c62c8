//! The score: what is taken off a hundred, and why.
//!
//! Each rule looks at one figure. Up to `from` it takes nothing, from `to` on it takes all of its points, and in
//! between its share, rounded up. So the score never rises when a figure gets worse.

use std::time::Duration;

use serde::Serialize;

use crate::health::HealthStatus;
use crate::report::observed::Observed;
use crate::report::spoken::{percent, ratio, time};

/// What is taken off the score, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Penalty {
    /// The rule: `errors`, `latency`, ..; the table is with [`Report`](crate::report::Report).
    pub figure: &'static str,
    /// How many points, 1 to 40.
    pub points: u32,
    /// Why, for a person to read.
    pub reason: String,
}

struct Rule {
    figure: &'static str,
    points: u32,
    from: f64,
    to: f64,
    /// The figure, the larger the worse; nothing where there is none.
    value: fn(&Observed) -> Option<f64>,
    reason: fn(&Observed) -> String,
}

/// Everything that takes points, in the order of the rules. Together they take 100 at most: what is beyond is
/// left out from the last ones.
pub(crate) fn penalties(seen: &Observed) -> Vec<Penalty> {
    let mut left = 100;
    let mut penalties = Vec::new();
    for rule in &RULES {
        let points = rule.takes(seen).min(left);
        if points > 0 {
            left -= points;
            penalties.push(Penalty {
                figure: rule.figure,
                points,
                reason: (rule.reason)(seen),
            });
        }
    }
    penalties
}

impl Rule {
    fn takes(&self, seen: &Observed) -> u32 {
        let Some(value) = (self.value)(seen) else {
            return 0;
        };
        let share = ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0);
        // What is left of a division that has no end must not cost a point.
        (share * f64::from(self.points) - 1e-9).ceil().max(0.0) as u32
    }
}

/// Below so many, a share is taken as if there were so many: one failure of two requests is no outage.
const FEW: u64 = 20;

/// Below so many lookups a cache is cold, and its hit ratio says nothing.
const COLD: u64 = 100;

fn share(part: u64, whole: u64) -> Option<f64> {
    ratio(part, whole.max(FEW))
}

// Whoever changes a number here changes the table in the documentation of `Report`.
const RULES: [Rule; 13] = [
    Rule {
        figure: "errors",
        points: 40,
        from: 0.001,
        to: 0.10,
        value: |seen| share(seen.traffic.errors, seen.traffic.answered()),
        reason: |seen| {
            let (errors, of) = (seen.traffic.errors, seen.traffic.answered());
            let share = percent(ratio(errors, of).unwrap_or_default());
            format!("{share} of {of} answers were 5xx")
        },
    },
    Rule {
        figure: "unanswered",
        points: 40,
        from: 0.02,
        to: 0.20,
        value: |seen| share(seen.traffic.unanswered, seen.traffic.requests),
        reason: |seen| {
            let (given_up, of) = (seen.traffic.unanswered, seen.traffic.requests);
            let share = percent(ratio(given_up, of).unwrap_or_default());
            format!("{share} of {of} requests were given up before an answer began")
        },
    },
    Rule {
        figure: "refused",
        points: 25,
        from: 0.001,
        to: 0.20,
        value: |seen| share(seen.guard.refused_for_load, seen.guard.asked()),
        reason: |seen| {
            let (refused, of) = (seen.guard.refused_for_load, seen.guard.asked());
            let share = percent(ratio(refused, of).unwrap_or_default());
            format!("the guard turned away {share} of {of} requests for want of slots")
        },
    },
    Rule {
        figure: "latency",
        points: 15,
        from: 0.5,
        to: 2.0,
        value: |seen| {
            let limit = seen.settings.metrics_slow_request_ms as f64 / 1e3;
            let p95 = seen.traffic.p95?.as_secs_f64();
            let told = limit > 0.0 && seen.traffic.answered() >= FEW;
            told.then_some(p95 / limit)
        },
        reason: |seen| {
            let limit = Duration::from_millis(seen.settings.metrics_slow_request_ms);
            format!(
                "one request in 20 takes {} or longer; slow is {}",
                time(seen.traffic.p95.unwrap_or_default()),
                time(limit)
            )
        },
    },
    Rule {
        figure: "slow",
        points: 10,
        from: 0.01,
        to: 0.20,
        value: |seen| share(seen.traffic.slow, seen.traffic.requests),
        reason: |seen| {
            let (slow, of) = (seen.traffic.slow, seen.traffic.requests);
            let share = percent(ratio(slow, of).unwrap_or_default());
            format!("{share} of {of} requests were slow")
        },
    },
    Rule {
        figure: "memory",
        points: 20,
        from: 0.80,
        to: 1.0,
        value: |seen| seen.memory.share(),
        reason: |seen| {
            let share = percent(seen.memory.share().unwrap_or_default());
            format!("{share} of the memory budget is used")
        },
    },
    Rule {
        figure: "runtime",
        points: 10,
        from: 1.0,
        to: 20.0,
        value: |seen| {
            let target = seen.settings.guard_lag_target_ms as f64 / 1e3;
            (target > 0.0).then(|| seen.runtime.lag_p99.as_secs_f64() / target)
        },
        reason: |seen| {
            let (lag, busy) = (time(seen.runtime.lag_p99), seen.runtime.busy);
            let busy = busy.map_or_else(String::new, |busy| format!(", busy {}", percent(busy)));
            format!("tasks wait up to {lag} for the runtime{busy}")
        },
    },
    Rule {
        figure: "cache",
        points: 10,
        from: 0.30,
        to: 0.80,
        value: |seen| {
            let warm = seen.cache.enabled && seen.cache.lookups() >= COLD;
            Some(1.0 - seen.cache.share_of_hits().filter(|_| warm)?)
        },
        reason: |seen| {
            let hits = percent(seen.cache.share_of_hits().unwrap_or_default());
            format!("the cache answered {hits} of {}", seen.cache.lookups())
        },
    },
    Rule {
        figure: "queries",
        points: 10,
        from: 0.01,
        to: 0.30,
        value: |seen| share(seen.database.slow, seen.database.queries),
        reason: |seen| {
            let (slow, of) = (seen.database.slow, seen.database.queries);
            let share = percent(ratio(slow, of).unwrap_or_default());
            format!("{share} of {of} database queries were slow")
        },
    },
    Rule {
        figure: "database",
        points: 15,
        from: 0.001,
        to: 0.05,
        value: |seen| share(seen.database.unserved, seen.database.waits),
        reason: |seen| {
            let (unserved, of) = (seen.database.unserved, seen.database.waits);
            format!("{unserved} of {of} waits for a database connection were in vain")
        },
    },
    Rule {
        figure: "redis",
        points: 10,
        from: 0.01,
        to: 0.50,
        value: |seen| {
            if seen.redis.configured && !seen.redis.up {
                return Some(1.0);
            }
            share(seen.redis.failed, seen.redis.failed + seen.redis.answered)
        },
        reason: |seen| {
            if seen.redis.configured && !seen.redis.up {
                return "Redis is away: memory answers, and instances know nothing of each other"
                    .to_owned();
            }
            let (failed, of) = (seen.redis.failed, seen.redis.failed + seen.redis.answered);
            format!("Redis left {failed} of {of} questions unanswered")
        },
    },
    Rule {
        figure: "invalidation",
        points: 15,
        from: 0.0,
        to: 1.0,
        value: |seen| {
            Some(
                match (seen.invalidation.violations, seen.invalidation.verified) {
                    (0, true) => 0.0,
                    (0, false) => 1.0 / 3.0,
                    _ => 1.0,
                },
            )
        },
        reason: |seen| match seen.invalidation.violations {
            0 => "not everything that was invalidated is known to be heard".to_owned(),
            broken => format!("{broken} checks found an invalidation that was not carried out"),
        },
    },
    Rule {
        figure: "health",
        points: 30,
        from: 0.0,
        to: 1.0,
        value: |seen| {
            let (degraded, unhealthy) = amiss(seen);
            if !unhealthy.is_empty() {
                return Some(1.0);
            }
            let points: u32 = degraded.iter().map(|(_, points)| points).sum();
            Some(f64::from(points.min(3 * DEGRADED)) / 30.0)
        },
        reason: |seen| {
            let (degraded, unhealthy) = amiss(seen);
            if !unhealthy.is_empty() {
                return format!("unhealthy: {}", unhealthy.join(", "));
            }
            let names: Vec<_> = degraded.into_iter().map(|(name, _)| name).collect();
            format!("degraded: {}", names.join(", "))
        },
    },
];

/// The parts that are degraded with what each takes, and the unhealthy ones.
///
/// A part whose figure has a rule of its own may be degraded for another cause: the runtime for its descriptors, and
/// not for its lag. What its rule takes counts towards its points here, so that a figure that gets worse gives none
/// back.
fn amiss(seen: &Observed) -> (Vec<(&'static str, u32)>, Vec<&'static str>) {
    let those = |status: HealthStatus| {
        let parts = seen.health.components.iter();
        let those = parts.filter(move |(_, part)| part.status == status);
        those.map(|(name, _)| *name)
    };
    let degraded = those(HealthStatus::Degraded).map(|name| {
        let judged = JUDGED.iter().filter(|(part, _)| *part == name);
        let figures = judged.flat_map(|(_, figure)| RULES.iter().filter(|it| it.figure == *figure));
        let taken: u32 = figures.map(|rule| rule.takes(seen)).sum();
        (name, DEGRADED.saturating_sub(taken))
    });
    let degraded = degraded.filter(|(_, points)| *points > 0);
    (degraded.collect(), those(HealthStatus::Unhealthy).collect())
}

/// What a degraded part takes, together with the rule of its own if it has one.
const DEGRADED: u32 = 6;

/// Parts whose figures have a rule of their own, and which.
const JUDGED: [(&str, &str); 5] = [
    ("redis", "redis"),
    ("memory", "memory"),
    ("runtime", "runtime"),
    ("invalidation", "invalidation"),
    ("queue", "refused"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::HealthBoard;
    use crate::metrics::Window;

    /// A service that does well and whose every rule has a figure.
    fn well() -> Observed {
        let mut seen = Observed::nothing(Window::Minute);
        seen.settings.metrics_slow_request_ms = 1000;
        seen.settings.guard_lag_target_ms = 10;
        seen.traffic.requests = 1000;
        seen.traffic.p95 = Some(Duration::from_millis(100));
        seen.guard.admitted = 1000;
        seen.cache.enabled = true;
        seen.cache.hits = 900;
        seen.cache.misses = 100;
        seen.memory.used_bytes = 50;
        seen.memory.budget_bytes = 100;
        seen.database.queries = 100;
        seen.database.waits = 100;
        seen.redis.configured = true;
        seen.redis.up = true;
        seen.redis.answered = 1000;
        seen
    }

    /// Some of the requests wait in vain.
    fn hang(seen: &mut Observed, count: u64) {
        (seen.traffic.cancelled, seen.traffic.unanswered) = (count, count);
    }

    fn refuse(seen: &mut Observed, count: u64) {
        seen.guard.refused_for_load += count;
        *seen.guard.refused.entry("overloaded".into()).or_default() += count;
        seen.guard.admitted = seen.guard.admitted.saturating_sub(count);
    }

    fn board(parts: &[(&'static str, HealthStatus)]) -> crate::health::Health {
        let board = HealthBoard::new();
        for (name, status) in parts {
            board.set(name, *status, "");
        }
        board.health()
    }

    type Change = fn(&mut Observed);

    /// The rule, what happens, and how many points that takes.
    const TABLE: &[(&str, Change, u32)] = &[
        ("errors", |seen| seen.traffic.errors = 1, 0),
        ("errors", |seen| seen.traffic.errors = 2, 1),
        ("errors", |seen| seen.traffic.errors = 50, 20),
        ("errors", |seen| seen.traffic.errors = 100, 40),
        ("errors", |seen| seen.traffic.errors = 1000, 40),
        ("unanswered", |seen| hang(seen, 20), 0),
        ("unanswered", |seen| hang(seen, 110), 20),
        ("unanswered", |seen| hang(seen, 200), 40),
        ("unanswered", |seen| seen.traffic.cancelled = 200, 0),
        ("refused", |seen| refuse(seen, 1), 0),
        ("refused", |seen| refuse(seen, 200), 25),
        (
            "latency",
            |seen| seen.traffic.p95 = Some(Duration::from_millis(500)),
            0,
        ),
        (
            "latency",
            |seen| seen.traffic.p95 = Some(Duration::from_millis(1250)),
            8,
        ),
        (
            "latency",
            |seen| seen.traffic.p95 = Some(Duration::from_secs(9)),
            15,
        ),
        ("slow", |seen| seen.traffic.slow = 10, 0),
        ("slow", |seen| seen.traffic.slow = 200, 10),
        ("memory", |seen| seen.memory.used_bytes = 80, 0),
        ("memory", |seen| seen.memory.used_bytes = 90, 10),
        ("memory", |seen| seen.memory.used_bytes = 101, 20),
        (
            "runtime",
            |seen| seen.runtime.lag_p99 = Duration::from_millis(10),
            0,
        ),
        (
            "runtime",
            |seen| seen.runtime.lag_p99 = Duration::from_secs(1),
            10,
        ),
        (
            "cache",
            |seen| (seen.cache.hits, seen.cache.misses) = (700, 300),
            0,
        ),
        (
            "cache",
            |seen| (seen.cache.hits, seen.cache.misses) = (450, 550),
            5,
        ),
        (
            "cache",
            |seen| (seen.cache.hits, seen.cache.misses) = (0, 1000),
            10,
        ),
        (
            "cache",
            |seen| (seen.cache.hits, seen.cache.misses) = (0, 99),
            0,
        ),
        ("queries", |seen| seen.database.slow = 30, 10),
        ("database", |seen| seen.database.unserved = 5, 15),
        ("redis", |seen| seen.redis.up = false, 10),
        ("redis", |seen| seen.redis.failed = 1000, 10),
        ("invalidation", |seen| seen.invalidation.verified = false, 5),
        ("invalidation", |seen| seen.invalidation.violations = 1, 15),
        (
            "health",
            // It refuses writes.
            |seen| seen.health = board(&[("redis", HealthStatus::Degraded)]),
            6,
        ),
        (
            "health",
            |seen| seen.health = board(&[("mail", HealthStatus::Degraded)]),
            6,
        ),
        (
            "health",
            |seen| seen.health = board(&[("mail", HealthStatus::Unhealthy)]),
            30,
        ),
    ];

    #[test]
    fn each_rule_takes_what_its_table_says() {
        assert_eq!(penalties(&well()), []);
        for (at, (figure, change, points)) in TABLE.iter().enumerate() {
            let mut seen = well();
            change(&mut seen);
            let taken: Vec<_> = penalties(&seen)
                .into_iter()
                .map(|penalty| (penalty.figure, penalty.points))
                .collect();
            let expected = if *points > 0 {
                vec![(*figure, *points)]
            } else {
                Vec::new()
            };
            assert_eq!(taken, expected, "row {at}, {figure}");
        }
    }

    /// Memory with a leak, a runtime without descriptors, a Redis that takes no writes: no figure tells of them.
    #[test]
    fn a_degraded_part_takes_six_points_with_what_its_figure_takes() {
        let degraded: [(&str, Change, u32); 6] = [
            ("memory", |seen| seen.memory.used_bytes = 82, 2),
            ("memory", |seen| seen.memory.used_bytes = 100, 20),
            (
                "runtime",
                |seen| seen.runtime.lag_p99 = Duration::from_millis(30),
                2,
            ),
            ("redis", |seen| seen.redis.up = false, 10),
            ("invalidation", |seen| seen.invalidation.verified = false, 5),
            ("queue", |seen| refuse(seen, 30), 4),
        ];
        for (part, change, own) in degraded {
            let mut seen = well();
            seen.health = board(&[(part, HealthStatus::Degraded)]);
            let taken = penalties(&seen);
            assert_eq!((taken.len(), taken[0].points), (1, 6), "{part}");
            assert_eq!(taken[0].reason, format!("degraded: {part}"));
            change(&mut seen);
            let taken = penalties(&seen);
            assert_eq!(taken[0].points, own, "{part}");
            let health: u32 = taken[1..].iter().map(|penalty| penalty.points).sum();
            assert_eq!(health, 6_u32.saturating_sub(own), "{part}");
        }
        let mut seen = well();
        let all = ["circuits", "mail", "memory", "queue", "runtime"];
        seen.health = board(&all.map(|part| (part, HealthStatus::Degraded)));
        assert_eq!(penalties(&seen)[0].points, 18, "no more for all of them");
    }

    #[test]
    fn few_requests_are_no_outage() {
        let mut seen = well();
        (seen.traffic.requests, seen.traffic.errors) = (2, 1);
        let taken = penalties(&seen);
        assert_eq!(taken[0].points, 20, "as 1 of 20 and not as 1 of 2");
        assert_eq!(taken[0].reason, "50 % of 2 answers were 5xx");
        seen.traffic.errors = 0;
        seen.traffic.p95 = Some(Duration::from_secs(9));
        assert_eq!(penalties(&seen), [], "one in 20 of 2");
    }

    const WORSE: [fn(&mut Observed, u64); 13] = [
        // Requests that wait in vain come to the others, and were slow when they were given up.
        |seen, by| {
            seen.traffic.requests += by;
            seen.traffic.cancelled += by;
            seen.traffic.unanswered += by;
            seen.traffic.slow += by;
        },
        |seen, by| seen.traffic.errors = (seen.traffic.errors + by).min(seen.traffic.answered()),
        |seen, by| seen.traffic.slow = (seen.traffic.slow + by).min(seen.traffic.requests),
        |seen, by| seen.traffic.p95 = seen.traffic.p95.map(|p95| p95 + Duration::from_millis(by)),
        |seen, by| refuse(seen, by.min(seen.guard.admitted)),
        |seen, by| seen.memory.used_bytes += by,
        |seen, by| seen.runtime.lag_p99 += Duration::from_millis(by),
        |seen, by| {
            let lost = by.min(seen.cache.hits);
            seen.cache.hits -= lost;
            seen.cache.misses += lost;
        },
        |seen, by| seen.database.slow = (seen.database.slow + by).min(seen.database.queries),
        |seen, by| seen.database.unserved = (seen.database.unserved + by).min(seen.database.waits),
        |seen, by| {
            seen.redis.failed += by;
            seen.redis.up &= by % 2 == 0;
        },
        |seen, by| {
            seen.invalidation.violations += by / 2;
            seen.invalidation.verified = false;
        },
        |seen, by| {
            let status = [HealthStatus::Degraded, HealthStatus::Unhealthy][(by % 2) as usize];
            let board = HealthBoard::new();
            for (name, part) in &seen.health.components {
                board.set(name, part.status, "");
            }
            let names = [
                "mail",
                "files",
                "memory",
                "runtime",
                "redis",
                "invalidation",
                "queue",
            ];
            let name = names[(by % 7) as usize];
            let before = seen.health.components.get(name).map(|part| part.status);
            board.set(name, status.max(before.unwrap_or_default()), "");
            seen.health = board.health();
        },
    ];

    proptest! {
        #[test]
        fn making_a_figure_worse_never_raises_the_score(
            steps in prop::collection::vec((0..WORSE.len(), 0_u64..400), 1..40),
        ) {
            let mut seen = well();
            let mut last = 100_u32;
            for (which, by) in steps {
                WORSE[which](&mut seen, by);
                let taken: u32 = penalties(&seen).iter().map(|penalty| penalty.points).sum();
                prop_assert!(taken <= 100);
                let score = 100 - taken;
                prop_assert!(score <= last, "{score} after {last} by {which}");
                last = score;
            }
        }
    }
}
