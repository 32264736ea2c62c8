//! What has become better or worse since a baseline.

use std::fmt;

use serde::Serialize;

use crate::report::baseline::{Baseline, BaselineLine, VERSION};
use crate::report::chance::of_as_many;
use crate::report::error::ReportError;
use crate::report::spoken::{percent, ratio};
use crate::report::verdict::Report;

/// A report beside a [`Baseline`].
///
/// # What counts as a change
///
/// Figures differ from minute to minute without meaning anything. A difference counts where it is larger than what
/// chance makes of the same service about once in 700 comparisons (three standard deviations; of shares at most that
/// often, however few are on one side), **and** large enough to matter:
///
/// | figure | needs | chance | and at least |
/// |---|---|---|---|
/// | `p95` | 100 answers on both sides | 12.5 % for the histograms' buckets, and `4.4 * sqrt(1/n + 1/m)`: three deviations of the 95th percentile of n and m times with an exponential tail | 25 % |
/// | `errors` | 100 answers on both sides | 1 in 740, by Fisher's exact test | 0.5 percentage points |
/// | `throughput` | 100 answers on one side | three deviations of two counts | half, or twice |
/// | `hit_ratio` | 100 lookups on both sides | 1 in 740, by Fisher's exact test | 5 percentage points |
///
/// By that test a share is larger where so many or more of all errors (hits) of both sides come to this one by chance
/// in less than 0.135 % of the cases: as rarely as a normal distribution goes three deviations beyond.
///
/// Requests that come in bursts or depend on each other vary more than that. Throughput follows whoever asks:
/// fewer requests are told as a change and are no regression.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// When the baseline was taken, in milliseconds since 1970.
    pub baseline_at_ms: u64,
    /// Its score.
    pub score_before: u32,
    /// The report's.
    pub score_now: u32,
    /// All that was compared: first all requests together, then by route. Routes that only one side knows are
    /// left out.
    pub changes: Vec<Change>,
}

/// One figure on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// `all`, or a route: `GET /reports/{id}`.
    pub scope: String,
    /// `p95` in milliseconds, `errors` and `hit_ratio` as shares, `throughput` in requests per second.
    pub figure: &'static str,
    /// In the baseline.
    pub before: f64,
    /// In the report.
    pub now: f64,
    /// What that means.
    pub verdict: Verdict,
}

/// What a difference means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It has become worse.
    Regressed,
    /// It has become better.
    Improved,
    /// It is another, and neither better nor worse: throughput.
    Changed,
    /// Nothing that chance does not explain, or nothing that matters.
    Same,
    /// There were too few requests to tell.
    TooFew,
}

impl Report {
    /// What has become better or worse since `baseline`.
    ///
    /// # Errors
    ///
    /// [`ReportError::Version`] for a baseline of a later form than this version knows.
    pub fn compare(&self, baseline: &Baseline) -> Result<Comparison, ReportError> {
        if baseline.version > VERSION {
            return Err(ReportError::Version(baseline.version, VERSION));
        }
        let now = self.baseline();
        let mut changes = lines("all", &baseline.all, &now.all);
        let (before, after) = ((baseline.hits, baseline.lookups), (now.hits, now.lookups));
        changes.extend(share("hit_ratio", before, after, (0.05, Good::High)));
        for (route, line) in &now.routes {
            if let Some(before) = baseline.routes.get(route) {
                changes.extend(lines(route, before, line));
            }
        }
        Ok(Comparison {
            baseline_at_ms: baseline.at_ms,
            score_before: baseline.score,
            score_now: self.score,
            changes,
        })
    }
}

impl Comparison {
    /// What has become worse.
    pub fn regressions(&self) -> impl Iterator<Item = &Change> {
        let changes = self.changes.iter();
        changes.filter(|change| change.verdict == Verdict::Regressed)
    }
}

/// Where a figure is well.
#[derive(Clone, Copy)]
enum Good {
    High,
    Low,
}

/// What fewer say, chance may have said.
const ENOUGH: u64 = 100;

/// Standard deviations beyond which chance is ruled out.
const DEVIATIONS: f64 = 3.0;

/// How often a normal distribution goes beyond them, on one side.
const BEYOND: f64 = 0.001_35;

fn lines(scope: &str, before: &BaselineLine, now: &BaselineLine) -> Vec<Change> {
    let errors = share(
        "errors",
        (before.errors, before.answered),
        (now.errors, now.answered),
        (0.005, Good::Low),
    );
    let all = [p95(before, now), errors, throughput(before, now)];
    let scoped = |change: Change| Change {
        scope: scope.to_owned(),
        ..change
    };
    all.into_iter().flatten().map(scoped).collect()
}

fn change(figure: &'static str, (before, now): (f64, f64), verdict: Verdict) -> Change {
    Change {
        scope: "all".to_owned(),
        figure,
        before,
        now,
        verdict,
    }
}

