//! One computation for all who ask: a task of its own, so that it goes on when whoever asked has left.
//!
//! It looks where memory does not reach: in Redis, and in the cold store. If nothing is there, it asks for the
//! lease, so that of all instances one computes; waits for the one that has it; and computes, if it comes to
//! that. Who waits for it in this process is told as soon as there is a value; it is written behind their backs.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Moment;
use crate::event::Event;
use crate::journal::{Temperature, Verdict};
#[cfg(not(feature = "redis"))]
use crate::tiers::absent::Lease;
use crate::tiers::claiming::{Claiming, Turn, Unfit};
use crate::tiers::computed::Computed;
use crate::tiers::engine::Landing;
use crate::tiers::fault::CacheError;
use crate::tiers::flight::{Boarding, Pilot};
use crate::tiers::held::Cached;
#[cfg(feature = "redis")]
use crate::tiers::lease::Lease;
use crate::tiers::looking::{Away, Found, Look, Quest};
use crate::tiers::storing::{Begun, Sharing};
use crate::tiers::typed::Inner;

/// A flight, before it has begun.
pub(crate) struct Flying<T> {
    pub(crate) inner: Arc<Inner<T>>,
    pub(crate) quest: Quest,
    pub(crate) pilot: Pilot<Landing>,
    /// When what it is to replace ends, if something is there: only what ends later will do instead.
    pub(crate) replaces: Option<Moment>,
    /// What it has found on its way that may stand in.
    pub(crate) stale: Option<Cached<T>>,
}

/// What is known before it is computed.
enum Ready {
    /// It need not be.
    Landed,
    /// It is, under this lease if there is one; the value is for Redis as well if that `shares`.
    Compute { lease: Option<Lease>, shares: bool },
}

/// It is computed, and not written to Redis.
const ALONE: Ready = Ready::Compute {
    lease: None,
    shares: false,
};

impl<T: Send + Sync + 'static> Flying<T> {
    /// Flies to the end.
    pub(crate) async fn fly<F, Fut, V, E>(mut self, compute: F)
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Computed<T>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if self.replaces.is_none()
            && let Look::Fresh(value) | Look::Early(value) = self.inner.look(&self.quest.text)
        {
            // Another flight has landed between the look and the boarding.
            self.pilot.land(Ok(value.kept()));
            return;
        }
        let (lease, shares) = match self.prepare().await {
            Ready::Landed => return,
            Ready::Compute { lease, shares } => (lease, shares),
        };
        if self.replaces.is_none() {
            self.inner.tally.misses.one();
        }
        let begun = self.inner.begin();
        let limit = self.quest.terms.hard_timeout;
        let outcome = under(lease.as_ref(), computing(limit, compute)).await;
        let took = self.inner.clock.now().since(begun.at);
        self.inner.tiers.emit(Event::ValueComputed {
            took,
            failed: outcome.is_err(),
        });
        match outcome {
            Ok(computed) => {
                self.inner.tally.took(took);
                self.arrive(computed, (begun, took), (lease, shares)).await;
            }
            Err(error) => self.fail(error, begun),
        }
    }

    /// There is a value.
    async fn arrive(
        self,
        computed: Computed<T>,
        (begun, took): (Begun, Duration),
        (lease, shares): (Option<Lease>, bool),
    ) {
        let (inner, quest) = (self.inner, self.quest);
        // Writing it down may panic as well as computing it.
        let arrive = || inner.arrived(&quest, computed, (begun, took), shares);
        let Ok(arrived) = catch_unwind(AssertUnwindSafe(arrive)) else {
            return self.pilot.land(Err(CacheError::panicked()));
        };
        self.pilot.land(Ok(arrived.value.kept()));
        if let Some(entry) = arrived.entry {
            let sharing = Sharing {
                lease,
                shares,
                confirmed: false,
            };
            inner.write(&quest, entry, sharing).await;
        }
    }

    /// There is none. Dropping the lease gives it back.
    fn fail(self, error: CacheError, begun: Begun) {
        self.inner.tally.failed.one();
        let (terms, now) = (&self.quest.terms, self.inner.clock.now());
        // It may have been purged since it was found.
        let stands_in = |stale: &Cached<T>| {
            let meta = stale.meta();
            now < meta.life.fresh_until.plus(terms.error)
                && meta.verdict(&self.inner.journal, now) != Verdict::Gone
        };
        if let Some(stale) = self
            .stale
            .filter(|stale| terms.error > Duration::ZERO && stands_in(stale))
        {
            self.inner.tally.stale.one();
            return self.pilot.land(Ok(stale.kept()));
        }
        let lasts = self.quest.terms.ttl_error;
        if lasts > Duration::ZERO {
            self.inner.remember(&self.quest, &error, (begun, lasts));
        }
        self.pilot.land(Err(error));
    }

    /// Looks behind memory, and comes to terms with other instances.
    async fn prepare(&mut self) -> Ready {
        let inner = Arc::clone(&self.inner);
        let found = inner.find_warm(&self.quest).await;
        let is_away = matches!(found, Err(Away));
        let (found, unfit) = found.unwrap_or((Found::Nothing, Unfit::default()));
        match found {
            Found::Fresh(value) if self.is_news(&value) => {
                inner.found(Temperature::Warm, &value);
                return self.land(&value);
            }
            Found::Fresh(_) => {}
            Found::Stale {
                value,
                revalidate: true,
            } if self.replaces.is_none() => {
                if !self.serve_meanwhile(&value) {
                    return Ready::Landed;
                }
            }
            other => {
                if let Found::Stale { value, .. } = other {
                    self.stale = Some(value);
                }
                let cold = inner.find_cold(&self.quest).await;
                if let Found::Fresh(value) = cold
                    && self.is_news(&value)
                {
                    inner.found(Temperature::Cold, &value);
                    inner.share(&self.quest, &value).await;
                    return self.land(&value);
                }
            }
        }
        // What is not stored is not worth waiting for.
        let terms = &self.quest.terms;
        if is_away || terms.warm == Duration::ZERO || terms.ttl == Duration::ZERO {
            return ALONE;
        }
        self.lease(unfit).await
    }

    /// Whether a value is what this flight is for.
    fn is_news(&self, value: &Cached<T>) -> bool {
        let ends = value.meta().life.fresh_until;
        // Other instances write milliseconds down.
        self.replaces
            .is_none_or(|end| ends > end.plus(Duration::from_millis(2)))
    }

    /// Becomes the one who computes, or waits until somebody else has. `unfit` is what is in Redis and of no
    /// use.
    async fn lease(&mut self, mut unfit: Unfit) -> Ready {
        let inner = Arc::clone(&self.inner);
        let mut claiming = Claiming::begin(&inner.tiers, &self.quest.place);
        loop {
            match claiming.next(&unfit).await {
                Turn::Compute(lease) => {
                    return Ready::Compute {
                        lease: Some(lease),
                        shares: true,
                    };
                }
                Turn::Look => match inner.find_warm(&self.quest).await {
                    Ok((Found::Fresh(value), _)) => {
                        inner.found(Temperature::Warm, &value);
                        inner.tally.collapsed.one();
                        return self.land(&value);
                    }
                    // It is of no use either; the next claim is over this one.
                    Ok((_, another)) => unfit = another,
                    Err(Away) => return ALONE,
                },
                Turn::Alone => return ALONE,
            }
        }
    }

    /// Ends the flight with what was found.
    fn land(&mut self, value: &Cached<T>) -> Ready {
        self.pilot.hand_over(Ok(value.kept()));
        Ready::Landed
    }

    /// Lets those who wait have what is stale, and begins a flight of its own for the rest. Says whether it is
    /// the one to fly on.
    fn serve_meanwhile(&mut self, stale: &Cached<T>) -> bool {
        let inner = &self.inner;
        inner.tally.stale.one();
        self.pilot.hand_over(Ok(stale.kept()));
        self.replaces = Some(stale.meta().life.fresh_until);
        let hash = inner.view(&self.quest.text).hash;
        match inner
            .tiers
            .flights()
            .board(hash, inner.clock.now(), Duration::MAX)
        {
            Boarding::Lead(pilot) => {
                self.pilot = pilot;
                true
            }
            Boarding::Follow(_) => false,
        }
    }
}

