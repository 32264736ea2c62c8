//! The only file that spawns.
//!
//! [`Tasks`] owns what it started: shutting it down drains it within a deadline, dropping it aborts
//! whatever still runs. Engines hold a [`Spawner`], which can start tasks but not keep them alive.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The owner of background tasks; dropping it aborts them.
#[derive(Debug)]
pub struct Tasks {
    shared: Arc<Shared>,
}

/// Starts tasks that belong to a [`Tasks`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    runtime: Handle,
    /// `None` once the owner is gone or has been shut down: nothing starts any more.
    running: Mutex<Option<JoinSet<()>>>,
    stop: watch::Sender<bool>,
}

/// Outside of a Tokio runtime there is nowhere to run a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no Tokio runtime here: call this from within one, as in `#[tokio::main]`")]
pub struct NoRuntime;

impl Tasks {
    /// An owner whose tasks run on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`NoRuntime`] when called outside of one.
    pub fn new() -> Result<Self, NoRuntime> {
        let runtime = Handle::try_current().map_err(|_| NoRuntime)?;
        let (stop, _) = watch::channel(false);
        let running = Mutex::new(Some(JoinSet::new()));
        Ok(Self {
            shared: Arc::new(Shared {
                runtime,
                running,
                stop,
            }),
        })
    }

    /// A handle for whoever needs to start tasks.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Asks all tasks to stop and waits for them, at most `deadline`; what is still running then is
    /// aborted. Returns how many had to be.
    ///
    /// Cancelling this future aborts the remaining tasks at once.
    pub async fn shutdown(&self, deadline: Duration) -> usize {
        self.shared.stop.send_replace(true);
        let Some(mut tasks) = self.shared.lock().take() else {
            return 0;
        };
        let drained = tokio::time::timeout(deadline, async {
            while tasks.join_next().await.is_some() {}
        });
        match drained.await {
            Ok(()) => 0,
            Err(_) => {
                let left = tasks.len();
                // A task that blocks its thread cannot be aborted, and must not hold up the rest.
                let _ = tokio::time::timeout(ABORT, tasks.shutdown()).await;
                left
            }
        }
    }
}

/// How long aborted tasks are waited for.
const ABORT: Duration = Duration::from_secs(1);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
        // Dropping the set aborts every task in it, when the lock is given back: some spawn as they die.
        let tasks = self.shared.lock().take();
        drop(tasks);
    }
}

impl Spawner {
    /// Starts a task. Returns whether it was: after shutdown nothing starts.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let task = Handed::new(Box::pin(task));
        let other = task.clone();
        let taken = async move {
            if let Some(task) = other.take() {
                task.await;
            }
        };
        let started = self.start(|tasks, runtime| tasks.spawn_on(taken, runtime));
        drop(task);
        started
    }

    /// Starts work that blocks its thread, on one of the runtime's threads for that. Returns whether it was:
    /// after shutdown nothing starts. Such work cannot be aborted once it runs, so a shutdown waits for it
    /// within its deadline, and a runtime that is dropped waits for it as well.
    pub fn spawn_blocking(&self, work: impl FnOnce() + Send + 'static) -> bool {
        let work = Handed::new(work);
        let other = work.clone();
        let taken = move || {
            if let Some(work) = other.take() {
                work();
            }
        };
        let started = self.start(|tasks, runtime| tasks.spawn_blocking_on(taken, runtime));
        drop(work);
        started
    }

    fn start(&self, spawn: impl FnOnce(&mut JoinSet<()>, &Handle) -> AbortHandle) -> bool {
        let mut running = self.shared.lock();
        let Some(tasks) = running.as_mut() else {
            return false;
        };
        // Finished tasks are let go here, so that the set is no larger than what runs.
        while tasks.try_join_next().is_some() {}
        spawn(tasks, &self.shared.runtime);
        true
    }

    /// How many workers the runtime has, and how long they have been busy so far, all together.
    #[must_use]
    pub fn worked(&self) -> (usize, Duration) {
        let metrics = self.shared.runtime.metrics();
        let workers = metrics.num_workers();
        let worked = (0..workers).map(|worker| metrics.worker_total_busy_duration(worker));
        (workers, worked.sum())
    }

    /// Whether tasks still start.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// Resolves when the owner begins to shut down. Safe to drop at any await.
    pub async fn stopped(&self) {
        let mut stop = self.shared.stop.subscribe();
        // An error means that the sender is gone, which is a stop as well.
        let _ = stop.wait_for(|stopped| *stopped).await;
    }

    /// Starts a task that ends, at its next await, when the owner begins to shut down. Returns whether it was
    /// started.
    pub fn spawn_until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) -> bool {
        let stopped = self.clone();
        self.spawn(async move {
            tokio::select! {
                biased;
                () = stopped.stopped() => {}
                () = work => {}
            }
        })
    }

    /// Runs `beat` every `period`, the first time at once, until the owner shuts down. A beat that
    /// panics is reported to `tracing` and runs again the next time.
    pub fn every(&self, period: Duration, mut beat: impl FnMut() + Send + 'static) -> bool {
        let spawner = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = spawner.stopped() => return,
                    _ = ticks.tick() => {
                        if catch_unwind(AssertUnwindSafe(&mut beat)).is_err() {
                            tracing::error!(target: "tower_keep", "background work panicked");
                        }
                    }
                }
            }
        })
    }

    /// How many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        let mut running = self.shared.lock();
        let Some(tasks) = running.as_mut() else {
            return 0;
        };
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }
}

