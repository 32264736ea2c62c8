//! A key that nobody has, and everybody wants at once: how often is it computed?
//!
//! ```text
//! cargo run --release --example stampede
//! ```
//!
//! Four processes of this program are four instances of a service; in each of them 500 callers ask for one key
//! at one moment. The first round counts computations: there has to be one. In the second round whoever computes
//! gets a SIGKILL in the middle of it: the others take over once its lease has ended, all at once and one
//! of them, and all of their callers are answered. The exit code is 1 if anything else happens.
//!
//! It starts a `redis-server` of its own, or takes the one at `REDIS_URL`.
#![allow(
    unreachable_pub,
    dead_code,
    reason = "it uses a part of what tests and examples share"
)]

#[path = "processes/processes.rs"]
mod processes;
#[path = "../tests/it/redis/mod.rs"]
mod redis;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;
use tower_keep::clock::{Clock, Moment};
use tower_keep::tiers::EntryOptions;
use tower_keep::{Keep, Profile};

use processes::Processes;

type Failure = Box<dyn Error>;

const INSTANCES: usize = 4;
const CALLERS: usize = 500;
/// How long computing takes.
const TAKES: Duration = Duration::from_millis(1_000);
/// Who computes is killed so long after it began.
const KILLED_AFTER: Duration = Duration::from_millis(500);
/// How long a lease lasts: a little above this is the longest that anybody has to wait for the dead.
const LEASE: Duration = Duration::from_secs(2);
/// Between the end of a lease and the next computation, on a busy machine.
const MARGIN: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Failure> {
    if let Some(url) = processes::orders() {
        serve(&url).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let (url, _server) = match std::env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = redis::TestRedis::start();
            (server.url(), Some(server))
        }
    };
    let mut instances = Processes::new();
    for _ in 0..INSTANCES {
        instances.start(&url)?;
    }
    for _ in 0..INSTANCES {
        instances.hear()?;
    }
    let clock = Clock::system();
    let calm = round(&mut instances, &clock, false)?;
    println!(
        "one cold key, {INSTANCES} instances with {CALLERS} callers each, computing takes {TAKES:?}"
    );
    println!("  {}", calm.text());
    let deadly = round(&mut instances, &clock, true)?;
    let takeover = deadly.takeover();
    println!(
        "the same, and who computes is killed after {KILLED_AFTER:?}; a lease lasts {LEASE:?}"
    );
    println!("  {}", deadly.text());
    println!("  another one has taken over {takeover:.1?} after the kill");
    let good = calm.is_right(1, INSTANCES)
        && deadly.is_right(2, INSTANCES - 1)
        && takeover <= LEASE + MARGIN;
    if !good {
        println!("that is not as it should be");
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What came of a round.
#[derive(Default)]
struct Round {
    /// When computations began.
    begun: Vec<Moment>,
    killed: Option<Moment>,
    answered: usize,
    failed: usize,
    /// Different values that callers were answered with.
    values: Vec<String>,
    /// Of each instance: the median, the 99th percentile and the longest wait, in ms.
    waits: Vec<[u64; 3]>,
}

impl Round {
    fn is_right(&self, computed: usize, instances: usize) -> bool {
        let answered = instances * CALLERS;
        self.begun.len() == computed
            && (self.answered, self.failed, self.values.len()) == (answered, 0, 1)
    }

    fn takeover(&self) -> Duration {
        match (self.killed, self.begun.get(1)) {
            (Some(killed), Some(next)) => next.since(killed),
            _ => Duration::MAX,
        }
    }

    fn text(&self) -> String {
        let worst = |at: usize| self.waits.iter().map(|waits| waits[at]).max().unwrap_or(0);
        format!(
            "computed {} times; {} callers answered, {} failed, {} different values; they waited {} ms (median), \
             {} ms (p99), {} ms (longest)",
            self.begun.len(),
            self.answered,
            self.failed,
            self.values.len(),
            worst(0),
            worst(1),
            worst(2),
        )
    }
}

/// Has all of them ask at once, and kills who computes if it is a `deadly` one.
fn round(instances: &mut Processes, clock: &Clock, deadly: bool) -> Result<Round, Failure> {
    let key = format!("{}-{deadly}", std::process::id());
    for number in 0..INSTANCES {
        instances.tell(number, &key)?;
    }
    let (mut round, mut done) = (Round::default(), 0);
    while done < INSTANCES {
        let (who, line) = instances.hear()?;
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["computing"] => {
                round.begun.push(clock.now());
                if deadly && round.killed.is_none() {
                    std::thread::sleep(KILLED_AFTER);
                    instances.kill(who)?;
                    round.killed = Some(clock.now());
                    done += 1;
                }
            }
            ["done", answered, failed, median, p99, longest, values @ ..] => {
                round.answered += answered.parse::<usize>()?;
                round.failed += failed.parse::<usize>()?;
                round
                    .waits
                    .push([median.parse()?, p99.parse()?, longest.parse()?]);
                round.values.extend(values.iter().map(|&it| it.to_owned()));
                done += 1;
            }
            _ => return Err(format!("instance {who} says: {line}").into()),
        }
    }
    round.values.sort_unstable();
    round.values.dedup();
    Ok(round)
}

/// One instance: has its callers ask for each key that it is told of.
async fn serve(url: &str) -> Result<(), Failure> {
    let mut told = processes::told();
    let builder = Keep::builder(Profile::development()).tiers(|tiers| tiers.lease = LEASE);
    let keep = processes::instance(builder, url).await?;
    println!("ready");
    let cache = keep.cache::<String>("stampede");
    let clock = Clock::system();
    while let Some(key) = told.recv().await {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (cache, key, clock) = (cache.clone(), key.clone(), clock.clone());
            callers.spawn(async move {
                let began = clock.now();
                let value = cache.get_or_compute(key, &EntryOptions::new(), compute);
                (value.await, clock.now().since(began))
            });
        }
        let (mut values, mut waits, mut failed) = (Vec::new(), Vec::new(), 0);
        for (outcome, waited) in callers.join_all().await {
            waits.push(waited.as_millis());
            match outcome {
                Ok(value) => values.push((*value).clone()),
                Err(_) => failed += 1,
            }
        }
        waits.sort_unstable();
        let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
        let answered = values.len();
        values.sort_unstable();
        values.dedup();
        let values = values.join(" ");
        println!(
            "done {answered} {failed} {} {} {} {values}",
            at(50),
            at(99),
            at(100)
        );
    }
    Ok(())
}

async fn compute() -> Result<String, std::convert::Infallible> {
    println!("computing");
    tokio::time::sleep(TAKES).await;
    Ok(format!("by-{}", std::process::id()))
}
