//! The report itself: figures, their score, and what to do about them.

use serde::Serialize;

use crate::health::HealthStatus;
use crate::report::advice::{Recommendation, recommendations};
use crate::report::observed::Observed;
use crate::report::score::{Penalty, penalties};
use crate::report::spoken::ratio;

/// How a service does over a window: a score with its reasons, what to change, and the figures behind both.
///
/// As JSON it is one object; as text (`to_string()`) it is for a person.
///
/// # The score
///
/// A hundred, less what each of these takes: nothing up to the first bound, all points from the second one on,
/// and in between a part in proportion, rounded up. What goes beyond a hundred together is left out. So
/// `score == 100 - penalties.iter().map(|p| p.points).sum()`, and no figure that gets worse raises it.
///
/// | `figure` | what | from | to | points |
/// |---|---|---|---|---|
/// | `errors` | the share of 5xx in the answers | 0.1 % | 10 % | 40 |
/// | `unanswered` | the share of requests that were given up before their answer began | 2 % | 20 % | 40 |
/// | `refused` | the share of requests that the guard turned away for want of slots, those of a route's own left out | 0.1 % | 20 % | 25 |
/// | `latency` | the time that 95 % of the requests do not exceed, by `metrics.slow_request_ms`, from 20 answers on | 0.5 | 2 | 15 |
/// | `slow` | the share of requests slower than that setting | 1 % | 20 % | 10 |
/// | `memory` | the share of the memory budget in use now | 80 % | 100 % | 20 |
/// | `runtime` | how late tasks are woken now (99 of 100), by `guard.lag_target_ms` | 1 | 20 | 10 |
/// | `cache` | the share of misses, from 100 lookups on | 30 % | 80 % | 10 |
/// | `queries` | the share of slow database queries | 1 % | 30 % | 10 |
/// | `database` | the share of waits for a connection that were in vain | 0.1 % | 5 % | 15 |
/// | `redis` | the share of questions that Redis did not answer; 100 % while it is away | 1 % | 50 % | 10 |
/// | `invalidation` | 1 where a check found one that was not carried out, 1/3 while that is unknown | 0 | 1 | 15 |
/// | `health` | 1 where a part is unhealthy, else 0.2 for each degraded one, 0.6 at most | 0 | 1 | 30 |
///
/// Shares are taken as if there were 20 requests (answers, queries, waits) where there are fewer, so that one
/// failure of two is no outage. A degraded part that has a line of its own (`redis`, `memory`, `runtime`,
/// `invalidation`, and `queue` with `refused`) counts in `health` only by what its line leaves of its 6 points: it may be
/// degraded for what its line does not look at. A service that nobody asks has 100.
///
/// The [`status`](ReportStatus) is `excellent` from 90 on, `good` from 75, `degraded` from 50, else `critical`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// 0 to 100.
    pub score: u32,
    /// The same in a word.
    pub status: ReportStatus,
    /// Why it is not 100.
    pub penalties: Vec<Penalty>,
    /// Which settings to change, the most pressing first. Change one at a time, then look again.
    pub recommendations: Vec<Recommendation>,
    /// The figures behind it.
    #[serde(flatten)]
    pub observed: Observed,
}

/// A [`Report`]'s score in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportStatus {
    /// 90 to 100.
    Excellent,
    /// 75 to 89.
    Good,
    /// 50 to 74.
    Degraded,
    /// 0 to 49.
    Critical,
}

/// Whether a service does less well than it should, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Degradation {
    /// Whether a part says that it is not healthy, or the score of the last minute is below 75.
    pub degraded: bool,
    /// The parts that are not healthy, and what takes points; empty where it is not degraded.
    pub reasons: Vec<String>,
}

/// Makes a report of what was observed. Pure: the same figures give the same report.
#[must_use]
pub fn judge(observed: &Observed) -> Report {
    let mut observed = observed.clone();
    observed.cache.hit_ratio = observed.cache.share_of_hits();
    observed.traffic.error_ratio = ratio(observed.traffic.errors, observed.traffic.answered());
    let penalties = penalties(&observed);
    let taken: u32 = penalties.iter().map(|penalty| penalty.points).sum();
    let score = 100_u32.saturating_sub(taken);
    Report {
        score,
        status: ReportStatus::of(score),
        penalties,
        recommendations: recommendations(&observed),
        observed,
    }
}

