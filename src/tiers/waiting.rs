//! Waiting for a flight, and what may stand in for what it does not bring.

use std::time::Duration;

use crate::clock::Moment;
use crate::journal::Verdict;
use crate::tiers::engine::Landing;
use crate::tiers::fault::CacheError;
use crate::tiers::flight::{Passenger, Waited};
use crate::tiers::held::{Cached, Kept};
use crate::tiers::looking::{Look, Quest};
use crate::tiers::typed::Inner;

/// Whoever has boarded a flight.
pub(crate) struct Boarded {
    pub(crate) passenger: Passenger<Landing>,
    pub(crate) leads: bool,
    /// When it began to ask.
    pub(crate) asked: Moment,
}

/// Why something else is served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Because {
    /// It takes long.
    Slow,
    /// It failed.
    Failed,
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// Waits until it is known whether what memory has holds; usually that takes a moment.
    pub(crate) async fn reverified(&self) {
        let tenant = self.tenant.as_deref();
        self.journal.reverified(tenant, WORD_MAX).await;
    }

    /// Waits for a flight. `None` says that it was in vain.
    pub(crate) async fn wait(
        &self,
        quest: &Quest,
        boarded: &Boarded,
    ) -> Option<Result<Cached<T>, CacheError>> {
        let patience = match boarded.leads {
            // Its own computation takes as long as it takes, or as its hard timeout says.
            true => Duration::MAX,
            false => self.tiers.config().flight_wait,
        };
        let soft = quest.terms.soft_timeout.filter(|soft| *soft < patience);
        let passenger = &boarded.passenger;
        let mut waited = passenger.wait(soft.unwrap_or(patience)).await;
        if matches!(waited, Waited::TooLong) {
            // The flight may have found something on its way.
            if let Some(value) = self.stand_in(quest, Because::Slow) {
                return Some(Ok(value));
            }
            if soft.is_some() {
                waited = passenger.wait(patience).await;
            }
        }
        match waited {
            Waited::Landed(Ok(kept)) => self.landed(kept, quest, boarded).map(Ok),
            Waited::Landed(Err(error)) => {
                let instead = self.stand_in(quest, Because::Failed);
                Some(instead.ok_or(error))
            }
            Waited::TooLong | Waited::Gone => None,
        }
    }

    /// What a landed value is to somebody who waited. Whoever has not begun the flight may know of something that
    /// was invalidated after it began. What was computed since he asked is as good as his own, whatever was
    /// invalidated meanwhile and whether that can be known or not.
    fn landed(&self, kept: Kept, quest: &Quest, boarded: &Boarded) -> Option<Cached<T>> {
        let (meta, now) = (kept.meta(), self.clock.now());
        // Flights go by hashes; what they bring is compared in full.
        let same = self.is_of(meta.subject.key(), &quest.identity);
        let own = boarded.leads || meta.began.is_some_and(|began| began > boarded.asked);
        let takes = own || {
            let grace = quest.terms.revalidate.max(quest.terms.error);
            // One that was found stale is for those whose options say so.
            let lives = meta.began.is_some() || now < meta.life.fresh_until.plus(grace);
            lives && meta.verdict(&self.journal, now) == Verdict::Fresh
        };
        if same && takes { kept.typed() } else { None }
    }

    /// What memory has that may be served instead.
    fn stand_in(&self, quest: &Quest, because: Because) -> Option<Cached<T>> {
        match self.look_for(quest) {
            Look::Fresh(value) | Look::Early(value) => Some(value),
            Look::Stale { value, error, .. } if error || because == Because::Slow => {
                self.tally.stale.one();
                Some(value)
            }
            _ => None,
        }
    }
}

/// How long a caller waits for the journal's word; longer than Redis takes to answer.
const WORD_MAX: Duration = Duration::from_millis(50);
