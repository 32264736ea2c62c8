//! Which computations a task is in the middle of, so that none waits for itself.

use std::future::Future;
use std::sync::Arc;

tokio::task_local! {
    static PATH: Path;
}

/// The computations that led here, the innermost first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    identity: Arc<str>,
    above: Path,
}

impl Path {
    /// Of the task that asks.
    pub(crate) fn here() -> Self {
        PATH.try_with(Self::clone).unwrap_or_default()
    }

    /// Whether the value of this identity is being computed by whoever asks.
    pub(crate) fn leads_through(&self, identity: &str) -> bool {
        let mut path = self;
        while let Some(step) = &path.0 {
            if *step.identity == *identity {
                return true;
            }
            path = &step.above;
        }
        false
    }

    /// Runs `work`, which computes the value of this identity.
    pub(crate) fn through<F: Future>(
        self,
        identity: Arc<str>,
        work: F,
    ) -> impl Future<Output = F::Output> {
        let step = Step {
            identity,
            above: self,
        };
        PATH.scope(Self(Some(Arc::new(step))), work)
    }
}
