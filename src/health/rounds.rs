//! Running the checks.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use crate::clock::Clock;
use crate::health::board::{Finding, HealthBoard};
use crate::health::check::{HealthCheck, Terms};
use crate::health::config::HealthConfig;
use crate::health::details::HealthStatus;
use crate::task::Spawner;

/// Starts a task for each of `checks`, the first round at once. They end with the owner of `spawner`.
///
/// Until a check has come to something its component is degraded: nobody knows yet.
pub(crate) fn start(
    checks: &[HealthCheck],
    config: &HealthConfig,
    (spawner, clock): (&Spawner, &Clock),
    board: &HealthBoard,
) {
    for check in checks {
        let terms = check.terms(config);
        let mut round = Round {
            check: check.clone(),
            terms,
            clock: clock.clone(),
            board: board.clone(),
            status: HealthStatus::Degraded,
            failures: 0,
        };
        round.tell("not checked yet".to_owned(), None);
        spawner.spawn_until_stopped(async move {
            loop {
                round.run().await;
                tokio::time::sleep(terms.period).await;
            }
        });
    }
}

/// One check, and what it came to so far.
struct Round {
    check: HealthCheck,
    terms: Terms,
    clock: Clock,
    board: HealthBoard,
    status: HealthStatus,
    failures: u32,
}

impl Round {
    async fn run(&mut self) {
        let began = self.clock.now();
        let asked = tokio::time::timeout(self.terms.timeout, caught(&self.check)).await;
        let took = self.clock.now().since(began);
        let outcome = asked.unwrap_or_else(|_| {
            let limit = self.terms.timeout.as_millis();
            Err(format!("nothing within {limit} ms"))
        });
        let detail = match outcome {
            Ok(detail) => {
                (self.status, self.failures) = (HealthStatus::Healthy, 0);
                detail
            }
            Err(why) => self.failed(&why),
        };
        self.tell(detail, Some(took));
    }

    /// Counts a failure. Returns what to say of it.
    fn failed(&mut self, why: &str) -> String {
        self.failures = self.failures.saturating_add(1);
        let (failures, needed) = (self.failures, self.terms.failures_min);
        if failures >= needed {
            self.status = self.terms.failing;
            return match failures {
                1 => format!("fails: {why}"),
                more => format!("fails, {more} times by now: {why}"),
            };
        }
        format!("failed {failures} of {needed} times before it counts: {why}")
    }

    fn tell(&self, detail: String, took: Option<std::time::Duration>) {
        let finding = Finding {
            status: self.status,
            detail,
            took,
            failures: self.failures,
            stale_after: self.terms.stale_after,
        };
        self.board.found(self.check.name, finding);
    }
}

/// Asks, and takes a panic for a failure.
async fn caught(check: &HealthCheck) -> Result<String, String> {
    let Ok(mut asked) = catch_unwind(AssertUnwindSafe(|| (check.ask)())) else {
        return Err(PANICKED.to_owned());
    };
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| asked.as_mut().poll(cx)));
        polled.unwrap_or_else(|_| Poll::Ready(Err(PANICKED.to_owned())))
    })
    .await
}

const PANICKED: &str = "the check panicked";

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::health::board::ComponentHealth;
    use crate::task::Tasks;

    const SECOND: Duration = Duration::from_secs(1);

    /// A board, a check on it that runs each second, and how often it was asked.
    struct Watched {
        board: HealthBoard,
        _tasks: Tasks,
    }

    impl Watched {
        fn by(check: HealthCheck) -> Self {
            let (clock, _) = Clock::manual();
            let board = HealthBoard::of_instance(clock.clone(), "a", None);
            let tasks = Tasks::new().unwrap();
            let check = check.every(SECOND).timeout(SECOND);
            let config = HealthConfig::default();
            start(&[check], &config, (&tasks.spawner(), &clock), &board);
            Self {
                board,
                _tasks: tasks,
            }
        }

        fn says(&self) -> ComponentHealth {
            self.board.health().components["database"].clone()
        }

        /// Paused time moves on only when nobody has anything to do.
        async fn rests(&self, time: Duration) -> ComponentHealth {
            tokio::time::sleep(time).await;
            self.says()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_counts_when_it_repeats_and_one_success_mends_it() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let check = HealthCheck::new("database", move || {
            let at = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match at {
                    0 | 4 => Ok("17 tables"),
                    _ => Err("refused"),
                }
            }
        });
        let watched = Watched::by(check.required());
        assert_eq!(watched.says().detail, "not checked yet");
        assert_eq!(watched.says().status, HealthStatus::Degraded);
        let half = SECOND / 2;
        let first = watched.rests(half).await;
        assert_eq!(
            (first.status, &*first.detail),
            (HealthStatus::Healthy, "17 tables")
        );
        let second = watched.rests(SECOND).await;
        assert_eq!(second.status, HealthStatus::Healthy, "{second:?}");
        assert!(second.detail.ends_with("refused"), "{second:?}");
        let third = watched.rests(SECOND).await;
        assert_eq!(third.status, HealthStatus::Unhealthy, "{third:?}");
        assert_eq!(watched.board.details().components["database"].failures, 2);
        watched.rests(SECOND).await;
        assert_eq!(watched.rests(SECOND).await, first);
        assert_eq!(asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_ended_and_never_runs_twice_at_once() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        struct Leaves(Arc<AtomicUsize>);
        impl Drop for Leaves {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        let (inside, peak) = (Arc::clone(&running), Arc::clone(&most));
        let check = HealthCheck::new("database", move || {
            let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
            peak.fetch_max(now, Ordering::SeqCst);
            let leaves = Leaves(Arc::clone(&inside));
            async move {
                let _leaves = leaves;
                std::future::pending::<Result<String, String>>().await
            }
        });
        let watched = Watched::by(check);
        let said = watched.rests(SECOND * 5 / 2 * 2).await;
        assert_eq!(said.status, HealthStatus::Degraded);
        assert!(said.detail.ends_with("nothing within 1000 ms"), "{said:?}");
        assert_eq!(most.load(Ordering::SeqCst), 1);
        drop(watched);
        tokio::task::yield_now().await;
        assert_eq!(running.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_and_the_next_round_comes_all_the_same() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let check = HealthCheck::new("database", move || {
            let at = count.fetch_add(1, Ordering::SeqCst);
            assert!(at != 0, "before there is a future");
            async move {
                assert!(at != 1, "inside of it");
                Ok::<_, String>("well")
            }
        });
        let watched = Watched::by(check);
        let said = watched.rests(SECOND * 3 / 2).await;
        assert_eq!(said.status, HealthStatus::Degraded);
        assert_eq!(said.detail, "fails, 2 times by now: the check panicked");
        assert_eq!(watched.rests(SECOND).await.status, HealthStatus::Healthy);
    }
}
