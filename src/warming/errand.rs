//! What is done ahead of time, and by whom.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::tiers::{Computed, EntryOptions, Renewal, TypedCache};
use crate::warming::key::WarmKey;
use crate::warming::recipe::Recipe;

/// One thing to do, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Errand {
    /// A value of a cache.
    Entry(Recipe),
    /// What a schedule is for.
    Scheduled(Arc<str>),
    /// What is done for one user.
    User { warmer: Arc<str>, user: Arc<str> },
}

pub(crate) type Boxed<R> = Pin<Box<dyn Future<Output = R> + Send>>;

/// Whether it was done.
pub(crate) type Done = bool;

/// Computes values of one cache.
pub(crate) trait Computes: Send + Sync {
    /// Sees to it that a value is in memory that is good for longer than `lead`.
    fn renew(&self, recipe: &Recipe, lead: Duration) -> Boxed<Renewal>;
}

/// A cache, and how a value of it is computed.
pub(crate) struct Computing<T, F> {
    cache: TypedCache<T>,
    options: EntryOptions,
    compute: Arc<F>,
}

impl<T: Send + Sync + 'static, F> Computing<T, F> {
    pub(crate) fn new(cache: &TypedCache<T>, options: &EntryOptions, compute: F) -> Self {
        Self {
            cache: cache.clone(),
            options: options.clone(),
            compute: Arc::new(compute),
        }
    }
}

impl<T, F, Fut, V, E> Computes for Computing<T, F>
where
    T: Send + Sync + 'static,
    F: Fn(WarmKey) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: Into<Computed<T>> + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    fn renew(&self, recipe: &Recipe, lead: Duration) -> Boxed<Renewal> {
        let tenant: Option<Arc<str>> = recipe.tenant().map(Arc::from);
        let (cache, options) = (self.cache.of(tenant.clone()), self.options.clone());
        let (compute, text) = (Arc::clone(&self.compute), Arc::<str>::from(recipe.key()));
        let key = WarmKey::new(tenant, Arc::clone(&text));
        Box::pin(async move {
            cache
                .renew(text, (&options, lead), move || compute(key))
                .await
        })
    }
}

/// What is done for one user, or at a time. A panic is a failure like others.
pub(crate) type Work<A> = Arc<dyn Fn(A) -> Boxed<Done> + Send + Sync>;

/// Makes work of a closure.
pub(crate) fn work<A, F, Fut, E>(work: F) -> Work<A>
where
    A: Send + 'static,
    F: Fn(A) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: fmt::Display,
{
    let work = Arc::new(work);
    Arc::new(move |about| {
        let work = Arc::clone(&work);
        Box::pin(async move {
            // Called within, so that a panic of the closure itself is caught as well.
            let working = async move { work(about).await };
            let mut working = pin!(working);
            std::future::poll_fn(|cx| {
                let polled = catch_unwind(AssertUnwindSafe(|| working.as_mut().poll(cx)));
                match polled {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(Ok(()))) => Poll::Ready(true),
                    Ok(Poll::Ready(Err(error))) => {
                        tracing::warn!(target: "tower_keep", %error, "a warmer failed");
                        Poll::Ready(false)
                    }
                    Err(_) => Poll::Ready(false),
                }
            })
            .await
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_fails_or_panics_at_any_time_is_not_done() {
        let well = work(|()| async { Ok::<_, &str>(()) });
        assert!(well(()).await);
        let fails = work(|()| async { Err("no") });
        assert!(!fails(()).await);
        let panics = work(|user: u8| {
            assert!(user != 7, "the closure itself");
            async move {
                tokio::task::yield_now().await;
                panic!("its future: {user}");
                #[expect(unreachable_code, reason = "names the type")]
                Ok::<_, &str>(())
            }
        });
        assert!(!panics(7).await);
        assert!(!panics(8).await);
    }
}
