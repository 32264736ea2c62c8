//! A question that is asked in the background, again and again.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Faults;
use crate::health::config::HealthConfig;
use crate::health::details::HealthStatus;

/// What a check comes to: a word on what it found, or what is wrong.
pub(crate) type Outcome = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

/// Asks something how it is: a database, a remote, a disk.
///
/// It runs in the background and by itself; whoever asks for the health reads its last result. It is never run
/// twice at once, is ended at its timeout (so its future may be dropped at any await), and a panic is a failure.
/// It must not block its thread: what does can be ended by nobody.
///
/// ```
/// use std::time::Duration;
///
/// use tower_keep::health::HealthCheck;
///
/// let payments = HealthCheck::new("payments", || async {
///     // Ask, and say what is worth knowing.
///     Ok::<_, std::io::Error>("answered")
/// })
/// .every(Duration::from_secs(30));
/// # drop(payments);
/// ```
#[derive(Clone)]
#[must_use]
pub struct HealthCheck {
    pub(crate) name: &'static str,
    pub(crate) ask: Arc<dyn Fn() -> Outcome + Send + Sync>,
    pub(crate) required: bool,
    period: Option<Duration>,
    timeout: Option<Duration>,
}

/// How a check runs, once everything is said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) failures_min: u32,
    pub(crate) stale_after: Duration,
    /// What the component is while the check fails.
    pub(crate) failing: HealthStatus,
}

impl HealthCheck {
    /// A check of the component `name`. While it fails the service is degraded, which takes it out of no
    /// rotation; see [`required`](Self::required). What `ask` comes to is shown to the operator, cut off after
    /// 300 characters: keep secrets out of it.
    pub fn new<F, D, E>(name: &'static str, ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<D, E>> + Send + 'static,
        D: fmt::Display,
        E: fmt::Display,
    {
        let ask = move || -> Outcome {
            let asked = ask();
            Box::pin(async move {
                match asked.await {
                    Ok(detail) => Ok(cut(&detail)),
                    Err(error) => Err(cut(&error)),
                }
            })
        };
        Self {
            name,
            ask: Arc::new(ask),
            required: false,
            period: None,
            timeout: None,
        }
    }

    /// Says that the service is of no use without it: while it fails, the service is unhealthy and `/health`
    /// answers 503. Never point a platform's probe there for what other instances share, such as the
    /// database: it would take out all of them at once.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// How often it runs, instead of `health.check_period_ms`: 100 ms to 1 h, from the end of one run to the
    /// beginning of the next.
    pub const fn every(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// How long it may take, instead of `health.check_timeout_ms`: 1 ms to 60 s.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The component's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn terms(&self, config: &HealthConfig) -> Terms {
        let period = self.period.unwrap_or(config.check_period);
        let timeout = self.timeout.unwrap_or(config.check_timeout);
        Terms {
            period,
            timeout,
            failures_min: config.failures_min,
            stale_after: config.stale_after.max(period * 2 + timeout),
            failing: match self.required {
                true => HealthStatus::Unhealthy,
                false => HealthStatus::Degraded,
            },
        }
    }

    /// Notes what cannot be meant: times out of range, an empty name, or one that is taken. `taken` are the
    /// components that say how they are by themselves.
    pub(crate) fn check_all(checks: &[Self], taken: &[&str], faults: &mut Faults) {
        let (milli, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        faults.within("health_check", checks.len(), 0..=CHECKS_MAX, "checks");
        for (at, check) in checks.iter().enumerate() {
            let field = format!("health_check({:?})", check.name);
            let before = checks.iter().take(at);
            if check.name.is_empty() || check.name.len() > NAME_MAX {
                let allowed = format!("must have 1 to {NAME_MAX} bytes");
                faults.add(&field, check.name, allowed);
            } else if taken.contains(&check.name)
                || before.into_iter().any(|other| other.name == check.name)
            {
                faults.add(&field, check.name, "is a component already");
            }
            if let Some(period) = check.period {
                faults.within_time(&field, period, milli * 100..=minute * 60);
            }
            if let Some(timeout) = check.timeout {
                faults.within_time(&field, timeout, milli..=minute);
            }
        }
    }
}

/// Each is a task and a line in the answer of the health endpoint.
const CHECKS_MAX: usize = 64;

const NAME_MAX: usize = 64;

/// What a person reads of a result. An error may quote a whole page.
const DETAIL_MAX: usize = 300;

fn cut(words: &impl fmt::Display) -> String {
    let words = words.to_string();
    match words.char_indices().nth(DETAIL_MAX) {
        Some((end, _)) => format!("{}..", words.get(..end).unwrap_or_default()),
        None => words,
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthCheck")
            .field("name", &self.name)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &'static str) -> HealthCheck {
        HealthCheck::new(name, || async { Ok::<_, String>("") })
    }

    #[test]
    fn a_name_that_is_taken_and_times_that_cannot_be_meant_are_faults() {
        let second = Duration::from_secs(1);
        let mut faults = Faults::new();
        let good = [named("a").every(second).timeout(second), named("b")];
        HealthCheck::check_all(&good, &["redis"], &mut faults);
        assert!(faults.is_empty());
        let bad = [
            named(""),
            named("redis"),
            named("a"),
            named("a"),
            named("b").every(Duration::ZERO),
            named("c").timeout(second * 61),
        ];
        HealthCheck::check_all(&bad, &["redis"], &mut faults);
        assert_eq!(faults.into_error().faults().len(), 5);
    }

    #[tokio::test]
    async fn long_words_are_cut_between_characters() {
        let long = "\u{20ac}".repeat(400);
        let check = HealthCheck::new("a", move || {
            let long = long.clone();
            async move { Err::<String, _>(long) }
        });
        let said = (check.ask)().await.unwrap_err();
        assert_eq!(said.chars().count(), DETAIL_MAX + 2);
    }

    #[test]
    fn a_result_is_not_old_before_the_next_one_can_be_there() {
        let config = HealthConfig::default();
        let seldom = named("a").every(Duration::from_secs(600));
        assert_eq!(seldom.terms(&config).stale_after, Duration::from_secs(1202));
        assert_eq!(named("a").terms(&config).stale_after, config.stale_after);
    }
}
