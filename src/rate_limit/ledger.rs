//! The books of a limiter: buckets, strikes, who presses hardest, and the fleet that shares them.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::rate_limit::calendar::Calendar;
use crate::rate_limit::charges::Charge;
use crate::rate_limit::gcra::Limit;
use crate::rate_limit::penalty::PenaltyBox;
use crate::rate_limit::slot::FILL_MAX;
use crate::rate_limit::table::Table;
use crate::rate_limit::terms::Terms;
use crate::rate_limit::ticks::ticks;
use crate::rate_limit::top::TopList;
use crate::rate_limit::who::Who;
#[cfg(feature = "redis")]
use crate::rate_limit::{fleet::Fleet, outage::Outage, spoken::Spoken, voice::Voice};

/// The longest ban, here and in Redis: 62 days.
const BAN_MAX: Duration = Duration::from_micros(FILL_MAX);

/// What all clones of a limiter write in.
pub(crate) struct Ledger {
    pub(crate) table: Arc<Table>,
    pub(crate) calendar: Calendar,
    pub(crate) penalties: Option<Arc<PenaltyBox>>,
    pub(crate) top: TopList,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    #[cfg(feature = "redis")]
    pub(crate) shared: Option<SharedLedger>,
}

/// How it is shared with other instances.
#[cfg(feature = "redis")]
#[derive(Debug)]
pub(crate) struct SharedLedger {
    pub(crate) fleet: Fleet,
    pub(crate) outage: Arc<Outage>,
    pub(crate) spoken: Spoken,
    pub(crate) voice: Voice,
}

