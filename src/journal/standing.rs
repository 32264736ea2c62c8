//! Whether an instance knows that it has heard everything.

use std::fmt;
use std::time::Duration;

use crate::clock::Moment;

/// Why an instance does not know whether what it stores still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unverified {
    /// It has not reached the journal yet.
    Starting,
    /// The connection to the journal is lost.
    Disconnected,
    /// A record was missed, and is being read.
    Gap,
    /// The journal's past was lost, by a failover or an eviction: a new incarnation has begun.
    Replaced,
    /// The journal has not confirmed in time that nothing is missing.
    Silent,
    /// The stack was shut down.
    Stopped,
}

impl Unverified {
    /// The same in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Disconnected => "disconnected",
            Self::Gap => "gap",
            Self::Replaced => "replaced",
            Self::Silent => "silent",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Unverified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalStatus {
    /// It has heard everything that was acknowledged.
    Verified,
    /// It may have missed something, so that nothing stored is served from memory unless the settings
    /// allow that for a while.
    Unverified {
        /// For how long.
        since: Duration,
        /// Why.
        why: Unverified,
    },
}

/// The state behind it, with what it takes to leave it.
#[derive(Debug)]
pub(crate) struct Standing {
    unverified: Option<(Moment, Unverified)>,
    /// On how many connections the channel is subscribed.
    subscribed: usize,
    /// How often it has been.
    sessions: u64,
    /// How often there was reason to doubt: whoever vouches has to have begun after the last one.
    doubts: u64,
    /// What was told of it last, and whether somebody is telling.
    told: Option<Unverified>,
    is_telling: bool,
}

impl Standing {
    pub(crate) const fn verified() -> Self {
        Self {
            unverified: None,
            subscribed: 0,
            sessions: 0,
            doubts: 0,
            told: None,
            is_telling: false,
        }
    }

    pub(crate) const fn starting(now: Moment) -> Self {
        Self {
            unverified: Some((now, Unverified::Starting)),
            told: Some(Unverified::Starting),
            ..Self::verified()
        }
    }

    /// Returns whether that is news.
    pub(crate) fn doubt(&mut self, why: Unverified, now: Moment) -> bool {
        self.doubts += 1;
        match &mut self.unverified {
            // Until it has begun there is nothing to lose, and what has ended does not begin again.
            Some((_, Unverified::Starting)) if why != Unverified::Stopped => false,
            Some((_, Unverified::Stopped)) => false,
            Some((_, old)) => std::mem::replace(old, why) != why,
            none => {
                *none = Some((now, why));
                true
            }
        }
    }

    /// Returns whether that is news.
    pub(crate) const fn vouch(&mut self) -> bool {
        self.unverified.take().is_some()
    }

    /// Takes the telling on, unless somebody has it: whoever does tells what changes meanwhile as well.
    pub(crate) const fn begin_to_tell(&mut self) -> bool {
        !std::mem::replace(&mut self.is_telling, true)
    }

    /// Leaves the telling to the next one.
    pub(crate) const fn stop_telling(&mut self) {
        self.is_telling = false;
    }

    /// What is to be told next: that it is verified, or why not. `None` ends the telling.
    pub(crate) fn news(&mut self) -> Option<Result<(), Unverified>> {
        let why = self.unverified.map(|(_, why)| why);
        self.is_telling = self.told != why;
        self.told = why;
        self.is_telling.then_some(why.map_or(Ok(()), Err))
    }

    pub(crate) const fn subscribe(&mut self) {
        self.subscribed += 1;
        self.sessions += 1;
    }

    pub(crate) const fn sessions(&self) -> u64 {
        self.sessions
    }

    /// Returns whether the channel is subscribed all the same.
    pub(crate) const fn unsubscribe(&mut self) -> bool {
        self.subscribed = self.subscribed.saturating_sub(1);
        self.subscribed > 0
    }

    pub(crate) const fn is_subscribed(&self) -> bool {
        self.subscribed > 0
    }

    pub(crate) const fn doubts(&self) -> u64 {
        self.doubts
    }

    pub(crate) const fn unverified(&self) -> Option<(Moment, Unverified)> {
        self.unverified
    }

    pub(crate) fn status(&self, now: Moment) -> JournalStatus {
        match self.unverified {
            None => JournalStatus::Verified,
            Some((began, why)) => JournalStatus::Unverified {
                since: now.since(began),
                why,
            },
        }
    }
}
