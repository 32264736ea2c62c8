//! What the other rooms tell, counted.
//!
//! Every [`Event`] ends in relaxed atomics. Those that carry a name have a row for it, found without
//! lock or allocation and bounded in number: see [`Named`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Event;
use crate::metrics::histogram::Histogram;
use crate::metrics::named::Named;

/// How many rules of the rate limiter are told apart.
const RULES_MAX: usize = 256;
/// How many reasons or levels are told apart: these are words of the program, so this is plenty.
const WORDS_MAX: usize = 32;

/// What is counted without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Hits,
    StaleHits,
    Misses,
    StaleMisses,
    Collapsed,
    Stored,
    StoredBytes,
    ValuesFailed,
    Bans,
    PeersUnknown,
    Left,
    SlotsChanges,
    Lags,
    Leaks,
    CircuitRefused,
    ConnectionsOpened,
    Invalidations,
    Markers,
    InvalidationsPending,
    JournalReplaced,
    QueriesSlow,
    DatabaseUnserved,
    RemoteWaits,
    RemoteRefusals,
    Progress,
    RedisDowns,
    Warnings,
}

/// What is counted by a word of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Word {
    Forwards,
    TierHits,
    Unreadable,
    WarmedClasses,
    WarmedOutcomes,
    ShutOut,
    Refused,
    PressureChanges,
    Relieved,
    CircuitChanges,
    ConnectionsClosed,
    ConnectionsRefused,
    JournalDoubts,
    CoherencyChecks,
    CoherencyViolations,
    RedisFailed,
    Alerts,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// What computing values took.
    Values,
    /// The wait of everyone admitted; its count is how many were.
    QueueWait,
    Queries,
    /// The wait for the database of everyone, in vain or not.
    DatabaseWaits,
    /// What Redis took to answer.
    RedisAnswers,
}

impl Count {
    /// How many there are.
    pub(crate) const ALL: usize = Self::Warnings as usize + 1;
}

impl Word {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 17] = [
        Self::Forwards,
        Self::TierHits,
        Self::Unreadable,
        Self::WarmedClasses,
        Self::WarmedOutcomes,
        Self::ShutOut,
        Self::Refused,
        Self::PressureChanges,
        Self::Relieved,
        Self::CircuitChanges,
        Self::ConnectionsClosed,
        Self::ConnectionsRefused,
        Self::JournalDoubts,
        Self::CoherencyChecks,
        Self::CoherencyViolations,
        Self::RedisFailed,
        Self::Alerts,
    ];
}

impl Time {
    /// How many there are.
    pub(crate) const ALL: usize = Self::RedisAnswers as usize + 1;
}

/// The sums of all events so far.
#[derive(Debug)]
pub(crate) struct Totals {
    counts: [AtomicU64; Count::ALL],
    words: [Named<AtomicU64>; Word::ALL.len()],
    times: [Histogram; Time::ALL],
    rules: Named<RuleTotals>,
}

/// What one rate limit rule has decided.
#[derive(Debug, Default)]
pub(crate) struct RuleTotals {
    pub(crate) allowed: AtomicU64,
    pub(crate) denied: AtomicU64,
    pub(crate) shadow_denied: AtomicU64,
}

