//! The task of one handler: takes what waits for it, one after the other, and outlives whatever it does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::alerts::alert::Alert;
use crate::alerts::handler::{AlertError, AlertHandler};
use crate::alerts::outbox::Outbox;
use crate::task::Spawner;

/// A handler with its own queue and its own task, so that it holds up nobody else.
pub(crate) struct Delivery {
    handler: Box<dyn AlertHandler>,
    pub(crate) outbox: Outbox,
    patience: Duration,
    told: AtomicU64,
    failed: AtomicU64,
}

/// How alerts reached their handlers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DeliveryFigures {
    /// Handlers there are.
    pub handlers: usize,
    /// Alerts that a handler took, each handler counted for itself.
    pub told: u64,
    /// Alerts that a handler failed to take three times.
    pub failed: u64,
    /// Alerts that had to make room for later ones, or came after shutdown.
    pub dropped: u64,
    /// Alerts that wait.
    pub waiting: usize,
}

impl Delivery {
    pub(crate) fn new(handler: Box<dyn AlertHandler>, places: usize, patience: Duration) -> Self {
        Self {
            handler,
            outbox: Outbox::new(places),
            patience,
            told: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Tells what waits until the outbox is closed and empty.
    pub(crate) async fn run(self: Arc<Self>, spawner: Spawner) {
        while let Some(alert) = self.outbox.next().await {
            match self.deliver(&alert, &spawner).await {
                Ok(()) => &self.told,
                Err(error) => {
                    tracing::warn!(
                        target: "tower_keep", rule = &*alert.rule, state = alert.state.name(), %error,
                        "an alert's handler failed"
                    );
                    &self.failed
                }
            }
            .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tries it a few times.
    async fn deliver(&self, alert: &Alert, spawner: &Spawner) -> Result<(), AlertError> {
        let mut outcome = self.attempt(alert).await;
        for pause in PAUSES {
            if outcome.is_ok() {
                break;
            }
            // Once the stack shuts down there is no time to wait for better ones.
            tokio::select! {
                biased;
                () = spawner.stopped() => {}
                () = tokio::time::sleep(pause) => {}
            }
            outcome = self.attempt(alert).await;
        }
        outcome
    }

    async fn attempt(&self, alert: &Alert) -> Result<(), AlertError> {
        match tokio::time::timeout(self.patience, self.unpanicking(alert)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("it took longer than {:?}", self.patience).into()),
        }
    }

    /// A panic, in the call or in its future, is a failure like another.
    async fn unpanicking(&self, alert: &Alert) -> Result<(), AlertError> {
        let mut telling = Box::pin(async { self.handler.tell(alert.clone()).await });
        let unpanicking = std::future::poll_fn(move |cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| telling.as_mut().poll(cx)));
            polled.unwrap_or_else(|_| Err(AlertError::from("it panicked")).into())
        });
        unpanicking.await
    }

    /// Adds what became of its alerts.
    pub(crate) fn add_to(&self, figures: &mut DeliveryFigures) {
        let (waiting, dropped) = self.outbox.figures();
        figures.handlers += 1;
        figures.told += self.told.load(Ordering::Relaxed);
        figures.failed += self.failed.load(Ordering::Relaxed);
        figures.dropped += dropped;
        figures.waiting += waiting;
    }
}

/// How long is waited before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
