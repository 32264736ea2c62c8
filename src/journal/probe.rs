//! What a tier is asked for by whoever checks that instances agree, and what it says.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::journal::marker::Subject;
use crate::journal::record::Record;
use crate::journal::stamp::Stamp;

/// Where entries are stored, and how near that is to whoever reads: the hotter, the nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Temperature {
    /// In this process' memory.
    Hot,
    /// In Redis, where all instances share it.
    Warm,
    /// On a medium that outlives Redis.
    Cold,
}

impl Temperature {
    /// The same in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// A look through a tier, under way.
pub type Probing<'a> = Pin<Box<dyn Future<Output = Seen> + Send + 'a>>;

/// Something that stores entries under stamps, and that can be asked what it would serve.
///
/// # Contract
///
/// `probe` looks at entries as a reader would, without counting as a use and without changing what is
/// stored, and [notes](Seen::note) those that are [named](Wanted::names) and that would be served as fresh,
/// now. Its work is bounded whatever is stored; it yields at least every millisecond; and it may be dropped
/// at any await. What it cannot reach it leaves out: there is no error, because nothing seen proves nothing.
pub trait Tier: fmt::Debug + Send + Sync + 'static {
    /// Which one it is.
    fn temperature(&self) -> Temperature;

    /// Looks for entries that `wanted` names.
    fn probe<'a>(&'a self, wanted: &'a Wanted) -> Probing<'a>;
}

/// A record that others are asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) inc: u64,
    pub(crate) seq: u64,
    pub(crate) record: Arc<Record>,
}

/// The most records of one question: each has a bit.
pub(crate) const ASKED_MAX: usize = 64;

/// The records that a tier is asked about.
#[derive(Debug)]
pub struct Wanted {
    asked: Vec<(Asked, Option<Moment>)>,
    /// Which shard of how many the records are of.
    shard: (usize, usize),
}

impl Wanted {
    /// Records of one shard with when this instance heard of each, at the earliest.
    pub(crate) fn new(
        asked: impl IntoIterator<Item = (Asked, Option<Moment>)>,
        shard: (usize, usize),
    ) -> Self {
        Self {
            asked: asked.into_iter().take(ASKED_MAX).collect(),
            shard,
        }
    }

    /// Whether any of the records names this subject. Takes time by the number of what they name.
    #[must_use]
    pub fn names(&self, subject: &Subject) -> bool {
        self.is_of_shard(subject)
            && self
                .asked
                .iter()
                .any(|(asked, _)| asked.record.names(subject))
    }

    fn is_of_shard(&self, subject: &Subject) -> bool {
        let (shard, shards) = self.shard;
        let of = subject.tenant().map_or(0, |tenant| tenant.shard(shards));
        of == shard
    }

    /// The bits of the records that name it, and of those by which its stamp is too young.
    fn bits(&self, subject: &Subject, probed: &Probed) -> (u64, u64) {
        let (mut named_by, mut late) = (0, 0);
        for (at, (asked, heard)) in self.asked.iter().enumerate() {
            if !asked.record.names(subject) {
                continue;
            }
            named_by |= 1 << at;
            // The stamp has the record, and the computation had begun before the record was heard of.
            let claims = probed.born.inc == asked.inc && probed.born.seq >= asked.seq;
            let began_before = |heard: Moment| probed.began.is_some_and(|began| began < heard);
            if claims && heard.is_some_and(began_before) {
                late |= 1 << at;
            }
        }
        (named_by, late)
    }

    /// Whether an entry of this stamp should not be served by what one of these records says.
    fn is_odd(&self, born: Stamp, named_by: u64) -> bool {
        let older = |asked: &Asked| born.inc != asked.inc || born.seq < asked.seq;
        let mut asked = self.asked.iter().enumerate();
        asked.any(|(at, (asked, _))| named_by & 1 << at != 0 && older(asked))
    }
}

/// An entry that a tier would serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// A hash of its key and of whatever else selects it, the same in every instance and tier.
    pub key: u64,
    /// The stamp that it is judged by.
    pub born: Stamp,
    /// When its computation began, by the clock of this process; `None` if it began elsewhere.
    pub began: Option<Moment>,
    /// For a value that names the computation it comes from: a hash of that name (a strong validator, a
    /// fencing token), and one of the value. Two entries of one key, stamp and name must have one value.
    /// `None` for a value that may differ each time it is computed, and for one that is too long to hash.
    pub value: Option<(u64, u64)>,
    /// For how long it is fresh, at most.
    pub lasts: Duration,
}

/// The same as it is told to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) temperature: Temperature,
    pub(crate) key: u64,
    /// Incarnation and number of its stamp.
    pub(crate) born: (u64, u64),
    pub(crate) value: Option<(u64, u64)>,
    pub(crate) lasts: Duration,
    /// The asked records that name it, a bit for each.
    pub(crate) named_by: u64,
    /// Those that its stamp claims to know although its computation began before they were heard of.
    pub(crate) late: u64,
}

/// What one look through tiers has shown.
#[derive(Debug, Default)]
pub struct Seen {
    pub(crate) temperature: Option<Temperature>,
    pub(crate) found: Vec<Found>,
    pub(crate) work: u64,
    /// How many of them something is wrong with: they come first.
    odd: usize,
}

/// The most entries that are told of one tier.
pub(crate) const FOUND_MAX: usize = 64;

/// And of all tiers.
#[cfg(feature = "redis")]
pub(crate) const TOLD_MAX: usize = FOUND_MAX * 3;

impl Seen {
    /// Nothing of a tier yet.
    #[must_use]
    pub fn of(temperature: Temperature) -> Self {
        Self {
            temperature: Some(temperature),
            ..Self::default()
        }
    }

    /// An entry was looked at; or so much else was done that takes as long, about 100 ns. Whoever does
    /// more is asked less often.
    pub const fn worked(&mut self, looks: u64) {
        self.work = self.work.saturating_add(looks);
    }

    /// Notes an entry that would be served. Of more than 64 those are kept that something is wrong with.
    pub fn note(&mut self, wanted: &Wanted, subject: &Subject, probed: &Probed) {
        let (named_by, late) = wanted.bits(subject, probed);
        let is_odd = late != 0 || wanted.is_odd(probed.born, named_by);
        let found = Found {
            temperature: self.temperature.unwrap_or(Temperature::Hot),
            key: probed.key,
            born: (probed.born.inc, probed.born.seq),
            value: probed.value,
            lasts: probed.lasts,
            named_by,
            late,
        };
        // Those that something is wrong with stand in front.
        if self.found.len() < FOUND_MAX {
            self.found.push(found);
            if is_odd {
                let last = self.found.len() - 1;
                self.found.swap(self.odd, last);
                self.odd += 1;
            }
        } else if is_odd && self.odd < FOUND_MAX {
            self.found[self.odd] = found;
            self.odd += 1;
        }
    }

    pub(crate) fn and(&mut self, other: Self) {
        self.work = self.work.saturating_add(other.work);
        self.found.extend(other.found);
    }
}

/// What an instance answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whom it is known by; 0 for a process alone.
    pub(crate) instance: u64,
    /// Where its mirror stands.
    pub(crate) inc: u64,
    pub(crate) last: u64,
    pub(crate) verified: bool,
    /// It knows that it may have missed something, and the settings allow that it serves all the same.
    pub(crate) in_grace: bool,
    pub(crate) work: u64,
    pub(crate) found: Vec<Found>,
}
