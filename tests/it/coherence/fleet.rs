//! The whole: servers, workers, and what has become of them.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::chance::Chance;
use super::faults::Fault;
use super::journaled::Flaw;
use super::judge::{Count, Tally, Violation};
use super::registers::Registers;
use super::worker::{Orders, Said, Worker};
use crate::redis::{TestSentinel, until};

/// Processes that share a primary, its replica and the sentinels that watch them.
pub struct Fleet {
    pub servers: TestSentinel,
    pub workers: Vec<Worker>,
    /// What a worker's command line says besides its name.
    arguments: &'static [&'static str],
    registers: Registers,
    path: PathBuf,
    seed: u64,
    flaw: Flaw,
    /// What those said that are gone.
    past: Vec<Said>,
    /// When which fault began, in ms since the registers were made.
    faults: Vec<(u32, Fault)>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    pub seed: u64,
    pub lasted: Duration,
    pub tally: Tally,
    pub faults: Vec<(u32, Fault)>,
    pub violations: Vec<Violation>,
}

/// Keys that all of them use.
const KEYS: u32 = 1_024;

impl Fleet {
    /// So many workers, all at work.
    pub fn start(
        workers: u32,
        arguments: &'static [&'static str],
        (seed, flaw): (u64, Flaw),
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let servers = TestSentinel::start();
        // From here on nobody is promoted whom no fault has had promoted.
        servers.set_patience(PATIENT);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("keep-coherence-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("registers");
        Registers::create(&path, KEYS).expect("the registers");
        let mut fleet = Self {
            servers,
            workers: Vec::new(),
            arguments,
            registers: Registers::open(&path).expect("the registers"),
            path,
            seed,
            flaw,
            past: Vec::new(),
            faults: Vec::new(),
        };
        for process in 0..workers {
            let worker = fleet.spawn(process, workers);
            fleet.workers.push(worker);
        }
        fleet.await_ready();
        fleet
    }

    fn spawn(&self, process: u32, processes: u32) -> Worker {
        let orders = Orders {
            process,
            processes,
            seed: self.seed ^ (u64::from(process) << 56) ^ ((self.past.len() as u64) << 24),
            flaw: self.flaw,
            url: self.servers.url(),
            registers: self.path.display().to_string(),
        };
        Worker::spawn(self.arguments, &orders)
    }

    fn await_ready(&self) {
        until("all workers are ready", || {
            let mut each = self.workers.iter();
            each.all(|worker| worker.said().ready).then_some(())
        });
    }

    /// SIGKILL to a worker; another takes its place.
    pub fn replace(&mut self, at: usize) {
        let all = self.workers.len() as u32;
        // Gone before there is another, so that a key has one writer at any time.
        self.past.push(self.workers.remove(at).kill());
        let worker = self.spawn(at as u32, all);
        self.workers.insert(at, worker);
        self.await_ready();
    }

    /// Lets faults happen for so long, by turns that the seed decides, `rest` between the beginnings of two.
    /// `progress` is told after each how far it is.
    pub fn torture(&mut self, lasts: Duration, rest: Duration, mut progress: impl FnMut(&Report)) {
        let began = Instant::now();
        let mut chance = Chance::new(self.seed);
        let mut deck = Vec::new();
        while began.elapsed() < lasts {
            let next = Instant::now() + rest;
            let fault = deck.pop().unwrap_or_else(|| {
                deck = Fault::shuffled(&mut chance);
                deck.pop().expect("there are faults")
            });
            self.inflict(fault, &mut chance);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            progress(&self.report(began.elapsed()));
        }
    }

    /// Lets one fault happen, and notes it.
    pub fn inflict(&mut self, fault: Fault, chance: &mut Chance) {
        self.faults.push((self.registers.now(), fault));
        let before = self.servers.primary().port();
        fault.happen(self, chance);
        let promoted = self.servers.primary().port() != before;
        assert_eq!(
            promoted,
            fault.promotes(),
            "whether {fault:?} has the replica promoted: otherwise two servers might have taken writes"
        );
    }

    pub fn report(&self, lasted: Duration) -> Report {
        let living = self.workers.iter().map(Worker::said);
        report(self, &living.collect::<Vec<_>>(), lasted)
    }

