//! Callers who go on through a fault, and what they come to.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::store::{
    Call, Command, Push, PushSink, RedisConfig, RedisPool, RedisStatus, StoreError, StoreParts,
};
use tower_keep::task::Tasks;

use crate::store::{ECHO, PUT, TELL, until, until_up};
use crate::store_faults::observer::Observer;
use crate::store_faults::report::Report;

/// What a caller may wait: the command timeout of [`crate::store::settings`], and 5 ms.
const PROMISE: Duration = Duration::from_millis(55);
/// While down a caller should not wait at all; less than this is the machine's noise.
const NOTICED: Duration = Duration::from_millis(5);
/// How many callers there are, and how often each of them asks.
const CALLERS: usize = 8;
const EVERY: Duration = Duration::from_millis(4);

/// One pool under constant use, watched from both ends.
pub(super) struct Drill {
    pub(super) pool: RedisPool,
    tasks: Tasks,
    observer: Observer,
    record: Arc<Record>,
    operator: Arc<Operator>,
    ears: [Arc<Ear>; 2],
    callers: Vec<JoinHandle<()>>,
    memory: Mutex<(u64, u64)>,
}

#[derive(Default)]
struct Record {
    over: AtomicBool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// Nothing counts before the fault.
    began: bool,
    report: Report,
    /// Since when a success means that it is over, and when the first one came.
    mended: Option<Instant>,
    success: Option<Instant>,
}

/// Who is told by events.
#[derive(Default)]
struct Operator {
    trips: AtomicUsize,
    told: AtomicUsize,
    up: AtomicBool,
}

