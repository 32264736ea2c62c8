//! What memory says of a key, and what the tiers behind it do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Moment;
use crate::event::Event;
use crate::journal::{Checked, Stamp, Subject, Temperature, Verdict};
use crate::tiers::claiming::Unfit;
use crate::tiers::fault::CacheError;
use crate::tiers::frame::{Header, decode};
use crate::tiers::held::{Cached, Kept, Making, State};
use crate::tiers::luck;
use crate::tiers::terms::{Ends, Now, Terms, is_early};
use crate::tiers::typed::Inner;

/// What memory says.
pub(crate) enum Look<T> {
    /// This is fresh.
    Fresh(Cached<T>),
    /// This is fresh, and now is a good time to compute it anew.
    Early(Cached<T>),
    /// This is stale.
    Stale {
        value: Cached<T>,
        /// It may be served while it is computed anew.
        revalidate: bool,
        /// It may be served where that fails.
        error: bool,
    },
    /// Computing it has failed a moment ago.
    Failed(CacheError),
    /// Nobody knows whether what is there still holds.
    Unverified,
    Nothing,
}

/// What a tier behind memory says.
pub(crate) enum Found<T> {
    Fresh(Cached<T>),
    Stale {
        value: Cached<T>,
        revalidate: bool,
    },
    /// There are bytes that nobody can read.
    Unreadable,
    Nothing,
}

/// Where an entry is, and by which terms it is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Quest {
    pub(crate) text: Arc<str>,
    pub(crate) identity: Arc<str>,
    pub(crate) place: Arc<str>,
    pub(crate) terms: Terms,
}

