//! Readers and writers, which do to a cache what services do, as fast as they can.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::cached::{Cached, Database, Outcome, Reading, Target, group_of, tags_of};
use super::chance::Chance;
use super::judge::Judge;

/// Who does what.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which of the processes this is. Key `k` is written by process `k % processes`.
    pub process: u32,
    pub processes: u32,
    /// Tasks that read.
    pub readers: u32,
    /// Tasks that write, each some of this process' keys.
    pub writers: u32,
    /// How long a writer rests between two changes: up to twice as long.
    pub rest: Duration,
    /// What is invalidated besides single keys.
    pub kinds: Kinds,
    pub seed: u64,
}

/// What a cache can be asked to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    Keys,
    /// Keys, tags, patterns, and several of them in one.
    All,
}

/// How long a writer rests when its invalidation was not acknowledged.
const AFTER_PENDING: Duration = Duration::from_millis(200);

/// Reads and writes until `stop` says so.
pub async fn drive<C: Cached>(
    cache: &Arc<C>,
    judge: &Arc<Judge>,
    database: &Database,
    plan: &Plan,
    stop: &Arc<AtomicBool>,
) {
    let mut tasks = JoinSet::new();
    for reader in 0..plan.readers {
        let (cache, judge) = (Arc::clone(cache), Arc::clone(judge));
        let (database, stop) = (database.clone(), Arc::clone(stop));
        let chance = Chance::new(plan.seed ^ (u64::from(reader) << 32));
        tasks.spawn(async move { read(&*cache, &judge, &database, chance, &stop).await });
    }
    for writer in 0..plan.writers {
        let (cache, judge) = (Arc::clone(cache), Arc::clone(judge));
        let (plan, stop) = (plan.clone(), Arc::clone(stop));
        tasks.spawn(async move { write(&*cache, &judge, &plan, writer, &stop).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("a task that ends by itself");
    }
}

async fn read<C: Cached>(
    cache: &C,
    judge: &Judge,
    database: &Database,
    mut chance: Chance,
    stop: &AtomicBool,
) {
    let keys = u64::from(judge.registers().keys());
    while !stop.load(Ordering::Relaxed) {
        let key = chance.skewed(keys) as u32;
        let reading = if chance.one_in(2) {
            Reading::Strict
        } else {
            Reading::Near
        };
        let begun = judge.begin(key).expect("the registers");
        let served = cache.read(key, reading, database).await;
        judge.end(key, begun, served);
        if served.is_none() {
            // Nobody gains by asking again at once.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::yield_now().await;
    }
}

async fn write<C: Cached>(cache: &C, judge: &Judge, plan: &Plan, writer: u32, stop: &AtomicBool) {
    let mut chance = Chance::new(plan.seed ^ 0x5eed ^ (u64::from(writer) << 40));
    let registers = judge.registers();
    let is_own = |key: &u32| {
        key % plan.processes == plan.process && key / plan.processes % plan.writers == writer
    };
    let own: Vec<u32> = (0..registers.keys()).filter(is_own).collect();
    let mut key = own[0];
    while !stop.load(Ordering::Relaxed) {
        // Often the same again at once, when those who missed it are about to store what they read.
        if chance.one_in(2) {
            let rest = chance.below(2 * plan.rest.as_micros() as u64 + 1);
            tokio::time::sleep(Duration::from_micros(rest)).await;
            key = own[chance.skewed(own.len() as u64) as usize];
        }
        let targets = targets(key, plan.kinds, &mut chance);
        let covered = own
            .iter()
            .filter(|key| targets.iter().any(|target| target.covers(**key)));
        let mut versions = Vec::new();
        for &covered in covered {
            // Not all that are covered have changed, and what changed earlier may still be pending.
            let version = if covered == key || chance.one_in(3) {
                registers.change(covered)
            } else {
                registers.database(covered)
            };
            versions.push((covered, version.expect("the registers")));
        }
        let outcome = cache.invalidate(&targets).await;
        if outcome == Outcome::Acknowledged {
            for (key, version) in versions {
                registers.acknowledge(key, version).expect("the registers");
            }
        }
        judge.invalidated(outcome);
        if outcome == Outcome::Pending {
            // During an outage there would soon be more records that wait than a failover can lose, and the
            // numbers of those that were lost would be given to records that nobody was promised.
            tokio::time::sleep(AFTER_PENDING).await;
        }
    }
}

/// What to invalidate after a change of `key`: it is always covered.
fn targets(key: u32, kinds: Kinds, chance: &mut Chance) -> Vec<Target> {
    let tags = tags_of(key);
    match (kinds, chance.below(10)) {
        (Kinds::Keys, _) | (Kinds::All, 0..5) => vec![Target::Key(key)],
        (Kinds::All, 5 | 6) => vec![Target::Tag(tags[chance.below(2) as usize])],
        (Kinds::All, 7 | 8) => vec![Target::Group(group_of(key))],
        // A cascade: one thing leads to others, some of which have nothing to do with it.
        (Kinds::All, _) => vec![
            Target::Key(key),
            Target::Tag(tags[0]),
            Target::Group(group_of(key) + 1),
            Target::Key(key + 1),
        ],
    }
}