/// Work on its way to the runtime, held by two: one that has been shut down drops at once what it is given, under the
/// lock of whoever spawns, and what dies then may want to spawn as well. So it dies with the spawner's hand on it,
/// which lets go when the lock is given back.
struct Handed<T>(Arc<Mutex<Option<T>>>);

impl<T> Handed<T> {
    fn new(work: T) -> Self {
        Self(Arc::new(Mutex::new(Some(work))))
    }

    /// The work, unless it was taken before.
    fn take(self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<T> Clone for Handed<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Shared {
    /// A panic while the lock was held cannot leave the set half-changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_tasks_outside_a_runtime() {
        assert_eq!(Tasks::new().unwrap_err(), NoRuntime);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_the_willing_and_aborts_the_rest() {
        let tasks = Tasks::new().unwrap();
        let spawner = tasks.spawner();
        let polite = spawner.clone();
        assert!(spawner.spawn(async move { polite.stopped().await }));
        assert!(spawner.spawn(std::future::pending()));
        assert_eq!(tasks.shutdown(Duration::from_secs(1)).await, 1);
        assert!(!spawner.spawn(async {}), "nothing starts after shutdown");
    }

    #[tokio::test]
    async fn dropping_the_owner_leaks_no_task() {
        let tasks = Tasks::new().unwrap();
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        tasks.spawner().spawn(async move {
            let _inside = inside;
            std::future::pending::<()>().await;
        });
        drop(tasks);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    /// Spawns as it is dropped, as a lease does that is given back.
    struct SpawnsAtItsEnd(Spawner);

    impl Drop for SpawnsAtItsEnd {
        fn drop(&mut self) {
            self.0.spawn(async {});
        }
    }

    #[test]
    fn what_a_runtime_drops_that_was_shut_down_may_spawn() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let tasks = runtime.block_on(async { Tasks::new().unwrap() });
        drop(runtime);
        let (done, seen) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let spawner = tasks.spawner();
            let held = SpawnsAtItsEnd(spawner.clone());
            spawner.spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            let held = SpawnsAtItsEnd(spawner.clone());
            spawner.spawn_blocking(move || drop(held));
            drop(tasks);
            let _ = done.send(());
        });
        let within = Duration::from_secs(30);
        assert_eq!(seen.recv_timeout(within), Ok(()), "it waits for itself");
    }

    #[tokio::test]
    async fn blocking_work_runs_elsewhere_and_shutdown_waits_for_it() {
        let tasks = Tasks::new().unwrap();
        let here = std::thread::current().id();
        let (done, seen) = std::sync::mpsc::channel();
        assert!(tasks.spawner().spawn_blocking(move || {
            let _ = done.send(std::thread::current().id());
        }));
        assert_eq!(tasks.shutdown(Duration::from_secs(10)).await, 0);
        assert_ne!(seen.recv().unwrap(), here);
        assert!(!tasks.spawner().spawn_blocking(|| {}));
    }

    #[test]
    fn a_worker_that_works_has_worked() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new().unwrap();
            let spawner = tasks.spawner();
            assert_eq!(spawner.worked().0, 2);
            while spawner.worked().1 < Duration::from_millis(5) {
                let (done, seen) = tokio::sync::oneshot::channel();
                spawner.spawn(async move {
                    std::hint::black_box((0..1_000_000_u64).fold(0, u64::wrapping_add));
                    let _ = done.send(());
                });
                seen.await.unwrap();
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_runs_once_a_period() {
        let tasks = Tasks::new().unwrap();
        let (beats, mut seen) = tokio::sync::mpsc::unbounded_channel();
        tasks.spawner().every(Duration::from_secs(1), move || {
            let _ = beats.send(());
            panic!("a beat may fail, the next one comes all the same");
        });
        for _ in 0..3 {
            seen.recv().await.unwrap();
        }
        tasks.shutdown(Duration::from_secs(1)).await;
        assert!(seen.recv().await.is_none());
    }
}
