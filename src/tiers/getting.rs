//! Asking for a value: answered from memory at once, or a flight for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::clock::Moment;
use crate::tiers::computed::Computed;
use crate::tiers::engine::Landing;
use crate::tiers::fault::{CacheError, KEY_BYTES_MAX};
use crate::tiers::flight::{Boarding, Pilot};
use crate::tiers::flying::Flying;
use crate::tiers::held::Cached;
use crate::tiers::key::{EntryKey, with_text};
use crate::tiers::looking::{Look, Quest};
use crate::tiers::options::EntryOptions;
use crate::tiers::path::Path;
use crate::tiers::typed::{Inner, TypedCache};
use crate::tiers::waiting::Boarded;

/// The future of [`get_or_compute`](TypedCache::get_or_compute). Ready at once where memory has the value.
/// Dropping it leaves the computation running, for whoever asks next.
#[must_use = "nothing is looked up behind memory, and nothing computed, before it is awaited"]
pub struct Getting<T> {
    state: Step<T>,
}

enum Step<T> {
    Ready(Option<Result<Cached<T>, CacheError>>),
    Slow(Pin<Box<dyn Future<Output = Result<Cached<T>, CacheError>> + Send>>),
}

impl<T: Send + Sync + 'static> TypedCache<T> {
    /// The value of `key`: from memory, from Redis, from the cold store, or computed. Of all who ask at one
    /// time, in all instances, one computes, and the others wait for it.
    ///
    /// The computation runs in a task of its own and goes on when its caller leaves, so it owns what it needs.
    /// It returns a `T`, or a [`Computed`] that says more, or an error. It may be run although something
    /// stored is returned: where that is stale, or near its end.
    ///
    /// A value that was there costs a lookup and no allocation (a key of several parts: none as a rule).
    ///
    /// ```
    /// # use tower_keep::{Keep, Profile};
    /// # use tower_keep::tiers::{CacheError, EntryOptions};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let keep = Keep::builder(Profile::development()).build()?;
    /// let names = keep.cache::<String>("name").options(EntryOptions::query_result());
    /// let name = names
    ///     .get_or_compute(7, &EntryOptions::new(), || async { Ok::<_, CacheError>("Ada".to_owned()) })
    ///     .await?;
    /// assert_eq!(*name, "Ada");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`CacheError`]: what the computation returned; that it panicked, took too long, or asked for its own key;
    /// that computations of others take too long; or that the key is too long. Where
    /// [`stale_if_error`](EntryOptions::stale_if_error) allows, what is stale is returned instead.
    pub fn get_or_compute<F, Fut, V, E>(
        &self,
        key: impl EntryKey,
        options: &EntryOptions,
        compute: F,
    ) -> Getting<T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Computed<T>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let inner = &self.inner;
        match with_text(&key, |text| inner.at_once(text).ok_or_else(|| text.into())) {
            Ok(value) => Getting::ready(Ok(value)),
            Err(text) => self.beyond(text, options, compute),
        }
    }

    /// A look further than what memory says at once. Apart, so that a hit is short.
    #[cold]
    #[inline(never)]
    fn beyond<F, Fut, V, E>(&self, text: Arc<str>, options: &EntryOptions, compute: F) -> Getting<T>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<Computed<T>> + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        if text.len() > KEY_BYTES_MAX {
            return Getting::ready(Err(CacheError::key_too_long(text.len())));
        }
        let inner = &self.inner;
        let quest = inner.quest(text, inner.terms(options));
        let asking = ask(Arc::clone(inner), quest, compute);
        Getting {
            state: Step::Slow(Box::pin(asking)),
        }
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// A fresh value from memory.
    #[inline]
    fn at_once(&self, text: &str) -> Option<Cached<T>> {
        let kept = self.space.get(&self.view(text))?;
        if !kept.meta().is_plain(&self.journal, self.clock.now()) {
            return None;
        }
        let value = kept.typed::<T>()?;
        value.meta().count_hit();
        Some(value)
    }
}

impl<T> Getting<T> {
    const fn ready(outcome: Result<Cached<T>, CacheError>) -> Self {
        Self {
            state: Step::Ready(Some(outcome)),
        }
    }
}

impl<T> Future for Getting<T> {
    type Output = Result<Cached<T>, CacheError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            Step::Ready(outcome) => match outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                // Polled after it was done; the contract of `Future` leaves that open.
                None => Poll::Pending,
            },
            Step::Slow(asking) => asking.as_mut().poll(cx),
        }
    }
}

/// Nothing in it is pinned.
impl<T> Unpin for Getting<T> {}

impl<T> std::fmt::Debug for Getting<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Getting").finish_non_exhaustive()
    }
}

/// One caller, until there is a value.
struct Asking<T, F> {
    inner: Arc<Inner<T>>,
    quest: Quest,
    path: Path,
    /// When it began to ask.
    asked: Moment,
    /// Taken when it leads.
    compute: Option<F>,
}

/// Where a caller stands.
enum Stand<T> {
    Done(Result<Cached<T>, CacheError>),
    /// There is nothing, or something stale that may stand in later.
    Without(Option<Cached<T>>),
}