impl Recorder for Operator {
    fn record(&self, event: &Event<'_>) {
        match event {
            Event::RedisUp => self.up.store(true, Ordering::SeqCst),
            Event::RedisDown { .. } => {
                if self.up.swap(false, Ordering::SeqCst) {
                    self.trips.fetch_add(1, Ordering::SeqCst);
                }
                self.told.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

/// Hears a channel, or keys.
#[derive(Default)]
struct Ear(Mutex<Vec<Said>>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Subscribed,
    Lost,
    Something,
}

impl PushSink for Ear {
    fn push(&self, push: Push<'_>) {
        let said = match push {
            Push::Subscribed { .. } => Said::Subscribed,
            Push::Lost { .. } => Said::Lost,
            _ => Said::Something,
        };
        let mut all = self.0.lock().unwrap();
        // Once says as much as a thousand times.
        if said != Said::Something || all.last() != Some(&said) {
            all.push(said);
        }
    }
}

impl Ear {
    /// On how many connections it is subscribed: whatever was subscribed is lost once, and nothing is
    /// heard in between. While one connection takes over from another, there may be two.
    #[track_caller]
    fn subscribed(&self) -> usize {
        let all = self.0.lock().unwrap().clone();
        all.iter().enumerate().fold(0, |subscribed, (at, said)| {
            let now = match said {
                Said::Subscribed => subscribed + 1,
                Said::Lost => usize::checked_sub(subscribed, 1).unwrap_or(usize::MAX),
                Said::Something if subscribed == 0 => usize::MAX,
                Said::Something => subscribed,
            };
            assert!(now <= 2, "out of turn at {at}: {all:?}");
            now
        })
    }
}

impl Drill {
    /// Opens a pool, waits until it is up, and begins to use it. `way` is where it connects to,
    /// `servers` are those who may have connections of ours.
    pub(super) async fn begin(
        fault: &'static str,
        config: &RedisConfig,
        way: u16,
        servers: &[u16],
    ) -> Self {
        let tasks = Tasks::new().unwrap();
        let operator = Arc::<Operator>::default();
        let parts = StoreParts {
            events: Events::to(vec![Arc::<Operator>::clone(&operator)]),
            scripts: vec![&ECHO, &PUT, &TELL],
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(config, &parts).unwrap();
        let ears = [Arc::<Ear>::default(), Arc::<Ear>::default()];
        pool.subscribe("news", Arc::<Ear>::clone(&ears[0]));
        pool.track("watched:", Arc::<Ear>::clone(&ears[1]));
        until_up(&pool).await;
        operator.told.store(0, Ordering::SeqCst);
        let password = config.password.as_deref();
        let observer = Observer::begin(way, servers, password);
        let record = Arc::<Record>::default();
        record.notes.lock().unwrap().report.fault = fault;
        let caller = |number| tokio::spawn(call_on(pool.clone(), Arc::clone(&record), number));
        let drill = Self {
            callers: (0..CALLERS).map(caller).collect(),
            tasks,
            observer,
            operator,
            ears,
            memory: Mutex::default(),
            pool,
            record,
        };
        drill.listening().await;
        drill
    }

    /// Whoever subscribed hears.
    async fn listening(&self) {
        for ear in &self.ears {
            until("subscribed", || ear.subscribed() == 1).await;
        }
    }

    /// The fault comes now. What callers see counts from here on.
    pub(super) fn strike(&self) {
        *self.memory.lock().unwrap() = (memory(), 0);
        self.record.notes.lock().unwrap().began = true;
    }

    /// The fault ends now: the next answer that anybody gets means that the server is back.
    pub(super) fn mend(&self) {
        self.mend_at(None);
    }

    /// The same, and it is back at another port.
    pub(super) fn mend_at(&self, port: Option<u16>) {
        self.memory.lock().unwrap().1 = memory();
        self.record.notes.lock().unwrap().mended = Some(Instant::now());
        self.observer.expect(port);
    }

    /// How often the connection was given up so far.
    pub(super) fn trips(&self) -> usize {
        self.operator.trips.load(Ordering::SeqCst)
    }

    /// Errors so far.
    pub(super) fn failed(&self) -> usize {
        self.record.notes.lock().unwrap().report.failed
    }

    /// Waits until commands succeed again, looks on for a while, and says what it was like.
    pub(super) async fn end(self) -> Report {
        let back = || {
            let succeeded = self.record.notes.lock().unwrap().success.is_some();
            succeeded && self.observer.answered().is_some() && self.pool.status().is_up()
        };
        until("commands succeed again", back).await;
        self.listening().await;
        let count = || self.record.notes.lock().unwrap().report.succeeded;
        let so_far = count();
        until("they go on to succeed", || count() >= so_far + 200).await;
        self.record.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.unwrap();
        }
        let status = self.pool.status();
        assert!(status.is_up(), "in the end it is {status}");
        assert_eq!(self.pool.figures().under_way, 0, "commands are left over");
        for ear in &self.ears {
            assert_eq!(ear.subscribed(), 1, "{:?}", ear.0.lock());
        }
        let (mut report, success) = {
            let notes = self.record.notes.lock().unwrap();
            (notes.report.clone(), notes.success)
        };
        report.recovery = self
            .observer
            .answered()
            .zip(success)
            .map(|(answered, success)| success.saturating_duration_since(answered));
        report.connections = self.observer.most();
        let (before, after) = *self.memory.lock().unwrap();
        report.memory_kib = i64::try_from(after).unwrap() - i64::try_from(before).unwrap();
        report.trips = self.operator.trips.load(Ordering::SeqCst);
        report.told = self.operator.told.load(Ordering::SeqCst);
        assert_eq!(self.tasks.shutdown(Duration::from_secs(5)).await, 0);
        report
    }
}

/// Asks again and again until the drill is over.
async fn call_on(pool: RedisPool, record: Arc<Record>, number: usize) {
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !record.over.load(Ordering::Relaxed) {
        beat.tick().await;
        let status = pool.status();
        let begun = Instant::now();
        let outcome = ask(&pool, number).await;
        record.note(begun, &status, outcome);
    }
}

/// Each caller has its own kind of question.
async fn ask(pool: &RedisPool, number: usize) -> Result<(), StoreError> {
    let key = format!("caller:{number}");
    match number % 4 {
        0 => pool
            .run::<u64>(&Command::new("INCR").key(key))
            .await
            .map(drop),
        1 => {
            let set = Command::new("SET").key("watched:1").arg(number as i64);
            pool.run::<()>(&set.arg("PX").arg(60_000)).await
        }
        2 => {
            let call = Call::new(&PUT).key(&key).arg("x");
            pool.call::<String>(&call).await.map(drop)
        }
        _ => {
            let get = Command::new("GET").key("caller:0");
            pool.run::<Option<String>>(&get).await.map(drop)
        }
    }
}

impl Record {
    fn note(&self, begun: Instant, status: &RedisStatus, outcome: Result<(), StoreError>) {
        let now = Instant::now();
        let waited = now - begun;
        let mut notes = self.notes.lock().unwrap();
        let Notes {
            began: true,
            report,
            mended,
            success,
        } = &mut *notes
        else {
            return;
        };
        report.longest = report.longest.max(waited);
        report.over += usize::from(waited > PROMISE);
        match outcome {
            Ok(()) => {
                report.succeeded += 1;
                if mended.is_some_and(|mended| mended < now) && success.is_none() {
                    *success = Some(now);
                }
            }
            Err(error) => {
                report.failed += 1;
                report.first_error.get_or_insert(waited);
                let name = format!("{error:?}");
                let name = name.split(['(', ' ']).next().unwrap_or_default().to_owned();
                *report.errors.entry(name).or_default() += 1;
                if let RedisStatus::Down { reason } = status {
                    report.words.insert(reason.to_string());
                    report.down += 1;
                    report.longest_down = report.longest_down.max(waited);
                    report.down_late += usize::from(waited > NOTICED);
                    report.down_over += usize::from(waited > Duration::from_millis(1));
                }
            }
        }
    }
}

/// What this process occupies, in KiB.
pub(super) fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.map_or(0, |number| number.parse().unwrap())
}
