//! Writes to the cold store behind the requests' backs: a bounded queue, and one task that empties it.
//!
//! Whoever has computed something must not wait for a database, and a database on a small host must not be
//! asked for a transaction per entry. So entries wait here, by key; what comes again for a key takes the
//! place of what waits. The task writes them in batches, oldest first, and while the store fails they stay,
//! as far as the bounds allow: beyond them the oldest go, for the newest are the likeliest to be asked for.
//! Until the store has confirmed an entry, [`Behind::waiting`] finds it. What is done with whom in line is in
//! [`Queue`]; here is only when.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior, Sleep, interval, sleep, timeout};

use crate::clock::Clock;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::task::Spawner;
use crate::tiers::cold::{ColdEntry, ColdError, ColdStore};
use crate::tiers::queue::{BATCH_ENTRIES_MAX, Bounds, Figures, Queue};

/// The queue's near end. Cheap to clone; all clones are the same queue.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn ColdStore>,
    clock: Clock,
    bounds: Bounds,
    queue: Mutex<Queue>,
    /// Something was put in line.
    work: Notify,
}

impl Behind {
    /// A queue before `store`, and the task that empties it. The task ends with the owner of `spawner`.
    pub(crate) fn new(
        store: Arc<dyn ColdStore>,
        clock: Clock,
        spawner: &Spawner,
        bounds: Bounds,
    ) -> Self {
        let shared = Arc::new(Shared {
            store,
            clock,
            bounds,
            queue: Mutex::default(),
            work: Notify::new(),
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            stopping: spawner.clone(),
            failed_in_a_row: 0,
            rest: None,
            batch_max: BATCH_ENTRIES_MAX,
        };
        // If nothing starts any more, the writer is dropped here, and that closes the queue.
        spawner.spawn(writer.run());
        Self { shared }
    }

    /// Puts an entry in line and returns whether it is: never waits. One of the same key that waits already is
    /// replaced. `false` for a key or a frame that can never be written, and at the end.
    ///
    /// The frame is held until it is written; one that is a slice of something larger holds all of that.
    pub(crate) fn offer(&self, entry: ColdEntry) -> bool {
        let taken = self.shared.lock().offer(entry, self.shared.bounds);
        if taken {
            self.shared.work.notify_one();
        }
        taken
    }

    /// The frame under this key that is not known to have reached the store yet. It may have run out.
    pub(crate) fn waiting(&self, key: &str) -> Option<Bytes> {
        self.shared.lock().waiting(key)
    }

    /// What became of the entries so far.
    pub(crate) fn figures(&self) -> Figures {
        self.shared.lock().figures()
    }
}

impl Shared {
    /// Every change is whole before the lock is let go, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        let age = self
            .clock
            .wall()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The queue's far end. Its drop closes the queue: after that nobody would write what is offered.
struct Writer {
    shared: Arc<Shared>,
    stopping: Spawner,
    failed_in_a_row: u32,
    /// What is left of the pause after a failure, which goes on while something else is done.
    rest: Option<Pin<Box<Sleep>>>,
    /// Halved by each failure, so that an entry that the store refuses is soon alone.
    batch_max: usize,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

impl Writer {
    async fn run(mut self) {
        let stopping = self.stopping.clone();
        let mut stopped = pin!(stopping.stopped());
        let mut sweeps = interval(SWEEP_EVERY);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.reset();
        loop {
            // Only the waiting is broken off by the end, not a write that is on its way.
            let due = tokio::select! {
                biased;
                () = &mut stopped => break,
                _ = sweeps.tick() => Due::Sweep,
                () = self.work() => Due::Write,
            };
            match due {
                Due::Sweep => self.sweep(&mut sweeps).await,
                Due::Write => self.write().await,
            }
        }
        self.drain().await;
    }

    /// Waits until there is something to write, and the time to write it.
    async fn work(&mut self) {
        while !self.shared.lock().has_work() {
            self.shared.work.notified().await;
        }
        if let Some(rest) = &mut self.rest {
            rest.as_mut().await;
        } else if !self.shared.lock().fills_a_batch() {
            sleep(GATHER).await;
        }
    }

    /// Writes one batch.
    async fn write(&mut self) {
        self.rest = None;
        let now_ms = self.shared.now_ms();
        let batch = self.shared.lock().take_batch(self.batch_max, now_ms);
        if batch.is_empty() {
            return;
        }
        let entries: Vec<ColdEntry> = batch.iter().map(|taken| taken.entry.clone()).collect();
        match in_time(self.shared.store.store(&entries)).await {
            Ok(()) => {
                self.shared.lock().confirm(&batch);
                self.failed_in_a_row = 0;
                self.batch_max = (self.batch_max * 2).min(BATCH_ENTRIES_MAX);
            }
            Err(error) => {
                self.shared.lock().put_back(&batch);
                self.failed(&error);
                self.batch_max = (batch.len() / 2).max(1);
            }
        }
    }