/// Asks until there is a value.
async fn ask<T, F, Fut, V, E>(
    inner: Arc<Inner<T>>,
    quest: Quest,
    compute: F,
) -> Result<Cached<T>, CacheError>
where
    T: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: Into<Computed<T>> + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    let path = Path::here();
    if path.leads_through(&quest.identity) {
        return Err(CacheError::nested(quest.identity));
    }
    let mut asking = Asking {
        asked: inner.clock.now(),
        inner,
        quest,
        path,
        compute: Some(compute),
    };
    asking.inner.space.touched(asking.asked);
    for _ in 0..ROUNDS_MAX {
        let stale = match asking.look().await {
            Stand::Done(outcome) => return outcome,
            Stand::Without(stale) => stale,
        };
        let Some(boarded) = asking.board(stale.as_ref()).await else {
            break;
        };
        let (inner, quest) = (Arc::clone(&asking.inner), asking.quest.clone());
        if let Some(outcome) = inner.wait(&quest, &boarded).await {
            return outcome;
        }
    }
    // Others were of no use to it, so it helps itself.
    match asking.compute.take() {
        Some(compute) => {
            let (inner, quest) = (asking.inner, asking.quest);
            let identity = Arc::clone(&quest.identity);
            let alone = async move { inner.alone(&quest, compute).await };
            asking.path.through(identity, alone).await
        }
        None => Err(CacheError::busy()),
    }
}

impl<T, F, Fut, V, E> Asking<T, F>
where
    T: Send + Sync + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: Into<Computed<T>> + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    /// Looks in memory.
    async fn look(&mut self) -> Stand<T> {
        let inner = Arc::clone(&self.inner);
        let mut look = inner.look_for(&self.quest);
        if matches!(look, Look::Unverified) {
            // Usually it is known in a moment.
            inner.reverified().await;
            look = inner.look_for(&self.quest);
        }
        match look {
            Look::Fresh(value) => Stand::Done(Ok(value)),
            Look::Early(value) => {
                let ends = value.meta().life.fresh_until;
                if self.refresh(ends) {
                    inner.tally.early.one();
                }
                Stand::Done(Ok(value))
            }
            Look::Failed(error) => Stand::Done(Err(error)),
            Look::Unverified | Look::Nothing => Stand::Without(None),
            Look::Stale {
                value,
                revalidate: true,
                ..
            } if self.quest.terms.soft_timeout.is_none() => {
                self.refresh(inner.end_of(&value));
                inner.tally.stale.one();
                Stand::Done(Ok(value))
            }
            Look::Stale { value, .. } => Stand::Without(Some(value)),
        }
    }

    /// Computes behind the caller's back what is there already, unless somebody does. Says whether it does.
    fn refresh(&mut self, ends: Moment) -> bool {
        match (board(&self.inner, &self.quest), self.compute.take()) {
            (Boarding::Lead(pilot), Some(compute)) => {
                let flight = self.flight(pilot, Some(ends), compute);
                self.inner.tiers.spawner().spawn(flight)
            }
            _ => false,
        }
    }

    /// Boards a flight, or begins one. `None` if it has led once, and nothing came of it.
    async fn board(&mut self, stale: Option<&Cached<T>>) -> Option<Boarded> {
        let asked = self.asked;
        match board(&self.inner, &self.quest) {
            Boarding::Follow(passenger) => {
                self.inner.tally.collapsed.one();
                Some(Boarded {
                    passenger,
                    leads: false,
                    asked,
                })
            }
            Boarding::Lead(pilot) => {
                let compute = self.compute.take()?;
                let passenger = pilot.passenger();
                let ends = stale.map(|value| self.inner.end_of(value));
                let flight = self.flight(pilot, ends, compute);
                let spawner = self.inner.tiers.spawner();
                // Once the stack is shut down no task begins; requests that are under way are answered.
                if spawner.is_open() {
                    spawner.spawn(flight);
                } else {
                    flight.await;
                }
                Some(Boarded {
                    passenger,
                    leads: true,
                    asked,
                })
            }
        }
    }

    /// A flight that is ready to begin, to replace what ends then, if something is there.
    fn flight(
        &self,
        pilot: Pilot<Landing>,
        replaces: Option<Moment>,
        compute: F,
    ) -> impl Future<Output = ()> + Send + use<T, F, Fut, V, E> {
        let flying = Flying {
            inner: Arc::clone(&self.inner),
            quest: self.quest.clone(),
            pilot,
            replaces,
            stale: None,
        };
        let identity = Arc::clone(&self.quest.identity);
        self.path.clone().through(identity, flying.fly(compute))
    }
}

impl<T> Inner<T> {
    /// When a stale value has ended, be it that somebody has expired it.
    fn end_of(&self, stale: &Cached<T>) -> Moment {
        stale.meta().life.fresh_until.min(self.clock.now())
    }
}

fn board<T>(inner: &Inner<T>, quest: &Quest) -> Boarding<Landing> {
    let hash = inner.view(&quest.text).hash;
    let wait = inner.tiers.config().flight_wait;
    inner.tiers.flights().board(hash, inner.clock.now(), wait)
}

/// How often a caller waits for somebody else. Each time it was in vain.
const ROUNDS_MAX: u32 = 3;
