//! A task that does nothing but be late: the runtime's canary.
//!
//! It sleeps for a tenth of a second and looks how much later than that it was woken. The difference is
//! what every other task waits as well between being ready and being run, and it is the earliest sign of
//! a runtime that is given more than it gets done: long before memory or queues tell.

use std::fmt;
use std::sync::Arc;

use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::guard::config::GuardConfig;
use crate::guard::lag::{Lag, LagJudge};
use crate::guard::runtime::RuntimeHealth;

/// Measures the lag of the runtime that it runs on, for as long as it runs.
pub(crate) struct Canary {
    clock: Clock,
    events: Events,
    health: Arc<RuntimeHealth>,
    judge: LagJudge,
    on_lag: Option<OnLag>,
    on_sleep: Option<OnSleep>,
}

type OnLag = Box<dyn Fn(Lag) + Send + Sync>;
type OnSleep = Box<dyn Fn(Option<Moment>) + Send + Sync>;

impl Canary {
    /// A canary that notes what it finds in `health`.
    pub(crate) fn new(
        config: &GuardConfig,
        clock: Clock,
        events: Events,
        health: Arc<RuntimeHealth>,
    ) -> Self {
        Self {
            clock,
            events,
            health,
            judge: LagJudge::new(config.lag_target),
            on_lag: None,
            on_sleep: None,
        }
    }

    /// Calls `hook` with what every measurement means; also when the canary ends, after which all is calm. It must be quick: the next measurement waits for it.
    pub(crate) fn on_lag(mut self, hook: impl Fn(Lag) + Send + Sync + 'static) -> Self {
        self.on_lag = Some(Box::new(hook));
        self
    }

    /// Calls `hook` before it goes to sleep with the moment by which it will be awake, unless the runtime lags
    /// badly, and with `None` when it ends.
    pub(crate) fn on_sleep(
        mut self,
        hook: impl Fn(Option<Moment>) + Send + Sync + 'static,
    ) -> Self {
        self.on_sleep = Some(Box::new(hook));
        self
    }

    /// Measures until it is dropped. Safe to drop at any await.
    pub(crate) async fn run(self) {
        let mut watch = Watch(self);
        loop {
            let (asked, pause) = (watch.0.clock.now(), watch.0.judge.pause());
            if let Some(hook) = &watch.0.on_sleep {
                hook(Some(asked.plus(pause).plus(watch.0.judge.overdue())));
            }
            tokio::time::sleep(pause).await;
            watch.0.measure(asked.plus(pause));
        }
    }

    /// Judges that it was to be woken at `due`, and is now.
    fn measure(&mut self, due: Moment) {
        let now = self.clock.now();
        let lag = now.since(due);
        let verdict = self.judge.judge(now, lag);
        self.health.note_lag(now, lag, verdict.lag == Lag::Lagging);
        if verdict.begins {
            self.events.emit(Event::RuntimeLagging { lag });
        }
        if let Some(hook) = &self.on_lag {
            hook(verdict.lag);
        }
    }
}

/// Takes back what was last said: a runtime that nobody watches must not count as lagging for ever.
struct Watch(Canary);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(hook) = &self.0.on_sleep {
            hook(None);
        }
        let lagging = self.0.health.reading().lagging;
        self.0.health.forget_lag();
        if let Some(hook) = self.0.on_lag.as_ref().filter(|_| lagging) {
            hook(Lag::Calm);
        }
    }
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canary")
            .field("judge", &self.judge)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;
    use crate::event::Recorder;
    use crate::task::Tasks;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Duration>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            if let Event::RuntimeLagging { lag } = event {
                self.0.lock().unwrap().push(*lag);
            }
        }
    }

    /// Lets the runtime's time pass, and on the clock `late` more than that.
    async fn sleeps(hand: &ManualClock, pause: Duration, late: Duration) {
        hand.advance(pause + late);
        tokio::time::advance(pause + Duration::from_millis(1)).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_wakes_late_for_an_interval_is_told_once_and_taken_back_at_the_end() {
        let (clock, hand) = Clock::manual();
        let (heard, health) = (
            Arc::new(Heard::default()),
            Arc::new(RuntimeHealth::default()),
        );
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let said = Arc::new(Mutex::new(Vec::new()));
        let saying = Arc::clone(&said);
        let canary = Canary::new(&GuardConfig::default(), clock, events, Arc::clone(&health))
            .on_lag(move |lagging| saying.lock().unwrap().push(lagging));
        let tasks = Tasks::new().unwrap();
        tasks.spawner().spawn_until_stopped(canary.run());
        tokio::task::yield_now().await;
        let (pause, wary) = (Duration::from_millis(100), Duration::from_millis(20));
        sleeps(&hand, pause, Duration::ZERO).await;
        assert_eq!(health.reading().lag, Duration::ZERO);
        let late = Duration::from_millis(30);
        sleeps(&hand, pause, late).await;
        assert_eq!(
            (health.reading().lag, health.reading().lagging),
            (late, false)
        );
        for _ in 0..3 {
            sleeps(&hand, wary, late).await;
        }
        assert!(health.reading().lagging);
        assert_eq!(*heard.0.lock().unwrap(), [late], "told once");
        assert_eq!(health.reading().lag_p99, late);
        tasks.shutdown(Duration::from_secs(1)).await;
        assert!(!health.reading().lagging);
        let said = said.lock().unwrap();
        assert!(said.contains(&Lag::Lagging));
        assert_eq!(said.last(), Some(&Lag::Calm));
    }

    #[tokio::test]
    async fn a_blocked_worker_is_seen() {
        let health = Arc::new(RuntimeHealth::default());
        let canary = Canary::new(
            &GuardConfig::default(),
            Clock::system(),
            Events::none(),
            Arc::clone(&health),
        );
        let tasks = Tasks::new().unwrap();
        tasks.spawner().spawn_until_stopped(canary.run());
        let seen = async {
            while health.reading().lag_p99 < Duration::from_millis(50) {
                // The one thread that the canary could run on.
                std::thread::sleep(Duration::from_millis(180));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen)
            .await
            .unwrap();
    }
}