    fn failed(&mut self, error: &ColdError) {
        self.shared.lock().failed();
        if self.failed_in_a_row == 0 {
            tracing::warn!(target: "tower_keep", %error, "the cold store fails, entries wait");
        }
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.rest = Some(Box::pin(sleep(pause_after(self.failed_in_a_row))));
    }

    /// Sweeps once. A full sweep is followed by the next one soon, so that a table that grows faster than one
    /// sweep a minute is kept small as well.
    async fn sweep(&self, sweeps: &mut Interval) {
        let swept = in_time(self.shared.store.sweep(self.shared.now_ms(), SWEEP_MAX)).await;
        match swept {
            Ok(rows) => {
                self.shared.lock().swept(rows);
                if rows >= u64::from(SWEEP_MAX) {
                    sweeps.reset_after(SWEEP_AGAIN);
                }
            }
            // The next one comes by itself.
            Err(_) => self.shared.lock().failed(),
        }
    }

    /// Writes what is left, as long as the owner's deadline lets it. A store that fails time and again is away,
    /// and the deadline is not spent on it.
    async fn drain(&mut self) {
        self.failed_in_a_row = 0;
        self.rest = None;
        while self.failed_in_a_row < DRAIN_FAILURES && self.shared.lock().has_work() {
            if let Some(rest) = self.rest.take() {
                rest.await;
            }
            self.write().await;
        }
    }
}

enum Due {
    Sweep,
    Write,
}

/// A store that does not answer has failed: the next attempt may find another connection.
async fn in_time<T>(call: impl Future<Output = Result<T, ColdError>>) -> Result<T, ColdError> {
    match timeout(PATIENCE, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ColdError::new("no answer in time")),
    }
}

/// How long to wait after so many failures in a row: 100 ms, then twice as long each time, up to 30 s.
fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
}

/// How long the first of a batch waits for others: a transaction of many costs little more than one of one.
const GATHER: Duration = Duration::from_millis(50);

/// How long one call to the store may take.
const PATIENCE: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How many failures in a row end the draining.
const DRAIN_FAILURES: u32 = 3;

/// How often rows that have run out are deleted, and how many of them at a time.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_MAX: u32 = 500;

/// How soon after a full sweep.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::sync::watch;
    use tokio::time::Instant;

    use crate::task::Tasks;
    use crate::tiers::cold::{ColdFuture, MemoryCold};

    use super::*;