    /// All are told to end, and what came of it is returned.
    pub fn end(mut self, lasted: Duration) -> Report {
        let workers = std::mem::take(&mut self.workers);
        // All at once: none is to wait for the leases of one that has ended.
        let ending = workers.into_iter();
        let ending = ending.map(|worker| std::thread::spawn(|| worker.end()));
        let ending: Vec<_> = ending.collect();
        let said = ending.into_iter().map(|one| one.join().expect("a worker"));
        let said: Vec<Said> = said.collect();
        assert!(said.iter().all(|said| said.ended), "a worker broke down");
        report(&self, &said, lasted)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The workers' cold stores lie beside it.
        let _ = self.path.parent().map(std::fs::remove_dir_all);
    }
}

fn report(fleet: &Fleet, living: &[Said], lasted: Duration) -> Report {
    let all = fleet.past.iter().chain(living);
    let mut report = Report {
        seed: fleet.seed,
        lasted,
        tally: Tally::default(),
        faults: fleet.faults.clone(),
        violations: Vec::new(),
    };
    for said in all {
        report.tally = report.tally.plus(&said.tally);
        report.violations.extend(&said.violations);
    }
    report.violations.sort_unstable_by_key(|one| one.at);
    report
}

/// For so long a server may be silent before the sentinels look for another; far longer than any fault.
const PATIENT: Duration = Duration::from_secs(60);
/// The same where they are to.
const IMPATIENT: Duration = Duration::from_millis(300);

impl Fleet {
    /// The sentinels promote the replica in place of `old`, which is dead or stopped. Then it ends, if it
    /// has not, and comes back as a replica.
    ///
    /// It never takes another write: a primary on the wrong side of a partition is outside of what the
    /// journal promises. While it is stopped it reads nothing, and it is killed before it could go on; and it
    /// is started with the order to follow the new one, not told afterwards.
    pub fn promote(&self, old: u16) {
        let both = [self.servers.primary(), self.servers.replica()];
        let [old, new] = match both[0].port() == old {
            true => both,
            false => [both[1], both[0]],
        };
        self.servers.set_patience(IMPATIENT);
        self.servers.await_other_primary(old);
        old.kill();
        self.servers.set_patience(PATIENT);
        old.restart_behind(new);
    }
}

impl Report {
    /// One line: how far it is.
    pub fn line(&self) -> String {
        let (tally, seconds) = (&self.tally, self.lasted.as_secs_f64());
        format!(
            "{seconds:>6.0} s {:>10} operations ({:.0}/s)  hot {}  strict {}  typed {}  missed {}  \
             unanswered {}  acknowledged {}  pending {}  faults {}  violations {}",
            tally.operations(),
            tally.operations() as f64 / seconds.max(0.001),
            tally.of(Count::Hot),
            tally.of(Count::Strict),
            tally.of(Count::Typed),
            tally.of(Count::Miss),
            tally.of(Count::Unanswered),
            tally.of(Count::Acknowledged),
            tally.of(Count::Pending),
            self.faults.len(),
            tally.violations(),
        )
    }

    /// All of it, for people.
    pub fn text(&self) -> String {
        let tally = &self.tally;
        let mut text = format!("seed {}\n{}\n", self.seed, self.line());
        for fault in Fault::ALL {
            let times = self.times(fault);
            let _ = writeln!(text, "  {:<32}{times:>5} times", fault.name());
        }
        let _ = writeln!(
            text,
            "typed cache: {} from Redis, {} from the cold store, {} collapsed, {} stale, {} busy, {} unreadable",
            tally.of(Count::Warm),
            tally.of(Count::Cold),
            tally.of(Count::Collapsed),
            tally.of(Count::Stale),
            tally.of(Count::Busy),
            tally.of(Count::Unreadable),
        );
        let _ = writeln!(
            text,
            "violations: {} strict, {} hot, {} typed ({} more within the bound, {} long after)",
            tally.of(Count::StrictViolation),
            tally.of(Count::HotViolation),
            tally.of(Count::TypedViolation),
            tally.of(Count::Lagging),
            tally.of(Count::Stuck),
        );
        for violation in self.violations.iter().take(10) {
            let before = self.faults.iter().rev();
            let last = before.into_iter().find(|(at, _)| *at <= violation.at);
            let last = last.map_or_else(String::new, |(at, fault)| {
                format!("; {} ms after `{}` began", violation.at - at, fault.name())
            });
            let _ = writeln!(text, "  {violation}{last}");
        }
        text
    }

    /// How often a fault happened.
    pub fn times(&self, fault: Fault) -> usize {
        self.faults.iter().filter(|(_, one)| *one == fault).count()
    }
}
