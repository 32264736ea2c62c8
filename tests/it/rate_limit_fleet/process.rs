//! Instances in processes of their own, which can be killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tower_keep::rate_limit::{Decision, Mode, Quota};

use super::passed::{Passed, micros};
use super::{Instance, at_once, only};
use crate::store::patient;

/// The variable that says what a worker is to do: the server's URL, the mode, and the quota.
const ORDERS: &str = "TOWER_KEEP_FLEET_WORKER";

/// Tasks that ask at the same time in each process.
const TASKS: usize = 8;

/// For how long they all rest, and ask in between, in µs.
const REST: u64 = 300_000;

/// So many requests a second, so many at once.
#[derive(Clone, Copy, Debug)]
pub struct Hammered {
    pub mode: Mode,
    pub per_second: u32,
    pub burst: u32,
    /// Whether all rest together now and then, so that the bucket grows full and leases lapse.
    pub rests: bool,
}

/// A process that asks again and again whether a request may pass. Dropping it kills it.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    ready: Receiver<()>,
    /// Silent until the reader is through.
    read: Receiver<()>,
    reader: Option<JoinHandle<()>>,
    said: Arc<Mutex<Said>>,
}

/// What a worker has said.
#[derive(Default)]
pub struct Said {
    pub passed: Vec<Passed>,
    /// When it asked in vain, now and then.
    pub asked: Vec<u64>,
}

impl Hammered {
    /// The time in which one request grows back, in µs.
    pub fn interval(self) -> u64 {
        1_000_000 / u64::from(self.per_second)
    }
}

impl Worker {
    pub fn spawn(url: &str, hammered: Hammered) -> Self {
        let mode = match hammered.mode {
            Mode::Leased => "leased",
            _ => "exact",
        };
        let (per_second, burst) = (hammered.per_second, hammered.burst);
        let rests = hammered.rests;
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rate_limit_fleet::process::worker"])
            .args(["--ignored", "--nocapture"])
            .env(ORDERS, format!("{url} {mode} {per_second} {burst} {rests}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, ready) = channel();
        let said = Arc::<Mutex<Said>>::default();
        let (output, list) = (child.stdout.take().unwrap(), Arc::clone(&said));
        let (reading, read) = channel::<()>();
        let reader = std::thread::spawn(move || {
            let _reading = reading;
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    // Behind what the test harness says on the same line.
                    [.., "ready"] => drop(tell.send(())),
                    ["passed", asked, answered] => {
                        let (asked, answered) = (asked.parse(), answered.parse());
                        let (asked, answered) = (asked.unwrap(), answered.unwrap());
                        let passed = Passed { asked, answered };
                        list.lock().unwrap().passed.push(passed);
                    }
                    ["asked", asked] => list.lock().unwrap().asked.push(asked.parse().unwrap()),
                    _ => {}
                }
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            ready,
            reader: Some(reader),
            read,
            said,
        }
    }

    /// Waits until it counts together with the others.
    pub fn await_ready(&self) {
        self.ready
            .recv_timeout(Duration::from_secs(20))
            .expect("a worker that is ready");
    }

    /// It begins to ask.
    pub fn go(&mut self) {
        writeln!(self.input.as_mut().unwrap(), "go").unwrap();
    }

    /// How many have passed here.
    pub fn count(&self) -> usize {
        self.said.lock().unwrap().passed.len()
    }

    /// It is told to end, and what has passed there is told.
    pub fn end(mut self) -> Said {
        drop(self.input.take());
        self.finish()
    }

    /// SIGKILL. What has passed there is told.
    pub fn kill(mut self) -> Said {
        self.child.kill().unwrap();
        self.finish()
    }

    fn finish(&mut self) -> Said {
        // One that does not end is killed when this is dropped.
        let read = self.read.recv_timeout(Duration::from_secs(60));
        assert_eq!(read, Err(RecvTimeoutError::Disconnected), "it does not end");
        self.reader.take().unwrap().join().unwrap();
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "one process of the tests that start several"]
async fn worker() {
    let Ok(orders) = std::env::var(ORDERS) else {
        return;
    };
    let words: Vec<&str> = orders.split(' ').collect();
    let [url, mode, per_second, burst, rests] = words.as_slice() else {
        panic!("{orders}");
    };
    let mode = match *mode {
        "leased" => Mode::Leased,
        _ => Mode::Exact,
    };
    let quota = Quota::requests(per_second.parse().unwrap()).per(Duration::from_secs(1));
    let quota = quota.burst(burst.parse().unwrap());
    let mut rule = at_once("hot", 1);
    rule.quota = Some(quota);
    let config = only([rule.mode(mode)]);
    let instance = Arc::new(Instance::join(&patient(url), &config).await);
    let (go, gone) = tokio::sync::oneshot::channel();
    // Ends with its input, so that nobody is left behind.
    std::thread::spawn(move || {
        let mut lines = std::io::stdin().lines();
        if lines.next().is_some_and(|line| line.is_ok()) {
            let _ = go.send(());
        }
        let _ = lines.next();
        std::process::exit(0);
    });
    println!("ready");
    gone.await.unwrap();
    let rests = *rests == "true";
    let said = Arc::new(AtomicU64::new(0));
    let tasks = (0..TASKS).map(|_| {
        let (instance, said) = (Arc::clone(&instance), Arc::clone(&said));
        tokio::spawn(async move { hammer(&instance, rests, &said).await })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// How often a process says that it asks in vain, in µs.
const SAYS_EVERY: u64 = 10_000;

async fn hammer(instance: &Instance, rests: bool, said: &AtomicU64) {
    loop {
        let asked = micros();
        if rests && asked / REST % 2 == 1 {
            let rest = Duration::from_micros(REST - asked % REST);
            tokio::time::sleep(rest).await;
            continue;
        }
        match instance.ask("alice").await {
            Decision::Allow(_) => println!("passed {asked} {}", micros()),
            Decision::Deny(standing) => {
                if asked > said.load(Ordering::Relaxed) + SAYS_EVERY {
                    said.store(asked, Ordering::Relaxed);
                    println!("asked {asked}");
                }
                let soon = Duration::from_millis(5);
                tokio::time::sleep(standing.retry_after().min(soon)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}