impl<T: Send + Sync + 'static> Inner<T> {
    /// Computes for one caller alone; nothing is stored.
    pub(crate) async fn alone<F, Fut, V, E>(
        &self,
        quest: &Quest,
        compute: F,
    ) -> Result<Cached<T>, CacheError>
    where
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<V, E>> + Send,
        V: Into<Computed<T>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = self.begin();
        let outcome = computing(quest.terms.hard_timeout, compute).await;
        let took = self.clock.now().since(begun.at);
        self.tiers.emit(Event::ValueComputed {
            took,
            failed: outcome.is_err(),
        });
        match outcome {
            Ok(computed) => {
                self.tally.took(took);
                let arrived = self.arrived(quest, computed.unstored(), (begun, took), false);
                Ok(arrived.value)
            }
            Err(error) => {
                self.tally.failed.one();
                Err(error)
            }
        }
    }
}

/// Computes within the limit. A panic is an error like others.
async fn computing<T, F, Fut, V, E>(
    limit: Option<Duration>,
    compute: F,
) -> Result<Computed<T>, CacheError>
where
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<V, E>> + Send,
    V: Into<Computed<T>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let computed = async {
        match compute().await {
            Ok(value) => Ok(value.into()),
            Err(error) => Err(CacheError::failed(error)),
        }
    };
    let mut computed = pin!(computed);
    let caught = std::future::poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| computed.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(Err(CacheError::panicked())))
    });
    match limit {
        None => caught.await,
        Some(limit) => {
            let timed = tokio::time::timeout(limit, caught).await;
            timed.unwrap_or(Err(CacheError::timed_out(limit)))
        }
    }
}

/// Goes on putting off the lease's end while the work lasts.
async fn under<R>(lease: Option<&Lease>, work: impl Future<Output = R>) -> R {
    let Some(lease) = lease else {
        return work.await;
    };
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(lease.lasts() / 3) => {
                // One that is lost, or cannot be put off, changes nothing: what is written is fenced.
                let _ = lease.extend().await;
            }
        }
    }
}