fn p95(before: &BaselineLine, now: &BaselineLine) -> Option<Change> {
    let both = (before.p95_ms?, now.p95_ms?);
    if before.answered.min(now.answered) < ENOUGH || both.0 <= 0.0 || both.1 <= 0.0 {
        return Some(change("p95", both, Verdict::TooFew));
    }
    let spread = 1.0 / before.answered as f64 + 1.0 / now.answered as f64;
    let tolerance = (0.125 + 4.4 * spread.sqrt()).max(0.25);
    let verdict = if both.1 > both.0 * (1.0 + tolerance) {
        Verdict::Regressed
    } else if both.0 > both.1 * (1.0 + tolerance) {
        Verdict::Improved
    } else {
        Verdict::Same
    };
    Some(change("p95", both, verdict))
}

/// Compares two shares. Nothing where a side has no whole.
fn share(
    figure: &'static str,
    before: (u64, u64),
    now: (u64, u64),
    (least, good): (f64, Good),
) -> Option<Change> {
    let both = (ratio(before.0, before.1)?, ratio(now.0, now.1)?);
    if before.1.min(now.1) < ENOUGH {
        return Some(change(figure, both, Verdict::TooFew));
    }
    let rise = both.1 - both.0;
    let chance = match rise > 0.0 {
        true => of_as_many(now, before),
        false => of_as_many(before, now),
    };
    let counts = chance < BEYOND && rise.abs() >= least;
    let verdict = match (counts, good, rise > 0.0) {
        (false, ..) => Verdict::Same,
        (_, Good::Low, true) | (_, Good::High, false) => Verdict::Regressed,
        (_, Good::Low, false) | (_, Good::High, true) => Verdict::Improved,
    };
    Some(change(figure, both, verdict))
}

