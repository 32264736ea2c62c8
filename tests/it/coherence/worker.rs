//! One process of the fleet: told what to do by a variable, telling what it sees on its output.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tower_keep::sqlx::SqliteCold;

use super::cached::Database;
use super::drive::{Kinds, Plan, drive};
use super::journaled::{BOUND, Flaw, Journaled};
use super::judge::{Count, Judge, Tally, Violation};
use super::registers::Registers;
use super::tiered::Tiered;

/// The variable with a worker's orders.
pub const ORDERS: &str = "TOWER_KEEP_COHERENCE_WORKER";

/// How often a worker tells its counts.
const TELLS_EVERY: Duration = Duration::from_millis(200);
/// Far longer than a worker takes to end; only a hang comes to it.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// What one worker is to do. As words: the process, how many there are, the seed, the flaw, Redis, the
/// registers.
#[derive(Clone, Debug)]
pub struct Orders {
    pub process: u32,
    pub processes: u32,
    pub seed: u64,
    pub flaw: Flaw,
    pub url: String,
    pub registers: String,
}

impl Orders {
    fn words(&self) -> String {
        let (process, processes, seed) = (self.process, self.processes, self.seed);
        let (flaw, url, registers) = (self.flaw.name(), &self.url, &self.registers);
        format!("{process} {processes} {seed} {flaw} {url} {registers}")
    }

    /// Those that this process was started with, if it is a worker.
    pub fn of_this_process() -> Option<Self> {
        let words = std::env::var(ORDERS).ok()?;
        let mut words = words.splitn(6, ' ');
        Some(Self {
            process: words.next()?.parse().ok()?,
            processes: words.next()?.parse().ok()?,
            seed: words.next()?.parse().ok()?,
            flaw: Flaw::named(words.next()?)?,
            url: words.next()?.to_owned(),
            registers: words.next()?.to_owned(),
        })
    }
}

/// A cache of both kinds. What the worker's predecessor has left in its cold store is still there.
async fn cache(orders: &Orders, registers: &Arc<Registers>) -> Tiered {
    let file = format!("cold-{}.db", orders.process);
    let connect = SqliteConnectOptions::new()
        .filename(Path::new(&orders.registers).with_file_name(file))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // It has to survive this process, and not the machine.
        .synchronous(SqliteSynchronous::Off);
    let pool = SqlitePoolOptions::new().max_connections(2);
    let pool = pool.connect_with(connect).await.expect("a database");
    let cold = SqliteCold::new(pool).await.expect("a cold store");
    let journaled = Journaled::new(&orders.url, registers.keys(), orders.flaw);
    Tiered::over(journaled, Arc::clone(registers), Arc::new(cold))
}

/// Does what a worker does, until its input ends.
pub async fn work(orders: Orders) {
    let registers = Registers::open(Path::new(&orders.registers)).expect("the registers");
    let registers = Arc::new(registers);
    let cache = Arc::new(cache(&orders, &registers).await);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    // Ends with its input, so that nobody is left behind.
    std::thread::spawn(move || {
        let _ = std::io::stdin().lines().next();
        stopping.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(10));
        std::process::exit(1);
    });
    while !cache.is_verified() && !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("ready");
    let judge = Arc::new(Judge::new(Arc::clone(&registers), BOUND));
    let (done, ended) = channel::<()>();
    let teller = {
        let (judge, cache) = (Arc::clone(&judge), Arc::clone(&cache));
        // A thread, because the runtime is as busy as it can be.
        std::thread::spawn(move || {
            let mut told = 0;
            loop {
                let last = ended.recv_timeout(TELLS_EVERY) != Err(RecvTimeoutError::Timeout);
                take_over(&judge, &cache);
                tell(&judge, &mut told);
                if last {
                    return;
                }
            }
        })
    };
    let database = Database {
        registers,
        takes: Duration::from_millis(5),
    };
    let plan = Plan {
        process: orders.process,
        processes: orders.processes,
        readers: 48,
        writers: 6,
        rest: Duration::from_millis(30),
        kinds: Kinds::All,
        seed: orders.seed,
    };
    drive(&cache, &judge, &database, &plan, &stop).await;
    drop(done);
    teller.join().expect("the thread that tells");
    cache.end().await;
    println!("end");
}

/// What the typed cache says of itself.
fn take_over(judge: &Judge, cache: &Tiered) {
    let stats = cache.stats();
    for (what, so_far) in [
        (Count::Warm, stats.hits_warm),
        (Count::Cold, stats.hits_cold),
        (Count::Collapsed, stats.collapsed),
        (Count::Stale, stats.served_stale),
        (Count::Busy, cache.busy()),
        (Count::Unreadable, stats.unreadable),
    ] {
        judge.note(what, so_far);
    }
}

fn tell(judge: &Judge, told: &mut usize) {
    for violation in judge.violations().iter().skip(*told) {
        println!("violation {}", violation.words());
        *told += 1;
    }
    println!("tally {}", judge.tally().words());
    let _ = std::io::stdout().flush();
}

/// A worker, as whoever started it sees it. Dropping it kills it.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    reader: Option<JoinHandle<()>>,
    /// Silent until the reader is through.
    read: Receiver<()>,
    said: Arc<Mutex<Said>>,
}

/// What a worker has said.
#[derive(Clone, Debug, Default)]
pub struct Said {
    pub ready: bool,
    pub ended: bool,
    pub tally: Tally,
    pub violations: Vec<Violation>,
}

impl Worker {
    /// Starts this very program once more, with these arguments.
    pub fn spawn(arguments: &[&str], orders: &Orders) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(arguments)
            .env(ORDERS, orders.words())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker");
        let output = child.stdout.take().expect("its output");
        let said = Arc::<Mutex<Said>>::default();
        let hears = Arc::clone(&said);
        let (reading, read) = channel();
        let reader = std::thread::spawn(move || {
            let _reading: Sender<()> = reading;
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                hear(&mut lock(&hears), &line);
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            reader: Some(reader),
            read,
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn said(&self) -> Said {
        lock(&self.said).clone()
    }

    /// It is told to end, and everything that it has said is returned.
    pub fn end(mut self) -> Said {
        drop(self.input.take());
        self.finish()
    }

    /// SIGKILL. Everything that it has said is returned.
    pub fn kill(mut self) -> Said {
        let _ = self.child.kill();
        self.finish()
    }

    fn finish(&mut self) -> Said {
        let closed = Err(RecvTimeoutError::Disconnected);
        let pid = self.pid();
        // A worker that does not end is killed when this is dropped.
        assert_eq!(
            self.read.recv_timeout(ENDS_WITHIN),
            closed,
            "worker {pid} does not end"
        );
        if let Some(reader) = self.reader.take() {
            reader.join().expect("its reader");
        }
        std::mem::take(&mut *lock(&self.said))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(said: &mut Said, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        // Behind what a test harness says on the same line.
        [.., "ready"] => said.ready = true,
        ["end"] => said.ended = true,
        ["tally", counts @ ..] => said.tally = Tally::read(counts).unwrap_or(said.tally),
        ["violation", numbers @ ..] => said.violations.extend(Violation::read(numbers)),
        _ => {}
    }
}

fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}
