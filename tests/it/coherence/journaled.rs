//! The cache that is put to the torture: a map and Redis, both judged by the journal.
//!
//! It does what the journal's documentation asks for
//! and nothing more: the position is read before a computation, stamps are stored with values, and whatever
//! was stored is judged when it is read. It never removes anything, and it stores however late it is, so
//! that nothing but the journal stands between a reader and what is old.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{
    Acknowledge, Checked, Journal, JournalConfig, JournalParts, JournalStatus, Marker, Stamp,
    Subject, Verdict,
};
use tower_keep::pattern::Pattern;
use tower_keep::store::{Batch, Command, RedisConfig, RedisPool, StoreParts};
use tower_keep::task::Tasks;
use tower_keep::tiers::Tiers;

use super::cached::{
    Cached, Database, Outcome, Reading, Served, TAGS, Target, Tier, group_of, name_of, tag_name,
    tags_of,
};

/// For how long after an acknowledgement memory may serve what is older, in ms: not at all, because an
/// invalidation is acknowledged when every instance has carried it out or has lost its lease.
pub const BOUND: u32 = 0;

pub struct Journaled {
    pub flaw: Flaw,
    pub journal: Journal,
    pub pool: RedisPool,
    pub clock: Clock,
    keys: Vec<Known>,
    tags: Vec<Marker>,
    pub tasks: Tasks,
}

/// What is done wrong on purpose, to see whether it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// The position is read after the computation instead of before it, as nearly every cache does.
    LateStamp,
    /// An invalidation is taken for acknowledged as soon as it is recorded.
    EarlyWord,
}

impl Flaw {
    pub const ALL: [Self; 3] = [Self::None, Self::LateStamp, Self::EarlyWord];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LateStamp => "late-stamp",
            Self::EarlyWord => "early-word",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flaw| flaw.name() == name)
    }
}

/// What is known of a key.
struct Known {
    subject: Subject,
    /// Its name in Redis.
    name: String,
    hot: Mutex<Option<Arc<Entry>>>,
}

/// What memory holds.
struct Entry {
    version: u32,
    born: Stamp,
    checked: Checked,
}

/// Short leases and small bounds: what happens in an hour elsewhere has to happen in a minute here.
fn config(flaw: Flaw) -> JournalConfig {
    JournalConfig {
        markers_max: 1_024,
        records_max: 1_024,
        lease: Duration::from_millis(500),
        heartbeat: Duration::from_millis(125),
        // Long enough to wait for leases: it is acknowledgements that are put to the test.
        acknowledge_within: Duration::from_millis(2_500),
        acknowledge: match flaw {
            Flaw::EarlyWord => Acknowledge::Recorded,
            Flaw::None | Flaw::LateStamp => Acknowledge::Everywhere,
        },
        ..JournalConfig::default()
    }
}

impl Journaled {
    /// An instance of a fleet that meets in the Redis at `url`.
    pub fn new(url: &str, keys: u32, flaw: Flaw) -> Self {
        let tasks = Tasks::new().expect("a runtime");
        let redis = RedisConfig {
            url: Some(url.to_owned()),
            ..RedisConfig::default()
        };
        let parts = StoreParts {
            scripts: [Journal::scripts(), Tiers::scripts()].concat(),
            ..StoreParts::new(tasks.spawner())
        };
        let pool = RedisPool::new(&redis, &parts).expect("a pool");
        // Each process has a clock of its own, which begins when the process does: no two agree, which is as good as one that is set.
        let clock = Clock::system();
        let parts = JournalParts {
            clock: clock.clone(),
            events: Events::none(),
            redis: pool.clone(),
            spawner: tasks.spawner(),
        };
        let known = |key| Known {
            subject: Subject::of(name_of(key), &tags_of(key).map(|tag| tag_name(tag).into()))
                .in_namespace(&format!("g{}", group_of(key))),
            name: pool.key(format_args!("v:{key}")),
            hot: Mutex::default(),
        };
        Self {
            flaw,
            journal: Journal::shared(&config(flaw), parts).expect("a journal"),
            keys: (0..keys).map(known).collect(),
            tags: (0..2 * TAGS)
                .map(|tag| Marker::tag(&tag_name(tag)))
                .collect(),
            pool,
            clock,
            tasks,
        }
    }

