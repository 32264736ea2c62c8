//! What the other rooms tell, counted.
//!
//! Every [`Event`] ends in relaxed atomics. Those that carry a name have a row for it, found without
//! lock or allocation and bounded in number: see [`Named`].

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::Event;
use crate::metrics::histogram::Histogram;
use crate::metrics::named::Named;

/// How many rules of the rate limiter are told apart.
const RULES_MAX: usize = 256;
/// How many reasons or levels are told apart: these are words of the program, so this is plenty.
const WORDS_MAX: usize = 32;

/// The sums of all events so far.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) hits: AtomicU64,
    pub(crate) stale_hits: AtomicU64,
    pub(crate) forwards: Named<AtomicU64>,
    pub(crate) collapsed: AtomicU64,
    pub(crate) stored: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) tier_hits: Named<AtomicU64>,
    /// What computing values took.
    pub(crate) values: Histogram,
    pub(crate) values_failed: AtomicU64,
    pub(crate) unreadable: Named<AtomicU64>,
    pub(crate) warmed_classes: Named<AtomicU64>,
    pub(crate) warmed_outcomes: Named<AtomicU64>,
    pub(crate) rules: Named<RuleTotals>,
    pub(crate) bans: AtomicU64,
    pub(crate) shut_out: Named<AtomicU64>,
    pub(crate) peers_unknown: AtomicU64,
    /// The wait of everyone admitted; its count is how many were.
    pub(crate) queue_wait: Histogram,
    pub(crate) refused: Named<AtomicU64>,
    pub(crate) pressure_changes: Named<AtomicU64>,
    /// Those who left while they waited for a slot.
    pub(crate) left: AtomicU64,
    pub(crate) slots_changes: AtomicU64,
    pub(crate) lags: AtomicU64,
    pub(crate) relieved: Named<AtomicU64>,
    pub(crate) leaks: AtomicU64,
    pub(crate) circuit_changes: Named<AtomicU64>,
    pub(crate) circuit_refused: AtomicU64,
    pub(crate) connections_opened: AtomicU64,
    pub(crate) connections_closed: Named<AtomicU64>,
    pub(crate) connections_refused: Named<AtomicU64>,
    pub(crate) invalidations: AtomicU64,
    pub(crate) markers: AtomicU64,
    pub(crate) invalidations_pending: AtomicU64,
    pub(crate) journal_doubts: Named<AtomicU64>,
    pub(crate) journal_replaced: AtomicU64,
    pub(crate) coherency_checks: Named<AtomicU64>,
    pub(crate) coherency_violations: Named<AtomicU64>,
    pub(crate) queries: Histogram,
    pub(crate) queries_slow: AtomicU64,
    pub(crate) remote_waits: AtomicU64,
    pub(crate) remote_refusals: AtomicU64,
    pub(crate) progress: AtomicU64,
    pub(crate) redis_downs: AtomicU64,
    /// What Redis took to answer.
    pub(crate) redis_answers: Histogram,
    pub(crate) redis_failed: Named<AtomicU64>,
    /// The wait for the database of everyone, in vain or not.
    pub(crate) database_waits: Histogram,
    pub(crate) database_unserved: AtomicU64,
    pub(crate) alerts: Named<AtomicU64>,
    pub(crate) warnings: AtomicU64,
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
            hits: AtomicU64::default(),
            stale_hits: AtomicU64::default(),
            forwards: Named::new(WORDS_MAX),
            collapsed: AtomicU64::default(),
            stored: AtomicU64::default(),
            stored_bytes: AtomicU64::default(),
            tier_hits: Named::new(WORDS_MAX),
            values: Histogram::new(),
            values_failed: AtomicU64::default(),
            unreadable: Named::new(WORDS_MAX),
            warmed_classes: Named::new(WORDS_MAX),
            warmed_outcomes: Named::new(WORDS_MAX),
            rules: Named::new(RULES_MAX),
            bans: AtomicU64::default(),
            shut_out: Named::new(WORDS_MAX),
            peers_unknown: AtomicU64::default(),
            queue_wait: Histogram::new(),
            refused: Named::new(WORDS_MAX),
            pressure_changes: Named::new(WORDS_MAX),
            left: AtomicU64::default(),
            slots_changes: AtomicU64::default(),
            lags: AtomicU64::default(),
            relieved: Named::new(WORDS_MAX),
            leaks: AtomicU64::default(),
            circuit_changes: Named::new(WORDS_MAX),
            circuit_refused: AtomicU64::default(),
            connections_opened: AtomicU64::default(),
            connections_closed: Named::new(WORDS_MAX),
            connections_refused: Named::new(WORDS_MAX),
            invalidations: AtomicU64::default(),
            markers: AtomicU64::default(),
            invalidations_pending: AtomicU64::default(),
            journal_doubts: Named::new(WORDS_MAX),
            journal_replaced: AtomicU64::default(),
            coherency_checks: Named::new(WORDS_MAX),
            coherency_violations: Named::new(WORDS_MAX),
            queries: Histogram::new(),
            queries_slow: AtomicU64::default(),
            remote_waits: AtomicU64::default(),
            remote_refusals: AtomicU64::default(),
            progress: AtomicU64::default(),
            redis_downs: AtomicU64::default(),
            redis_answers: Histogram::new(),
            redis_failed: Named::new(WORDS_MAX),
            database_waits: Histogram::new(),
            database_unserved: AtomicU64::default(),
            alerts: Named::new(WORDS_MAX),
            warnings: AtomicU64::default(),
        }
    }

    /// Counts `event`.
    pub(crate) fn count(&self, event: &Event<'_>) {
        match *event {
            Event::CacheHit { stale: false } => one_more(&self.hits),
            Event::CacheHit { stale: true } => one_more(&self.stale_hits),
            Event::CacheForwarded { reason } => self.forwards.with(reason, one_more),
            Event::CacheCollapsed => one_more(&self.collapsed),
            Event::CacheStored { bytes } => {
                one_more(&self.stored);
                more(&self.stored_bytes, bytes);
            }
            Event::TierHit { tier } => self.tier_hits.with(tier, one_more),
            Event::ValueComputed { took, failed } => {
                self.values.record(took);
                if failed {
                    one_more(&self.values_failed);
                }
            }
            Event::EntryUnreadable { why, .. } => self.unreadable.with(why, one_more),
            Event::Warmed { class, outcome } => {
                self.warmed_classes.with(class, one_more);
                self.warmed_outcomes.with(outcome, one_more);
            }
            Event::RedisAnswered { took } => self.redis_answers.record(took),
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
            Event::ClientBanned { .. } => one_more(&self.bans),
            Event::ClientShutOut { why } => self.shut_out.with(why, one_more),
            Event::PeerUnknown => one_more(&self.peers_unknown),
            Event::GuardAdmitted { waited } => self.queue_wait.record(waited),
            Event::GuardRefused { why } => self.refused.with(why, one_more),
            Event::PressureChanged { to, .. } => self.pressure_changes.with(to, one_more),
            _ => self.count_rest(event),
        }
    }

    /// What is not told with every request. There is no arm for the rest here: a new kind of event has to
    /// find its place.
    fn count_rest(&self, event: &Event<'_>) {
        match *event {
            Event::GuardLeft { .. } => one_more(&self.left),
            Event::GuardSlotsChanged { .. } => one_more(&self.slots_changes),
            Event::RuntimeLagging { .. } => one_more(&self.lags),
            Event::MemoryRelieved { action, .. } => self.relieved.with(action, one_more),
            Event::LeakSuspected { .. } => one_more(&self.leaks),
            // Not by circuit: their names may be anybody's hosts.
            Event::CircuitChanged { to, .. } => self.circuit_changes.with(to, one_more),
            Event::CircuitRefused { .. } => one_more(&self.circuit_refused),
            Event::ConnectionOpened => one_more(&self.connections_opened),
            Event::ConnectionClosed { why } => self.connections_closed.with(why, one_more),
            Event::ConnectionRefused { why } => self.connections_refused.with(why, one_more),
            Event::Invalidated { markers, .. } => {
                one_more(&self.invalidations);
                more(&self.markers, markers);
            }
            Event::InvalidationPending { .. } => one_more(&self.invalidations_pending),
            Event::JournalUnverified { why } => self.journal_doubts.with(why, one_more),
            // Of how long it took the gauge tells.
            Event::JournalVerified => {}
            Event::JournalReplaced => one_more(&self.journal_replaced),
            Event::CoherencyChecked { window } => self.coherency_checks.with(window, one_more),
            Event::CoherencyViolation { invariant, .. } => {
                self.coherency_violations.with(invariant, one_more);
            }
            Event::QueryFinished { took, slow, .. } => {
                self.queries.record(took);
                if slow {
                    one_more(&self.queries_slow);
                }
            }
            // Not by remote: their names may be anybody's.
            Event::RemoteQuotaWaited { .. } => one_more(&self.remote_waits),
            Event::RemoteQuotaRefused { .. } => one_more(&self.remote_refusals),
            // What it leads to is counted.
            Event::RemoteQuotaBlocked { .. } => {}
            Event::ProgressPublished => one_more(&self.progress),
            // Up again is told by the gauge; what is counted are the reasons to be down.
            Event::RedisUp => {}
            Event::RedisDown { .. } => one_more(&self.redis_downs),
            Event::RedisFailed { why } => self.redis_failed.with(why, one_more),
            Event::DatabaseWaited { waited, served } => {
                self.database_waits.record(waited);
                if !served {
                    one_more(&self.database_unserved);
                }
            }
            // Not by rule: the alerts themselves are asked for those.
            Event::AlertChanged { state, .. } => self.alerts.with(state, one_more),
            Event::Warning { .. } => one_more(&self.warnings),
            Event::CacheHit { .. }
            | Event::CacheForwarded { .. }
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

fn more(count: &AtomicU64, by: usize) {
    count.fetch_add(by as u64, Ordering::Relaxed);
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
        let rows = totals.rules.rows();
        assert_eq!(rows.len(), RULES_MAX + 1);
        let other = rows.iter().find(|(name, _)| &**name == "other").unwrap();
        assert_eq!(other.1.allowed.load(Ordering::Relaxed), 50);
    }
}