impl<T: Send + Sync + 'static> Inner<T> {
    pub(crate) fn quest(&self, text: Arc<str>, terms: Terms) -> Quest {
        Quest {
            identity: self.identity(&text),
            place: self.place(&text),
            text,
            terms,
        }
    }

    /// Looks in memory, and counts as a use.
    pub(crate) fn look(&self, text: &str) -> Look<T> {
        self.look_within(text, (Duration::MAX, Duration::MAX))
    }

    /// The same for somebody whose terms may give less grace than those by which it was stored.
    pub(crate) fn look_for(&self, quest: &Quest) -> Look<T> {
        self.look_within(&quest.text, (quest.terms.revalidate, quest.terms.error))
    }

    fn look_within(&self, text: &str, graces: (Duration, Duration)) -> Look<T> {
        let Some(kept) = self.space.get(&self.view(text)) else {
            return Look::Nothing;
        };
        let now = self.clock.now();
        let expired = match kept.meta().verdict(&self.journal, now) {
            Verdict::Fresh => false,
            Verdict::Expired => true,
            Verdict::Unverified => return Look::Unverified,
            Verdict::Gone => {
                self.drop_out(text, &kept);
                return Look::Nothing;
            }
        };
        self.read(text, kept, (now, expired), graces)
    }

    /// Whether memory has a value that may be served, be it stale. Counts as no use.
    pub(crate) fn has_value(&self, text: &str) -> bool {
        let Some(kept) = self.space.peek(&self.view(text)) else {
            return false;
        };
        let now = self.clock.now();
        let expired = match kept.meta().verdict(&self.journal, now) {
            Verdict::Fresh | Verdict::Unverified => false,
            Verdict::Expired => true,
            Verdict::Gone => return false,
        };
        kept.meta().life.state(now, expired) != State::Over && kept.typed::<T>().is_some()
    }

    fn read(
        &self,
        text: &str,
        kept: Kept,
        (now, expired): (Moment, bool),
        (revalidate, error): (Duration, Duration),
    ) -> Look<T> {
        let mut life = kept.meta().life;
        if life.state(now, expired) == State::Over {
            self.drop_out(text, &kept);
            return Look::Nothing;
        }
        life.revalidate = life.revalidate.min(revalidate);
        life.error = life.error.min(error);
        let state = life.state(now, expired);
        let again = kept.clone();
        let Some(value) = kept.typed::<T>() else {
            // What is no value of this cache is an error that is remembered.
            let error = again.typed::<CacheError>().map(|error| (*error).clone());
            return match (error, state) {
                (Some(error), State::Fresh { .. }) => Look::Failed(error),
                _ => Look::Nothing,
            };
        };
        match state {
            State::Fresh { early } => {
                value.meta().count_hit();
                if early && is_early(&life, now, luck::unit()) {
                    Look::Early(value)
                } else {
                    Look::Fresh(value)
                }
            }
            State::Stale { revalidate, error } => Look::Stale {
                value,
                revalidate,
                error,
            },
            State::Over => Look::Nothing,
        }
    }

    pub(crate) fn is_of(&self, journal_key: &str, identity: &str) -> bool {
        match &self.tenant {
            Some(_) => identity
                .split_once('/')
                .is_some_and(|(_, key)| key == journal_key),
            None => identity == journal_key,
        }
    }

    /// Reads what another tier has: `judge` says whether it still holds.
    pub(crate) fn open(
        &self,
        quest: &Quest,
        (bytes, from): (&Bytes, Temperature),
        judge: impl FnOnce(Stamp, &Subject) -> Verdict,
        now: Now,
    ) -> Found<T> {
        let seals = self.tiers.seals().filter(|_| self.sealed);
        let max = usize::try_from(self.tiers.config().value_bytes_max).unwrap_or(usize::MAX);
        let (header, body) = match decode(bytes, &quest.identity, seals, max) {
            Ok(read) => read,
            Err(why) => {
                self.unreadable(from, why.as_str());
                return Found::Unreadable;
            }
        };
        // Whoever wrote it had not met the journal: nobody knows what was invalidated since.
        if header.stamp.inc == 0 {
            return Found::Nothing;
        }
        let subject = self.subject(&quest.text, header.tags.iter());
        let expired = match judge(header.stamp, &subject) {
            Verdict::Fresh => false,
            Verdict::Expired => true,
            Verdict::Gone | Verdict::Unverified => return Found::Nothing,
        };
        let ends = Ends {
            fresh_until_ms: header.fresh_until_ms,
            stale_until_ms: header.stale_until_ms,
        };
        let cost = Duration::from_micros(u64::from(header.cost_us));
        let life = quest.terms.life_again(ends, cost, now);
        let revalidate = match life.state_anywhere(now.moment, expired) {
            State::Fresh { .. } => None,
            State::Stale { revalidate, .. } => Some(revalidate),
            State::Over => return Found::Nothing,
        };
        if header.codec != self.codec.id() {
            self.unreadable(from, "codec");
            return Found::Unreadable;
        }
        let Ok(value) = self.codec.decode(&body) else {
            self.unreadable(from, "value");
            return Found::Unreadable;
        };
        let value = self.made(value, (header, subject, body.len()), life, cost);
        self.keep(&quest.text, value.kept());
        match revalidate {
            None => Found::Fresh(value),
            Some(revalidate) => Found::Stale { value, revalidate },
        }
    }

    fn made(
        &self,
        value: T,
        (header, subject, written): (Header, Subject, usize),
        life: crate::tiers::held::Life,
        cost: Duration,
    ) -> Cached<T> {
        let making = Making {
            born: header.stamp,
            subject,
            life,
            began: None,
            cost,
            value_bytes: self.weight(&value, written),
            saving: saving(written),
            tally: Arc::clone(&self.tally),
            tags: header.tags.into(),
        };
        Cached::new(value, making)
    }

    /// Counts what was found behind memory, and taken.
    pub(crate) fn found(&self, from: Temperature, value: &Cached<T>) {
        match from {
            Temperature::Warm => self.tally.warm.one(),
            Temperature::Hot | Temperature::Cold => self.tally.cold.one(),
        }
        self.tally.spared(value.cost());
        self.tiers.emit(Event::TierHit {
            tier: from.as_str(),
        });
    }

    pub(crate) fn unreadable(&self, from: Temperature, why: &'static str) {
        self.tally.unreadable.one();
        self.tiers.emit(Event::EntryUnreadable {
            tier: from.as_str(),
            why,
        });
    }

    /// What Redis has. The error says that it cannot be asked; beside nothing stands the beginning of what is
    /// of no use, if something is.
    pub(crate) async fn find_warm(&self, quest: &Quest) -> Result<(Found<T>, Unfit), Away> {
        let warm = self.tiers.warm().ok_or(Away)?;
        let key = Arc::clone(&quest.place);
        let read = warm
            .read(key, self.tenant.as_deref())
            .await
            .map_err(|_| Away)?;
        let Some(bytes) = &read.bytes else {
            return Ok((Found::Nothing, Unfit::default()));
        };
        let now = self.tiers.now();
        let judge = |stamp, subject: &Subject| read.verdict(stamp, subject);
        let found = self.open(quest, (bytes, Temperature::Warm), judge, now);
        let beginning = bytes.get(..bytes.len().min(TELLING)).unwrap_or_default();
        let unfit = Unfit {
            beginning: beginning.to_vec(),
            is_unreadable: matches!(found, Found::Unreadable),
        };
        Ok((found, unfit))
    }

    /// What the cold store has.
    pub(crate) async fn find_cold(&self, quest: &Quest) -> Found<T> {
        let Some(cold) = self.tiers.cold() else {
            return Found::Nothing;
        };
        let bytes = cold.read(&quest.place, self.tiers.now().wall_ms).await;
        match bytes {
            Some(bytes) => self.judge_here(quest, &bytes),
            None => Found::Nothing,
        }
    }

    /// Opens what the cold store has, which this process' mirror judges.
    pub(crate) fn judge_here(&self, quest: &Quest, bytes: &Bytes) -> Found<T> {
        // Not the time before it was loaded: the mirror's word may have run out since.
        let now = self.tiers.now();
        let judge = |stamp: Stamp, subject: &Subject| {
            let checked = Checked::at(stamp);
            self.journal.judge(stamp, &checked, subject, now.moment)
        };
        self.open(quest, (bytes, Temperature::Cold), judge, now)
    }
}

/// Redis cannot be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Away;

/// What a fetch of so many bytes from Redis and reading them take, in nanoseconds: a round trip, and about a
/// gigabyte a second.
pub(crate) fn saving(written: usize) -> u64 {
    ROUND_TRIP_NS + written as u64
}

const ROUND_TRIP_NS: u64 = 100_000;

/// So much of an entry tells it from one that was written later: its stamp and its times.
pub(crate) const TELLING: usize = 56;