    /// How a store behaves.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Mood {
        Works,
        Fails,
        /// Works, except for the key `bad`.
        Picky,
        /// Begins and does not end.
        Hangs,
    }

    /// A store with moods, which says when it is asked for what.
    #[derive(Debug)]
    struct Moody {
        inner: MemoryCold,
        mood: watch::Receiver<Mood>,
        asked: UnboundedSender<(Instant, String)>,
    }

    impl Moody {
        #[expect(clippy::disallowed_methods, reason = "the paused time of Tokio")]
        async fn ask(&self, what: String) -> Result<(), ColdError> {
            let bad = what.contains("bad");
            let _ = self.asked.send((Instant::now(), what));
            let mood = *self.mood.borrow();
            match mood {
                Mood::Works => Ok(()),
                Mood::Picky if !bad => Ok(()),
                Mood::Fails | Mood::Picky => Err(ColdError::new("in a bad mood")),
                Mood::Hangs => {
                    let mut mood = self.mood.clone();
                    let _ = mood.wait_for(|mood| *mood != Mood::Hangs).await;
                    Ok(())
                }
            }
        }
    }

    impl ColdStore for Moody {
        fn load<'a>(
            &'a self,
            keys: &'a [Arc<str>],
            now_ms: u64,
        ) -> ColdFuture<'a, Vec<Option<Bytes>>> {
            self.inner.load(keys, now_ms)
        }

        fn store<'a>(&'a self, entries: &'a [ColdEntry]) -> ColdFuture<'a, ()> {
            Box::pin(async move {
                let keys: Vec<&str> = entries.iter().map(|entry| &*entry.key).collect();
                self.ask(keys.join(" ")).await?;
                self.inner.store(entries).await
            })
        }

        fn remove<'a>(&'a self, keys: &'a [Arc<str>]) -> ColdFuture<'a, ()> {
            self.inner.remove(keys)
        }

        fn sweep<'a>(&'a self, now_ms: u64, most: u32) -> ColdFuture<'a, u64> {
            Box::pin(async move {
                self.ask(format!("sweep {most}")).await?;
                self.inner.sweep(now_ms, most).await
            })
        }
    }

    struct House {
        store: Arc<Moody>,
        mood: watch::Sender<Mood>,
        asked: UnboundedReceiver<(Instant, String)>,
        tasks: Tasks,
        behind: Behind,
    }

    /// 2026-01-01, where a manual clock begins.
    const NOW_MS: u64 = 1_767_225_600_000;

    fn house(mood: Mood, bounds: Bounds) -> House {
        let (mood, moods) = watch::channel(mood);
        let (sender, asked) = unbounded_channel();
        let store = Arc::new(Moody {
            inner: MemoryCold::new(1 << 30),
            mood: moods,
            asked: sender,
        });
        let tasks = Tasks::new().unwrap();
        let port: Arc<dyn ColdStore> = Arc::<Moody>::clone(&store);
        let behind = Behind::new(port, Clock::manual().0, &tasks.spawner(), bounds);
        House {
            store,
            mood,
            asked,
            tasks,
            behind,
        }
    }

    impl House {
        fn offer(&self, key: &str, bytes: &'static str) -> bool {
            self.behind.offer(entry(key, bytes, NOW_MS + 100_000_000))
        }

        async fn next(&mut self) -> String {
            self.asked.recv().await.unwrap().1
        }

        /// Lets the writer go on, without letting time pass, until the figures are so.
        async fn until(&self, so: impl Fn(Figures) -> bool) -> Figures {
            loop {
                let figures = self.behind.figures();
                if so(figures) {
                    return figures;
                }
                tokio::task::yield_now().await;
            }
        }

        async fn stored(&self, key: &str) -> Option<Bytes> {
            let keys = [key.into()];
            self.store.load(&keys, NOW_MS).await.unwrap().remove(0)
        }
    }

    fn entry(key: &str, bytes: &'static str, until_ms: u64) -> ColdEntry {
        ColdEntry {
            key: key.into(),
            bytes: Bytes::from_static(bytes.as_bytes()),
            until_ms,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_are_written_together_and_can_be_read_until_they_are() {
        let mut house = house(Mood::Hangs, Bounds::default());
        assert!(house.offer("a", "1") && house.offer("b", "2") && house.offer("a", "3"));
        assert_eq!(house.behind.waiting("a").unwrap(), "3");
        assert_eq!(house.next().await, "a b", "one transaction");
        assert!(
            house.offer("b", "4"),
            "while the older one is being written"
        );
        assert_eq!(house.behind.waiting("a").unwrap(), "3", "not written yet");
        house.mood.send_replace(Mood::Works);
        assert_eq!(house.next().await, "b");
        let figures = house.until(|figures| figures.waiting_entries == 0).await;
        assert_eq!(
            (figures.written, figures.dropped, figures.failures),
            (3, 0, 0)
        );
        assert_eq!(house.behind.waiting("b"), None);
        assert_eq!(house.stored("a").await.unwrap(), "3");
        assert_eq!(house.stored("b").await.unwrap(), "4");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_entries_go_in_batches() {
        let mut house = house(Mood::Works, Bounds::default());
        for number in 0..100 {
            assert!(house.offer(&number.to_string(), "x"));
        }
        assert_eq!(house.next().await.split(' ').count(), 64);
        assert_eq!(house.next().await.split(' ').count(), 36);
        house.until(|figures| figures.written == 100).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_fails_entries_stay_and_attempts_grow_rare() {
        let mut house = house(Mood::Fails, Bounds::default());
        assert!(house.offer("a", "1"));
        let mut times = Vec::new();
        while times.len() < 12 {
            let (when, what) = house.asked.recv().await.unwrap();
            if what == "a" {
                times.push(when);
            }
        }
        let pauses: Vec<u128> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_millis())
            .collect();
        let expected = [
            100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000,
        ];
        // The timer's wheel turns in milliseconds; a sweep in between must not set a pause back.
        for (pause, expected) in pauses.iter().zip(expected) {
            assert!(pause.abs_diff(expected) <= 2, "{pauses:?}");
        }
        assert_eq!(house.behind.waiting("a").unwrap(), "1");
        house.mood.send_replace(Mood::Works);
        let figures = house.until_written(1).await;
        assert!(figures.failures >= 12);
        assert_eq!((figures.dropped, figures.waiting_entries), (0, 0));
        assert_eq!(house.stored("a").await.unwrap(), "1");
    }

    impl House {
        /// As `until`, with time passing in between.
        async fn until_written(&mut self, entries: u64) -> Figures {
            for _ in 0..1_000 {
                if self.behind.figures().written >= entries {
                    break;
                }
                let _ = self.asked.recv().await.unwrap();
                tokio::task::yield_now().await;
            }
            self.behind.figures()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_that_the_store_refuses_does_not_keep_the_others() {
        let mut house = house(Mood::Picky, Bounds::default());
        for key in ["a", "b", "bad", "c", "d", "e"] {
            assert!(house.offer(key, "1"));
        }
        assert_eq!(house.until_written(5).await.written, 5);
        // It is tried once more, since the others may have failed for its sake or it for theirs.
        while house.behind.figures().dropped == 0 {
            let asked = house.next().await;
            assert!(asked == "bad" || asked.starts_with("sweep"), "{asked}");
            tokio::task::yield_now().await;
        }
        assert_eq!(house.behind.figures().waiting_entries, 0);
        assert_eq!(house.stored("bad").await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_given_up_and_asked_again() {
        let mut house = house(Mood::Hangs, Bounds::default());
        assert!(house.offer("a", "1"));
        let (first, _) = house.asked.recv().await.unwrap();
        let (second, what) = house.asked.recv().await.unwrap();
        assert_eq!(what, "a");
        assert!(second - first >= PATIENCE && second - first < PATIENCE * 2);
        assert_eq!(house.behind.figures().failures, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_however_long_the_store_fails() {
        let bounds = Bounds {
            entries: 10,
            ..Bounds::default()
        };
        let house = house(Mood::Fails, bounds);
        for number in 0..50 {
            assert!(house.offer(&number.to_string(), "x"));
        }
        let figures = house.behind.figures();
        assert_eq!((figures.waiting_entries, figures.dropped), (10, 40));
        assert!(house.behind.waiting("39").is_none() && house.behind.waiting("40").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_at_the_end_is_written_within_the_deadline() {
        let mut house = house(Mood::Works, Bounds::default());
        for number in 0..200 {
            assert!(house.offer(&number.to_string(), "x"));
        }
        assert_eq!(house.tasks.shutdown(Duration::from_secs(5)).await, 0);
        assert_eq!(house.store.inner.len(), 200);
        let figures = house.behind.figures();
        assert_eq!((figures.written, figures.dropped), (200, 0));
        assert!(!house.offer("late", "x"), "nobody would write it");
        assert_eq!(house.next().await.split(' ').count(), 64);
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "the paused time of Tokio")]
    async fn a_store_that_is_away_at_the_end_does_not_cost_the_whole_deadline() {
        let house = house(Mood::Fails, Bounds::default());
        assert!(house.offer("a", "1"));
        let began = Instant::now();
        assert_eq!(house.tasks.shutdown(Duration::from_secs(60)).await, 0);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        let figures = house.behind.figures();
        assert_eq!((figures.dropped, figures.waiting_entries), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_at_the_end_is_broken_off_at_the_deadline() {
        let mut house = house(Mood::Hangs, Bounds::default());
        assert!(house.offer("a", "1"));
        assert_eq!(house.next().await, "a");
        assert_eq!(house.tasks.shutdown(Duration::from_secs(2)).await, 1);
        let figures = house.behind.figures();
        assert_eq!((figures.dropped, figures.waiting_entries), (1, 0));
        assert!(!house.offer("late", "x"));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_end_nothing_is_let_in() {
        let tasks = Tasks::new().unwrap();
        tasks.shutdown(Duration::from_secs(1)).await;
        let store = Arc::new(MemoryCold::new(1_000));
        let behind = Behind::new(
            store,
            Clock::manual().0,
            &tasks.spawner(),
            Bounds::default(),
        );
        assert!(!behind.offer(entry("a", "1", u64::MAX)));
        assert_eq!(behind.figures().dropped, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_run_out_is_swept_once_a_minute_and_sooner_while_there_is_more() {
        let mut house = house(Mood::Works, Bounds::default());
        let old: Vec<ColdEntry> = (0..1_200)
            .map(|number| entry(&number.to_string(), "x", NOW_MS))
            .collect();
        house.store.inner.store(&old).await.unwrap();
        let mut times = Vec::new();
        for _ in 0..4 {
            let (when, what) = house.asked.recv().await.unwrap();
            assert_eq!(what, "sweep 500");
            times.push(when);
        }
        let pauses: Vec<u64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs())
            .collect();
        assert_eq!(pauses, [1, 1, 60]);
        assert_eq!(house.behind.figures().swept, 1_200);
        assert!(house.store.inner.is_empty());
    }
}