impl Ledger {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        ticks(&self.clock)
    }

    /// Whether other instances count along.
    #[cfg_attr(
        not(feature = "redis"),
        expect(clippy::unused_self, reason = "without Redis nobody does")
    )]
    pub(crate) const fn is_shared(&self) -> bool {
        #[cfg(feature = "redis")]
        return self.shared.is_some();
        #[cfg(not(feature = "redis"))]
        false
    }

    /// The bucket and the limit as they stand now: those that go by the calendar have another bucket in each
    /// window.
    #[inline]
    pub(crate) fn current(&self, key: u64, terms: &Terms, now: u64) -> (u64, Limit) {
        let Some(period) = terms.period else {
            return (key, terms.limit);
        };
        let end = self.calendar.end(period, now, &self.clock);
        let mut hasher = self.table.hasher();
        hasher.write_u64(key);
        hasher.write_u64(end);
        (hasher.finish(), terms.limit.ending(end - now))
    }

    /// Tells that a request was let through, by all these rules.
    pub(crate) fn tell_allowed<'c>(&self, charges: impl Iterator<Item = &'c Charge<'c>>) {
        for charge in charges {
            let rule = &*charge.terms().rule;
            self.events.emit(Event::RateLimitAllowed { rule });
        }
    }

    /// Tells that a rule said no, notes to whom, and bans those who go on.
    pub(crate) fn tell_denied(&self, charge: &Charge<'_>, who: &impl Who, now: u64) {
        let rule = &charge.terms().rule;
        let shadow = false;
        self.events.emit(Event::RateLimitDenied { rule, shadow });
        self.note(charge, who, true, now);
        let Some(penalties) = &self.penalties else {
            return;
        };
        let Some(client) = who.client() else {
            return;
        };
        // Who is refused because others have used up what all of them share has not done it.
        if who.owner(charge) != client {
            return;
        }
        if let Some(lasts) = penalties.strike(self.client(&client), now) {
            self.tell_ban(&client, lasts);
        }
    }

    /// Notes who presses against a limit.
    pub(crate) fn note(&self, charge: &Charge<'_>, who: &impl Who, refused: bool, now: u64) {
        let names = || (Arc::clone(&charge.terms().rule), who.owner(charge));
        self.top.note(charge.key, refused, now, names);
    }

    /// What a client's strikes and bans are kept under.
    pub(crate) fn client(&self, who: &str) -> u64 {
        self.table.client(who)
    }

    /// How long the client with this hash is still banned.
    pub(crate) fn banned(
        &self,
        client: impl FnOnce() -> Option<u64>,
        now: u64,
    ) -> Option<Duration> {
        let penalties = self.penalties.as_ref()?;
        if !penalties.bans_anybody(now) {
            return None;
        }
        penalties.banned(client()?, now)
    }

    /// Tells that a request was refused because of who sent it.
    pub(crate) fn tell_shut_out(&self, why: &'static str) {
        self.events.emit(Event::ClientShutOut { why });
    }

    /// Bans a client here and everywhere. Says whether anybody can be banned at all.
    pub(crate) fn ban(&self, who: &str, lasts: Duration) -> bool {
        let Some(penalties) = &self.penalties else {
            return false;
        };
        let lasts = lasts.min(BAN_MAX);
        penalties.ban(self.client(who), lasts, self.now());
        self.tell_ban(who, lasts);
        true
    }

    /// Ends a ban here and everywhere. Says whether it was one here.
    pub(crate) fn pardon(&self, who: &str) -> bool {
        let (client, now) = (self.client(who), self.now());
        #[cfg(feature = "redis")]
        if let Some(shared) = &self.shared {
            shared.spoken.forget(who);
            let lasts = self.banned(|| Some(client), now).unwrap_or_default();
            // Others may know of a ban that this instance has never heard of.
            let longest = self.penalties.as_ref().map(|penalties| penalties.ban_max());
            let lasts = lasts.max(longest.unwrap_or_default());
            shared.voice.pardon(who, lasts);
        }
        let penalties = self.penalties.as_ref();
        penalties.is_some_and(|penalties| penalties.pardon(client, now))
    }

    /// Asks Redis about a ban, unless it was asked or told a moment ago: that it was lifted may have been said
    /// while nobody heard it here.
    #[cfg(feature = "redis")]
    pub(crate) fn doubt(self: &Arc<Self>, who: &impl Who, now: u64) {
        let (Some(shared), Some(penalties)) = (&self.shared, &self.penalties) else {
            return;
        };
        let Some(who) = shared.outage.is_up().then(|| who.client()).flatten() else {
            return;
        };
        let client = self.client(&who);
        if !penalties.is_doubtful(client, now) {
            return;
        }
        let (ledger, name) = (Arc::downgrade(self), Arc::clone(&who));
        let lasts = shared.spoken.left(&who, now);
        shared.voice.doubt(who, lasts, move || {
            if let Some(ledger) = ledger.upgrade() {
                ledger.heed_pardon(&name);
            }
        });
    }

    /// Notes a ban that another instance has spoken.
    #[cfg(feature = "redis")]
    pub(crate) fn heed_ban(&self, who: &str, lasts: Duration) {
        let (client, now) = (self.client(who), self.now());
        if let (Some(shared), Some(penalties)) = (&self.shared, &self.penalties) {
            shared.spoken.note(who, lasts, now);
            penalties.ban(client, lasts, now);
            // It was told just now.
            penalties.is_doubtful(client, now);
        }
    }

    /// Whether it is this instance that says so.
    #[cfg(feature = "redis")]
    pub(crate) fn is_speaker(&self, speaker: u64) -> bool {
        let shared = self.shared.as_ref();
        shared.is_some_and(|shared| shared.voice.speaker() == speaker)
    }

    /// Notes that another instance has ended a ban.
    #[cfg(feature = "redis")]
    pub(crate) fn heed_pardon(&self, who: &str) {
        if let (Some(shared), Some(penalties)) = (&self.shared, &self.penalties) {
            shared.spoken.forget(who);
            penalties.pardon(self.client(who), self.now());
        }
    }

    fn tell_ban(&self, who: &str, lasts: Duration) {
        self.events.emit(Event::ClientBanned { who, lasts });
        #[cfg(feature = "redis")]
        if let Some(shared) = &self.shared {
            if let Some(penalties) = &self.penalties {
                // Or Redis could be asked before it is told, and remember that a former ban was lifted.
                penalties.is_doubtful(self.client(who), self.now());
            }
            shared.spoken.note(who, lasts, self.now());
            shared.voice.ban(who, lasts);
        }
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Ledger");
        debug.field("table", &self.table);
        debug.field("penalties", &self.penalties);
        #[cfg(feature = "redis")]
        debug.field("shared", &self.shared);
        debug.finish_non_exhaustive()
    }
}