fn throughput(before: &BaselineLine, now: &BaselineLine) -> Option<Change> {
    let both = (before.per_second, now.per_second);
    if before.answered.max(now.answered) < ENOUGH {
        return Some(change("throughput", both, Verdict::TooFew));
    }
    // A count of n has a deviation of its root, so a rate r has one of r by the root of n.
    let deviation = |line: &BaselineLine| line.per_second.powi(2) / line.answered.max(1) as f64;
    let spread = (deviation(before) + deviation(now)).sqrt();
    let (low, high) = (both.0.min(both.1), both.0.max(both.1));
    let counts = high - low > DEVIATIONS * spread && high >= low * 2.0;
    let verdict = match counts {
        true => Verdict::Changed,
        false => Verdict::Same,
    };
    Some(change("throughput", both, verdict))
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "score {} -> {}", self.score_before, self.score_now)?;
        let told = self.changes.iter();
        for change in told.filter(|it| !matches!(it.verdict, Verdict::Same | Verdict::TooFew)) {
            writeln!(f, "  {change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, now) = match self.figure {
            "p95" => (
                format!("{:.1} ms", self.before),
                format!("{:.1} ms", self.now),
            ),
            "throughput" => (
                format!("{:.1}/s", self.before),
                format!("{:.1}/s", self.now),
            ),
            _ => (percent(self.before), percent(self.now)),
        };
        let verdict = match self.verdict {
            Verdict::Regressed => "worse",
            Verdict::Improved => "better",
            Verdict::Changed => "changed",
            Verdict::Same => "same",
            Verdict::TooFew => "too few to tell",
        };
        write!(
            f,
            "{verdict}: {} {} {before} -> {now}",
            self.scope, self.figure
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;
    use crate::metrics::Window;
    use crate::report::observed::Observed;
    use crate::report::verdict::judge;

    fn line(answered: u64, errors: u64, p95_ms: f64) -> BaselineLine {
        BaselineLine {
            answered,
            errors,
            per_second: answered as f64 / 60.0,
            p95_ms: Some(p95_ms),
        }
    }

    fn verdict(change: Option<Change>) -> Verdict {
        change.unwrap().verdict
    }

    #[test]
    fn a_difference_counts_when_chance_does_not_explain_it_and_it_matters() {
        use Verdict::{Improved, Regressed, Same, TooFew};
        for (before, now, expected) in [
            ((10_000, 100.0), (10_000, 130.0), Regressed),
            ((10_000, 100.0), (10_000, 124.0), Same),
            ((10_000, 130.0), (10_000, 100.0), Improved),
            ((100, 100.0), (100, 170.0), Same),
            ((100, 100.0), (100, 180.0), Regressed),
            ((99, 100.0), (10_000, 900.0), TooFew),
        ] {
            let both = (line(before.0, 0, before.1), line(now.0, 0, now.1));
            assert_eq!(
                verdict(p95(&both.0, &both.1)),
                expected,
                "{before:?} {now:?}"
            );
        }
        for (before, now, expected) in [
            ((0, 1000), (5, 1000), Same),
            ((0, 1000), (20, 1000), Regressed),
            ((20, 1000), (0, 1000), Improved),
            ((0, 1_000_000), (4_000, 1_000_000), Same),
            ((0, 99), (99, 99), TooFew),
            ((500, 1000), (500, 1000), Same),
            // A quiet route after a busy hour, and the other way round.
            ((90, 100_000), (1, 100), Same),
            ((90, 100_000), (2, 100), Same),
            ((90, 100_000), (4, 100), Regressed),
            ((1, 100), (90, 100_000), Same),
            ((10, 100), (90, 100_000), Improved),
        ] {
            let got = share("errors", before, now, (0.005, Good::Low));
            assert_eq!(verdict(got), expected, "{before:?} {now:?}");
        }
        let fewer_hits = share("hit_ratio", (900, 1000), (700, 1000), (0.05, Good::High));
        assert_eq!(verdict(fewer_hits), Regressed);
    }

    #[test]
    fn fewer_requests_are_a_change_and_no_regression() {
        for (before, now, expected) in [
            (6000, 2000, Verdict::Changed),
            (2000, 6000, Verdict::Changed),
            (6000, 4000, Verdict::Same),
            (99, 10, Verdict::TooFew),
            (0, 600, Verdict::Changed),
        ] {
            let got = throughput(&line(before, 0, 1.0), &line(now, 0, 1.0));
            assert_eq!(verdict(got), expected, "{before} {now}");
        }
    }

    #[test]
    fn chance_is_no_regression() {
        // The same service twice: exponential times with a mean of 20 ms, 2 % errors, 60 % hits.
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let mut uniform = || (1e-9..1.0_f64).new_tree(&mut runner).unwrap().current();
        let mut sample = |count: u64| {
            let mut times: Vec<f64> = (0..count).map(|_| -20.0 * uniform().ln()).collect();
            times.sort_by(f64::total_cmp);
            let errors = (0..count).filter(|_| uniform() < 0.02).count() as u64;
            let p95 = times[(count as f64 * 0.95).ceil() as usize - 1];
            // What the histogram makes of it.
            line(count, errors, p95 * (1.0 + (uniform() - 0.5) * 0.125))
        };
        let mut wrong = 0;
        for count in [100_u64, 300, 1000] {
            for _ in 0..200 {
                let (before, now) = (sample(count), sample(count));
                let changes = lines("all", &before, &now);
                wrong += changes
                    .iter()
                    .filter(|it| it.verdict != Verdict::Same)
                    .count();
            }
        }
        assert!(wrong <= 6, "{wrong} of 1800 comparisons");
    }

    /// Not by a sample: every pair of counts that the same service may have, with its chance.
    #[test]
    fn chance_is_no_regression_of_a_share_however_unequal_the_sides() {
        let ln_factorials: Vec<f64> = (0..=100_000_u32)
            .scan(0.0, |sum, k| {
                *sum += f64::from(k.max(1)).ln();
                Some(*sum)
            })
            .collect();
        let counts = |n: u64, p: f64| {
            let (mean, deviation) = (n as f64 * p, (n as f64 * p * (1.0 - p)).sqrt());
            let first = (mean - 6.0 * deviation).max(0.0) as u64;
            let last = ((mean + 6.0 * deviation + 12.0) as u64).min(n);
            let chance = |k: u64| {
                let [all, those, rest] = [n, k, n - k].map(|at| ln_factorials[at as usize]);
                let ways = all - those - rest;
                (ways + k as f64 * p.ln() + (n - k) as f64 * (1.0 - p).ln()).exp()
            };
            (first..=last).map(|k| (k, chance(k))).collect::<Vec<_>>()
        };
        let mut worst = (0.0, (0, 0, 0.0));
        for (n, m) in [
            (100, 100),
            (100, 1000),
            (1000, 100),
            (100, 100_000),
            (100_000, 100),
            (1000, 1000),
        ] {
            for p in [0.000_9, 0.005, 0.02, 0.1, 0.5] {
                let (before, now) = (counts(n, p), counts(m, p));
                let mut alarms = 0.0;
                for (x, chance) in &before {
                    let wrong = now.iter().filter(|(y, _)| {
                        let got = share("errors", (*x, n), (*y, m), (0.005, Good::Low));
                        verdict(got) == Verdict::Regressed
                    });
                    alarms += chance * wrong.map(|(_, chance)| chance).sum::<f64>();
                }
                if alarms > worst.0 {
                    worst = (alarms, (n, m, p));
                }
            }
        }
        assert!(worst.0 <= BEYOND, "{worst:?}");
    }

    #[test]
    fn routes_are_compared_by_name_and_told_in_words() {
        let mut report = judge(&Observed::nothing(Window::Minute));
        let mut route = crate::report::lines::RouteLine::named("/a", "GET");
        (route.requests, route.errors) = (1000, 100);
        route.p95 = Some(std::time::Duration::from_millis(300));
        route.per_second = 1000.0 / 60.0;
        report.observed.routes.push(route);
        let mut before = report.baseline();
        before
            .routes
            .insert("GET /gone".to_owned(), line(9, 9, 9.0));
        before
            .routes
            .insert("GET /a".to_owned(), line(1000, 0, 100.0));
        let comparison = report.compare(&before).unwrap();
        let told: Vec<_> = comparison.regressions().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "worse: GET /a p95 100.0 ms -> 300.0 ms",
                "worse: GET /a errors 0 % -> 10 %"
            ]
        );
        assert!(
            comparison
                .to_string()
                .starts_with("score 100 -> 100\n  worse: GET /a")
        );
        before.version = 2;
        assert_eq!(report.compare(&before), Err(ReportError::Version(2, 1)));
    }
}
