//! Computing a value before somebody waits for it: in the same flights and under the same leases as for callers.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};
use crate::journal::Verdict;
use crate::tiers::computed::Computed;
use crate::tiers::fault::KEY_BYTES_MAX;
use crate::tiers::flight::Boarding;
use crate::tiers::flying::Flying;
use crate::tiers::looking::Quest;
use crate::tiers::options::EntryOptions;
use crate::tiers::path::Path;
use crate::tiers::typed::{Inner, TypedCache};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) renewed: Renewed,
    /// When the computation began and ended, where it came to that.
    pub(crate) computing: Option<(Moment, Moment)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewed {
    /// It was there: in memory, in Redis, or in the cold store.
    Found,
    /// Somebody here was about to compute it.
    Joined,
    /// It was computed.
    Computed,
    /// Computing it has failed, or took too long.
    Failed,
}

/// What memory has of it.
enum Standing {
    /// It is good for a while.
    Good,
    /// It leaves memory soon, and is good elsewhere.
    Leaving,
    /// It ends then, or there is nothing.
    Ends(Option<Moment>),
}

impl<T: Send + Sync + 'static> TypedCache<T> {
    /// How long its values are fresh with these options.
    pub(crate) fn ttl(&self, options: &EntryOptions) -> Duration {
        self.inner.terms(options).ttl
    }

    /// Sees to it that a value is in memory that is good for longer than `lead`. The text is a key's.
    ///
    /// # Cancellation
    ///
    /// Whoever waits for the computation begins one of their own.
    pub(crate) async fn renew<F, Fut, V, E>(
        &self,
        text: Arc<str>,
        (options, lead): (&EntryOptions, Duration),
        compute: F,
    ) -> Renewal
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Computed<T>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if text.len() > KEY_BYTES_MAX {
            return without(Renewed::Failed);
        }
        let inner = &self.inner;
        let quest = inner.quest(text, inner.terms(options));
        let replaces = match inner.standing(&quest, lead) {
            Standing::Good => return without(Renewed::Found),
            // What Redis has of it is taken into memory for another stay.
            Standing::Leaving if inner.find_warm(&quest).await.is_ok() => {
                return without(Renewed::Found);
            }
            Standing::Leaving => None,
            Standing::Ends(end) => end,
        };
        let hash = inner.view(&quest.text).hash;
        let wait = inner.tiers.config().flight_wait;
        let boarding = inner.tiers.flights().board(hash, inner.clock.now(), wait);
        match boarding {
            Boarding::Follow(passenger) => {
                passenger.wait(wait).await;
                without(Renewed::Joined)
            }
            Boarding::Lead(pilot) => {
                let watch = &Watch::new(inner.clock.clone());
                let watched = move || async move {
                    watch.note(|noted, now| noted.began = Some(now));
                    let outcome = compute().await;
                    watch.note(|noted, now| {
                        (noted.ended, noted.succeeded) = (Some(now), outcome.is_ok());
                    });
                    outcome
                };
                let flying = Flying {
                    inner: Arc::clone(inner),
                    pilot,
                    replaces,
                    quest: quest.clone(),
                    stale: None,
                };
                let flight = flying.fly(watched);
                Path::here().through(quest.identity, flight).await;
                watch.renewal()
            }
        }
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// Looks without a trace.
    fn standing(&self, quest: &Quest, lead: Duration) -> Standing {
        let Some(kept) = self.space.peek(&self.view(&quest.text)) else {
            return Standing::Ends(None);
        };
        let now = self.clock.now();
        let life = kept.meta().life;
        let is_fresh = kept.meta().verdict(&self.journal, now) == Verdict::Fresh;
        let soon = now.plus(lead);
        if !is_fresh || now >= life.fresh_until || kept.typed::<T>().is_none() {
            Standing::Ends(None)
        } else if soon >= life.fresh_until {
            Standing::Ends(Some(life.fresh_until))
        } else if soon >= life.hot_until {
            Standing::Leaving
        } else {
            Standing::Good
        }
    }
}

const fn without(renewed: Renewed) -> Renewal {
    Renewal {
        renewed,
        computing: None,
    }
}

/// Takes the time of a computation, and notes what it comes to.
struct Watch {
    clock: Clock,
    noted: Mutex<Noted>,
}

#[derive(Clone, Copy, Default)]
struct Noted {
    began: Option<Moment>,
    ended: Option<Moment>,
    succeeded: bool,
}

impl Watch {
    fn new(clock: Clock) -> Self {
        Self {
            clock,
            noted: Mutex::default(),
        }
    }

    fn note(&self, change: impl FnOnce(&mut Noted, Moment)) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut noted, self.clock.now());
    }

    fn renewal(&self) -> Renewal {
        let mut renewal = without(Renewed::Found);
        self.note(|noted, now| {
            // One that never ended has panicked, or took too long.
            let end = noted.ended.unwrap_or(now);
            renewal.computing = noted.began.map(|began| (began, end));
            renewal.renewed = match (noted.began, noted.succeeded) {
                (None, _) => Renewed::Found,
                (Some(_), true) => Renewed::Computed,
                (Some(_), false) => Renewed::Failed,
            };
        });
        renewal
    }
}
