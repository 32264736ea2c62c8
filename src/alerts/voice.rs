//! From the rules to the handlers: asks who speaks, and lets nobody wait for anybody else.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::alerts::alert::Alert;
use crate::alerts::delivery::{Delivery, DeliveryFigures};
use crate::alerts::handler::AlertHandler;
use crate::alerts::outbox::Outbox;
use crate::alerts::speaker::Speaker;
use crate::task::Spawner;

/// Hands on what is to be told.
pub(crate) struct Voice {
    pub(crate) speaker: Speaker,
    outbox: Outbox,
    deliveries: Mutex<Deliveries>,
    places: usize,
    patience: Duration,
}

#[derive(Default)]
struct Deliveries {
    all: Vec<Arc<Delivery>>,
    closed: bool,
}

impl Voice {
    /// One whose handlers have `places` in their queues and `patience` for each alert.
    pub(crate) fn new(speaker: Speaker, places: usize, patience: Duration) -> Self {
        Self {
            speaker,
            outbox: Outbox::new(places),
            deliveries: Mutex::default(),
            places,
            patience,
        }
    }

    /// Gives a handler its queue and its task.
    pub(crate) fn add(&self, handler: Box<dyn AlertHandler>, spawner: &Spawner) {
        let delivery = Arc::new(Delivery::new(handler, self.places, self.patience));
        let running = Arc::clone(&delivery).run(spawner.clone());
        let mut deliveries = self.lock();
        if deliveries.closed || !spawner.spawn(running) {
            delivery.outbox.close();
        }
        deliveries.all.push(delivery);
    }

    /// Lets an alert wait to be told.
    pub(crate) fn tell(&self, alert: Alert) {
        self.outbox.push(alert);
    }

    /// Hands on until the stack shuts down, and then what still waits; after that the handlers' queues are
    /// closed, so that their tasks end when they are empty.
    pub(crate) async fn run(&self, spawner: Spawner, every: Duration) {
        let mut rounds = tokio::time::interval(every);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopped = spawner.stopped();
        let mut stopped = std::pin::pin!(stopped);
        loop {
            tokio::select! {
                biased;
                () = &mut stopped => break,
                alert = self.outbox.next() => match alert {
                    Some(alert) => self.hand_on(alert).await,
                    None => break,
                },
                _ = rounds.tick() => self.look_again().await,
            }
        }
        self.outbox.close();
        while let Some(alert) = self.outbox.next().await {
            self.hand_on(alert).await;
        }
        let mut deliveries = self.lock();
        deliveries.closed = true;
        deliveries
            .all
            .iter()
            .for_each(|delivery| delivery.outbox.close());
    }

    /// Renews the leases held here, and asks for those that others held when they were asked for last.
    async fn look_again(&self) {
        self.speaker.renew().await;
        for alert in self.speaker.unspoken() {
            self.hand_on(alert).await;
        }
    }

    async fn hand_on(&self, alert: Alert) {
        // Whoever has no handlers must not take the word from those that have.
        if self.lock().all.is_empty() || !self.speaker.speaks(&alert).await {
            return;
        }
        for delivery in &self.lock().all {
            delivery.outbox.push(alert.clone());
        }
    }

    pub(crate) fn figures(&self) -> DeliveryFigures {
        let mut figures = DeliveryFigures::default();
        for delivery in &self.lock().all {
            delivery.add_to(&mut figures);
        }
        let (waiting, dropped) = self.outbox.figures();
        figures.waiting += waiting;
        figures.dropped += dropped;
        figures
    }

    fn lock(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice")
            .field("speaker", &self.speaker)
            .field("figures", &self.figures())
            .finish_non_exhaustive()
    }
}