    /// Whether it follows the journal.
    pub fn is_verified(&self) -> bool {
        self.journal.status() == JournalStatus::Verified
    }

    /// Ends as a service does that is told to.
    pub async fn end(&self) {
        self.tasks.shutdown(Duration::from_secs(2)).await;
    }

    fn hot(&self, key: u32) -> MutexGuard<'_, Option<Arc<Entry>>> {
        let hot = &self.keys[key as usize].hot;
        hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, key: u32, version: u32, born: Stamp) {
        let checked = Checked::at(born);
        *self.hot(key) = Some(Arc::new(Entry {
            version,
            born,
            checked,
        }));
    }

    fn in_memory(&self, key: u32) -> Option<u32> {
        let entry = self.hot(key).clone()?;
        let (subject, now) = (&self.keys[key as usize].subject, self.clock.now());
        let verdict = self.journal.judge(entry.born, &entry.checked, subject, now);
        (verdict == Verdict::Fresh).then_some(entry.version)
    }

    async fn in_redis(&self, key: u32) -> Option<u32> {
        let known = &self.keys[key as usize];
        let read = Batch::new().command(Command::new("GET").key(&known.name));
        let (mut replies, barrier) = self.journal.read(read, None).await.ok()?;
        let stored: Option<Vec<u8>> = replies.read().ok()?;
        let (stamp, version) = decode(&stored?)?;
        if barrier.judge(stamp, &known.subject) != Verdict::Fresh {
            return None;
        }
        self.remember(key, version, stamp);
        Some(version)
    }

    async fn fill(&self, key: u32, version: u32, born: Stamp) {
        let set = Command::new("SET").key(&self.keys[key as usize].name);
        let set = set.arg(encode(born, version)).arg("PX").arg(60_000_u64);
        // Redis may be away or full; memory is there all the same.
        let _ = self.pool.run::<()>(&set).await;
        self.remember(key, version, born);
    }

    fn marker(&self, target: Target) -> Marker {
        match target {
            Target::Key(key) => Marker::key(&name_of(key)),
            Target::Tag(tag) => self.tags[tag as usize].clone(),
            Target::Group(group) => {
                let pattern = Pattern::parse(&format!("g{group}:*"));
                Marker::pattern(pattern.expect("a pattern"))
            }
        }
    }
}

impl Cached for Journaled {
    async fn read(&self, key: u32, reading: Reading, database: &Database) -> Option<Served> {
        if reading == Reading::Near
            && let Some(version) = self.in_memory(key)
        {
            let from = Tier::Hot;
            return Some(Served { version, from });
        }
        if let Some(version) = self.in_redis(key).await {
            let from = Tier::Strict;
            return Some(Served { version, from });
        }
        let mut born = self.journal.position();
        let version = database.look(key).await?;
        if self.flaw == Flaw::LateStamp {
            born = self.journal.position();
        }
        self.fill(key, version, born).await;
        let from = Tier::Database;
        Some(Served { version, from })
    }

    async fn invalidate(&self, targets: &[Target]) -> Outcome {
        let markers: Vec<Marker> = targets.iter().map(|target| self.marker(*target)).collect();
        match self.journal.append(markers).await {
            Ok(_) => Outcome::Acknowledged,
            Err(_) => Outcome::Pending,
        }
    }
}

/// The stamp, then the version.
fn encode(born: Stamp, version: u32) -> Vec<u8> {
    let mut bytes = born.to_bytes().to_vec();
    bytes.extend(version.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Stamp, u32)> {
    let (stamp, version) = bytes.split_first_chunk()?;
    let version = u32::from_le_bytes(version.try_into().ok()?);
    Some((Stamp::from_bytes(*stamp), version))
}
