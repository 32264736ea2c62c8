//! Judges what was served by what had been acknowledged before it was asked for.

use std::fmt;
use std::io::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::cached::{Outcome, Served, Tier};
use super::registers::{Acknowledged, Registers};

/// Counts, and keeps the first violations.
#[derive(Debug)]
pub struct Judge {
    registers: Arc<Registers>,
    /// For how long after an acknowledgement memory may still serve what is older, in ms.
    bound: u32,
    counts: [AtomicU64; Count::ALL.len()],
    first: Mutex<Vec<Violation>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Reads that were answered from memory.
    Hot,
    /// Reads that were answered from Redis.
    Strict,
    /// Reads that the typed cache answered, without computing for them.
    Typed,
    /// Reads that were answered by the database.
    Miss,
    /// Reads that nobody could answer.
    Unanswered,
    /// Invalidations that were acknowledged.
    Acknowledged,
    /// Invalidations that were not, or not yet.
    Pending,
    /// What memory served although it was acknowledged as gone, within the bound.
    Lagging,
    /// The same beyond the bound.
    HotViolation,
    /// What came from Redis although it was acknowledged as gone.
    StrictViolation,
    /// What the typed cache served although it was acknowledged as gone.
    TypedViolation,
    /// Of all of them, those that came long after the acknowledgement: not late, but stuck.
    Stuck,
    /// What the typed cache says of itself: found in Redis.
    Warm,
    /// Found in the cold store.
    Cold,
    /// Waited for somebody else's computation.
    Collapsed,
    /// Served past its life.
    Stale,
    /// Refused, because others take too long.
    Busy,
    /// Bytes that could not be read.
    Unreadable,
}

impl Count {
    pub const ALL: [Self; 18] = [
        Self::Hot,
        Self::Strict,
        Self::Typed,
        Self::Miss,
        Self::Unanswered,
        Self::Acknowledged,
        Self::Pending,
        Self::Lagging,
        Self::HotViolation,
        Self::StrictViolation,
        Self::TypedViolation,
        Self::Stuck,
        Self::Warm,
        Self::Cold,
        Self::Collapsed,
        Self::Stale,
        Self::Busy,
        Self::Unreadable,
    ];
}

/// A copy of all counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub [u64; Count::ALL.len()]);

/// Something was served that was never to be served again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    pub from: Tier,
    pub key: u32,
    pub served: u32,
    pub acknowledged: u32,
    /// How long before it was served the youngest acknowledgement lay, in ms: so long at least.
    pub late: u32,
    /// When, in ms since the registers were made.
    pub at: u32,
}

/// A violation so long after the acknowledgement is not a message on its way, in ms.
const LONG: u32 = 100;
/// As their numbers go.
const TIERS: [Tier; 4] = [Tier::Hot, Tier::Strict, Tier::Typed, Tier::Database];
/// So many violations are kept.
const FIRST: usize = 10;

impl Judge {
    pub fn new(registers: Arc<Registers>, bound: u32) -> Self {
        Self {
            registers,
            bound,
            counts: [const { AtomicU64::new(0) }; Count::ALL.len()],
            first: Mutex::default(),
        }
    }

    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Call it before a read begins.
    pub fn begin(&self, key: u32) -> Result<Acknowledged> {
        self.registers.acknowledged(key)
    }

    /// Call it with what the read was answered with.
    pub fn end(&self, key: u32, begun: Acknowledged, served: Option<Served>) {
        let Some(served) = served else {
            return self.count(Count::Unanswered);
        };
        self.count(match served.from {
            Tier::Hot => Count::Hot,
            Tier::Strict => Count::Strict,
            Tier::Typed => Count::Typed,
            Tier::Database => Count::Miss,
        });
        if served.version >= begun.version {
            return;
        }
        let at = self.registers.now();
        let late = at.saturating_sub(begun.at);
        if served.from == Tier::Hot && late < self.bound {
            return self.count(Count::Lagging);
        }
        self.count(match served.from {
            Tier::Hot => Count::HotViolation,
            Tier::Typed => Count::TypedViolation,
            Tier::Strict | Tier::Database => Count::StrictViolation,
        });
        if late > LONG {
            self.count(Count::Stuck);
        }
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < FIRST {
            first.push(Violation {
                from: served.from,
                key,
                served: served.version,
                acknowledged: begun.version,
                late,
                at,
            });
        }
    }

    pub fn invalidated(&self, outcome: Outcome) {
        self.count(match outcome {
            Outcome::Acknowledged => Count::Acknowledged,
            Outcome::Pending => Count::Pending,
        });
    }

    pub fn tally(&self) -> Tally {
        Tally(std::array::from_fn(|at| {
            self.counts[at].load(Ordering::Relaxed)
        }))
    }

    /// The first violations.
    pub fn violations(&self) -> Vec<Violation> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.clone()
    }

    /// Takes over a count that is kept elsewhere.
    pub fn note(&self, what: Count, so_far: u64) {
        self.counts[what as usize].store(so_far, Ordering::Relaxed);
    }

    fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally {
    pub fn of(&self, what: Count) -> u64 {
        self.0[what as usize]
    }

    /// Reads that were answered, and invalidations.
    pub fn operations(&self) -> u64 {
        let all = [Count::Hot, Count::Strict, Count::Typed, Count::Miss];
        let all = all.iter().chain(&[Count::Acknowledged, Count::Pending]);
        all.map(|what| self.of(*what)).sum()
    }

    pub fn hits(&self) -> u64 {
        self.of(Count::Hot) + self.of(Count::Strict) + self.of(Count::Typed)
    }

    pub fn violations(&self) -> u64 {
        let all = [
            Count::HotViolation,
            Count::StrictViolation,
            Count::TypedViolation,
        ];
        all.map(|what| self.of(what)).iter().sum()
    }

    pub fn plus(mut self, other: &Self) -> Self {
        for (mine, others) in self.0.iter_mut().zip(&other.0) {
            *mine += others;
        }
        self
    }

    /// The counts as words, which [`read`](Self::read) reads.
    pub fn words(&self) -> String {
        self.0.map(|count| count.to_string()).join(" ")
    }

    pub fn read(words: &[&str]) -> Option<Self> {
        let counts: Option<Vec<u64>> = words.iter().map(|word| word.parse().ok()).collect();
        Some(Self(counts?.try_into().ok()?))
    }
}

impl Violation {
    /// The violation as words, which [`read`](Self::read) reads.
    pub fn words(&self) -> String {
        let all = [self.from as u32, self.key, self.served, self.acknowledged];
        let all = all.into_iter().chain([self.late, self.at]);
        all.map(|one| one.to_string()).collect::<Vec<_>>().join(" ")
    }

    pub fn read(words: &[&str]) -> Option<Self> {
        let numbers: Option<Vec<u32>> = words.iter().map(|word| word.parse().ok()).collect();
        let [tier, key, served, acknowledged, late, at] = numbers?.try_into().ok()?;
        Some(Self {
            from: *TIERS.get(tier as usize)?,
            key,
            served,
            acknowledged,
            late,
            at,
        })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tier = match self.from {
            Tier::Hot => "hot",
            Tier::Strict => "strict",
            Tier::Typed => "typed",
            Tier::Database => "database",
        };
        let (key, served, acknowledged) = (self.key, self.served, self.acknowledged);
        let (late, at) = (self.late, f64::from(self.at) / 1_000.0);
        write!(
            f,
            "{tier}: key {key} served as version {served} at {at:.3} s, {late} ms after version \
             {acknowledged} was acknowledged"
        )
    }
}
