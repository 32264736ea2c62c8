//! What a cache is to the harness, whoever made it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::chance::Chance;
use super::registers::Registers;

/// A cache before the database.
pub trait Cached: Send + Sync + 'static {
    /// Reads through: what is stored, and else what the database says. `None` if it could not be told.
    fn read(
        &self,
        key: u32,
        reading: Reading,
        database: &Database,
    ) -> impl Future<Output = Option<Served>> + Send;

    /// Invalidates all of these at once.
    fn invalidate(&self, targets: &[Target]) -> impl Future<Output = Outcome> + Send;
}

/// Where a value may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// From the process' memory, and else from further away.
    Near,
    /// Not from the process' memory.
    Strict,
}

/// What was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    pub version: u32,
    pub from: Tier,
}

/// Where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The process' memory.
    Hot,
    /// Redis, at this very moment.
    Strict,
    /// Any of the tiers of the typed cache, or a computation that another reader began.
    Typed,
    /// The database, for this very reader: nothing was stored, or nothing that holds.
    Database,
}

/// What is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Key(u32),
    Tag(u32),
    /// All keys whose names begin as those of this group.
    Group(u32),
}

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Acknowledged,
    Pending,
}

/// How many tags there are of each of the two kinds that a key has.
pub const TAGS: u32 = 16;
/// How many keys share a name's beginning.
pub const IN_A_GROUP: u32 = 16;

impl Target {
    pub fn covers(self, key: u32) -> bool {
        match self {
            Self::Key(it) => it == key,
            Self::Tag(tag) => tags_of(key).contains(&tag),
            Self::Group(group) => group_of(key) == group,
        }
    }
}

/// `g3:k52`
pub fn name_of(key: u32) -> String {
    format!("g{}:k{key}", group_of(key))
}

pub fn group_of(key: u32) -> u32 {
    key / IN_A_GROUP
}

pub fn tag_name(tag: u32) -> String {
    format!("t{tag}")
}

/// Neither divides keys as processes or groups do.
pub fn tags_of(key: u32) -> [u32; 2] {
    [key / 7 % TAGS, TAGS + key / 11 % TAGS]
}

/// The database, which takes its time.
#[derive(Clone, Debug)]
pub struct Database {
    pub registers: Arc<Registers>,
    /// The longest that reading takes.
    pub takes: Duration,
}

impl Database {
    /// Reads a version, with a delay before or behind: only what lies between is a computation's own.
    pub async fn read(&self, key: u32, chance: &mut Chance) -> Option<u32> {
        let takes = Duration::from_micros(chance.below(self.takes.as_micros() as u64 + 1));
        if chance.one_in(2) {
            tokio::time::sleep(takes).await;
            return self.registers.database(key).ok();
        }
        let version = self.registers.database(key).ok();
        tokio::time::sleep(takes).await;
        version
    }

    /// The same by a chance of its own.
    pub async fn look(&self, key: u32) -> Option<u32> {
        use std::hash::{BuildHasher, RandomState};
        let mut chance = Chance::new(RandomState::new().hash_one(key));
        self.read(key, &mut chance).await
    }
}