impl ReportStatus {
    /// The word for a score.
    #[must_use]
    pub const fn of(score: u32) -> Self {
        match score {
            90.. => Self::Excellent,
            75..90 => Self::Good,
            50..75 => Self::Degraded,
            _ => Self::Critical,
        }
    }

    /// `excellent`, `good`, `degraded`, `critical`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Excellent => "excellent",
            Self::Good => "good",
            Self::Degraded => "degraded",
            Self::Critical => "critical",
        }
    }
}

impl Report {
    /// What it comes to for whoever only wants to know whether something is amiss.
    #[must_use]
    pub fn degradation(&self) -> Degradation {
        let parts = self.observed.health.components.iter();
        let amiss = parts.filter(|(_, part)| part.status != HealthStatus::Healthy);
        let mut reasons: Vec<_> = amiss
            .map(|(name, part)| format!("{name}: {}", part.detail))
            .collect();
        let degraded = !reasons.is_empty() || self.status > ReportStatus::Good;
        if !degraded {
            return Degradation::default();
        }
        reasons.extend(self.penalties.iter().map(|penalty| penalty.reason.clone()));
        Degradation { degraded, reasons }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::HealthBoard;
    use crate::metrics::Window;

    #[test]
    fn the_words_for_scores() {
        for (score, status) in [
            (100, "excellent"),
            (90, "excellent"),
            (89, "good"),
            (75, "good"),
            (74, "degraded"),
            (50, "degraded"),
            (49, "critical"),
            (0, "critical"),
        ] {
            assert_eq!(ReportStatus::of(score).name(), status);
            let json = serde_json::to_value(ReportStatus::of(score)).unwrap();
            assert_eq!(json, status);
        }
    }

    #[test]
    fn penalties_make_up_what_is_missing_whatever_is_broken() {
        let mut seen = Observed::nothing(Window::Hour);
        assert_eq!(judge(&seen).score, 100);
        seen.traffic.requests = 1000;
        seen.traffic.errors = 1000;
        seen.traffic.slow = 1000;
        seen.guard.refused_for_load = 1000;
        seen.guard.refused.insert("shed".into(), 1000);
        seen.redis.configured = true;
        seen.invalidation.violations = 3;
        seen.database.waits = 100;
        seen.database.unserved = 100;
        let report = judge(&seen);
        let taken: u32 = report.penalties.iter().map(|penalty| penalty.points).sum();
        assert_eq!((report.score, taken), (0, 100));
        assert_eq!(report.status, ReportStatus::Critical);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["score"], 0);
        assert_eq!(json["status"], "critical");
        assert_eq!(json["penalties"][0]["figure"], "errors");
        assert_eq!(json["traffic"]["requests"], 1000);
        assert_eq!(json["traffic"]["error_ratio"], 1.0);
        assert_eq!(json["window"], "1h");
    }

    #[test]
    fn a_part_that_is_amiss_degrades_the_service_whatever_the_score() {
        let mut seen = Observed::nothing(Window::Minute);
        assert_eq!(judge(&seen).degradation(), Degradation::default());
        let board = HealthBoard::new();
        board.set("redis", HealthStatus::Degraded, "down: refused");
        seen.health = board.health();
        let report = judge(&seen);
        assert_eq!(report.score, 94, "excellent");
        let degradation = report.degradation();
        assert!(degradation.degraded);
        assert_eq!(
            degradation.reasons,
            ["redis: down: refused", "degraded: redis"]
        );
    }

    /// Where everything hangs there are neither errors nor times.
    #[test]
    fn a_service_that_answers_nothing_is_degraded_and_says_so() {
        let mut seen = Observed::nothing(Window::Minute);
        seen.traffic.requests = 30;
        (seen.traffic.cancelled, seen.traffic.unanswered) = (30, 30);
        let degradation = judge(&seen).degradation();
        assert!(degradation.degraded);
        let reason = "100 % of 30 requests were given up before an answer began";
        assert_eq!(degradation.reasons, [reason]);
    }

    #[test]
    fn errors_alone_degrade_it_as_well() {
        let mut seen = Observed::nothing(Window::Minute);
        (seen.traffic.requests, seen.traffic.errors) = (1000, 60);
        assert!(!judge(&seen).degradation().degraded, "76 is good");
        seen.traffic.errors = 70;
        let degradation = judge(&seen).degradation();
        assert_eq!(degradation.reasons, ["7.0 % of 1000 answers were 5xx"]);
    }
}