impl Totals {
    /// Nothing happened yet.
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; Count::ALL],
            words: Word::ALL.map(|_| Named::new(WORDS_MAX)),
            times: [const { Histogram::new() }; Time::ALL],
            rules: Named::new(RULES_MAX),
        }
    }

    /// All counts, by [`Count`].
    pub(crate) const fn counts(&self) -> &[AtomicU64; Count::ALL] {
        &self.counts
    }

    /// All histograms, by [`Time`].
    pub(crate) const fn times(&self) -> &[Histogram; Time::ALL] {
        &self.times
    }

    /// What was counted under `word`, by name.
    pub(crate) fn words(&self, word: Word) -> Vec<(Arc<str>, Arc<AtomicU64>)> {
        self.words[word as usize].rows()
    }

    /// What the rules have decided, by name.
    pub(crate) fn rules(&self) -> Vec<(Arc<str>, Arc<RuleTotals>)> {
        self.rules.rows()
    }

    /// One of the counts.
    pub(crate) const fn one(&self, count: Count) -> &AtomicU64 {
        &self.counts[count as usize]
    }

    /// One of the histograms.
    pub(crate) const fn time(&self, time: Time) -> &Histogram {
        &self.times[time as usize]
    }

    fn add(&self, count: Count) {
        one_more(self.one(count));
    }

    fn more(&self, count: Count, by: usize) {
        self.one(count).fetch_add(by as u64, Ordering::Relaxed);
    }

    fn word(&self, word: Word, name: &str) {
        self.words[word as usize].with(name, one_more);
    }

    /// Counts `event`.
    pub(crate) fn count(&self, event: &Event<'_>) {
        match *event {
            Event::CacheHit { stale: false } => self.add(Count::Hits),
            Event::CacheHit { stale: true } => self.add(Count::StaleHits),
            Event::CacheForwarded { reason } => self.word(Word::Forwards, reason),
            Event::CacheMissed { stale: false } => self.add(Count::Misses),
            Event::CacheMissed { stale: true } => self.add(Count::StaleMisses),
            Event::CacheCollapsed => self.add(Count::Collapsed),
            Event::CacheStored { bytes } => {
                self.add(Count::Stored);
                self.more(Count::StoredBytes, bytes);
            }
            Event::TierHit { tier } => self.word(Word::TierHits, tier),
            Event::ValueComputed { took, failed } => {
                self.time(Time::Values).record(took);
                if failed {
                    self.add(Count::ValuesFailed);
                }
            }
            Event::EntryUnreadable { why, .. } => self.word(Word::Unreadable, why),
            Event::Warmed { class, outcome } => {
                self.word(Word::WarmedClasses, class);
                self.word(Word::WarmedOutcomes, outcome);
            }
            Event::RedisAnswered { took } => self.time(Time::RedisAnswers).record(took),
            Event::RateLimitAllowed { rule } => {
                self.rules.with(rule, |rule| one_more(&rule.allowed));
            }
            Event::RateLimitDenied {
                rule,
                shadow: false,
            } => self.rules.with(rule, |rule| one_more(&rule.denied)),
            Event::RateLimitDenied { rule, shadow: true } => {
                self.rules.with(rule, |rule| one_more(&rule.shadow_denied));
            }
            Event::ClientBanned { .. } => self.add(Count::Bans),
            Event::ClientShutOut { why } => self.word(Word::ShutOut, why),
            Event::PeerUnknown => self.add(Count::PeersUnknown),
            Event::GuardAdmitted { waited } => self.time(Time::QueueWait).record(waited),
            Event::GuardRefused { why, .. } => self.word(Word::Refused, why),
            Event::PressureChanged { to, .. } => self.word(Word::PressureChanges, to),
            _ => self.count_rest(event),
        }
    }

    /// What is not told with every request. There is no arm for the rest here: a new kind of event has to
    /// find its place.
    fn count_rest(&self, event: &Event<'_>) {
        match *event {
            Event::GuardLeft { .. } => self.add(Count::Left),
            Event::GuardSlotsChanged { .. } => self.add(Count::SlotsChanges),
            Event::RuntimeLagging { .. } => self.add(Count::Lags),
            Event::MemoryRelieved { action, .. } => self.word(Word::Relieved, action),
            Event::LeakSuspected { .. } => self.add(Count::Leaks),
            // Not by circuit: their names may be anybody's hosts.
            Event::CircuitChanged { to, .. } => self.word(Word::CircuitChanges, to),
            Event::CircuitRefused { .. } => self.add(Count::CircuitRefused),
            Event::ConnectionOpened => self.add(Count::ConnectionsOpened),
            Event::ConnectionClosed { why } => self.word(Word::ConnectionsClosed, why),
            Event::ConnectionRefused { why } => self.word(Word::ConnectionsRefused, why),
            Event::Invalidated { markers, .. } => {
                self.add(Count::Invalidations);
                self.more(Count::Markers, markers);
            }
            Event::InvalidationPending { .. } => self.add(Count::InvalidationsPending),
            Event::JournalUnverified { why } => self.word(Word::JournalDoubts, why),
            // Of how long it took the gauge tells.
            Event::JournalVerified => {}
            Event::JournalReplaced => self.add(Count::JournalReplaced),
            Event::CoherencyChecked { window } => self.word(Word::CoherencyChecks, window),
            Event::CoherencyViolation { invariant, .. } => {
                self.word(Word::CoherencyViolations, invariant);
            }
            Event::QueryFinished { took, slow, .. } => {
                self.time(Time::Queries).record(took);
                if slow {
                    self.add(Count::QueriesSlow);
                }
            }
            // Not by remote: their names may be anybody's.
            Event::RemoteQuotaWaited { .. } => self.add(Count::RemoteWaits),
            Event::RemoteQuotaRefused { .. } => self.add(Count::RemoteRefusals),
            // What it leads to is counted.
            Event::RemoteQuotaBlocked { .. } => {}
            Event::ProgressPublished => self.add(Count::Progress),
            // Up again is told by the gauge; what is counted are the reasons to be down.
            Event::RedisUp => {}
            Event::RedisDown { .. } => self.add(Count::RedisDowns),
            Event::RedisFailed { why } => self.word(Word::RedisFailed, why),
            Event::DatabaseWaited { waited, served } => {
                self.time(Time::DatabaseWaits).record(waited);
                if !served {
                    self.add(Count::DatabaseUnserved);
                }
            }
            // Not by rule: the alerts themselves are asked for those.
            Event::AlertChanged { state, .. } => self.word(Word::Alerts, state),
            Event::Warning { .. } => self.add(Count::Warnings),
            Event::CacheHit { .. }
            | Event::CacheForwarded { .. }
            | Event::CacheMissed { .. }
            | Event::CacheCollapsed
            | Event::CacheStored { .. }
            | Event::TierHit { .. }
            | Event::ValueComputed { .. }
            | Event::EntryUnreadable { .. }
            | Event::Warmed { .. }
            | Event::RedisAnswered { .. }
            | Event::RateLimitAllowed { .. }
            | Event::RateLimitDenied { .. }
            | Event::ClientBanned { .. }
            | Event::ClientShutOut { .. }
            | Event::PeerUnknown
            | Event::GuardAdmitted { .. }
            | Event::GuardRefused { .. }
            | Event::PressureChanged { .. } => {}
        }
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_bound_count_as_other() {
        let totals = Totals::new();
        for rule in 0..RULES_MAX + 50 {
            let rule = rule.to_string();
            totals.count(&Event::RateLimitAllowed { rule: &rule });
        }
        let rows = totals.rules();
        assert_eq!(rows.len(), RULES_MAX + 1);
        let other = rows.iter().find(|(name, _)| &**name == "other").unwrap();
        assert_eq!(other.1.allowed.load(Ordering::Relaxed), 50);
    }
}
