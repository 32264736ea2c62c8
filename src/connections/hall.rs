//! What all slots of one engine share, and how they are given and taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::connections::config::ConnectionsConfig;
use crate::connections::seat::{Ending, Seat};
use crate::connections::seats::Seats;
use crate::connections::tenants::Tenants;
use crate::event::{Event, Events};
use crate::refusal::Refusal;

/// The count, the seats, the tenants.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) config: ConnectionsConfig,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    /// Never above `config.connections_max`.
    pub(crate) open: AtomicUsize,
    /// Whether nobody new is let in, because memory is short.
    pub(crate) paused: AtomicBool,
    pub(crate) tenants: Tenants,
    seats: Seats,
}

impl Hall {
    pub(crate) fn new(config: ConnectionsConfig, clock: Clock, events: Events) -> Self {
        Self {
            config,
            clock,
            events,
            open: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            tenants: Tenants::default(),
            seats: Seats::default(),
        }
    }

    /// A seat for a connection of `tenant`, or of nobody in particular.
    pub(crate) fn seat(&self, tenant: Option<&str>) -> Result<Arc<Seat>, Refusal> {
        if self.paused.load(Ordering::Relaxed) {
            let retry_after = self.config.retry_after;
            return Err(self.refused("memory_pressure", Refusal::MemoryPressure { retry_after }));
        }
        if !self.count() {
            return Err(self.full("full"));
        }
        let tenant = match tenant {
            None => None,
            Some(tenant) => {
                let most = self.config.per_tenant_max.unwrap_or(usize::MAX);
                let Some(name) = self.tenants.enter(tenant, most) else {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                    return Err(self.full("tenant_full"));
                };
                Some(name)
            }
        };
        let seat = self.seats.add(tenant, self.clock.now());
        self.events.emit(Event::ConnectionOpened);
        Ok(seat)
    }

    /// Counts one more, if there is room for it.
    fn count(&self) -> bool {
        let most = self.config.connections_max;
        let more = |open: usize| (open < most).then_some(open + 1);
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Ends the connection unless it has ended, gives back what it had, and tells its holder.
    pub(crate) fn end(&self, seat: &Seat, ending: Ending) -> bool {
        if !seat.end() {
            return false;
        }
        self.seats.remove(seat);
        if let Some(tenant) = &seat.tenant {
            self.tenants.leave(tenant);
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        seat.closing.notify_waiters();
        let why = ending.name();
        self.events.emit(Event::ConnectionClosed { why });
        true
    }

    /// Ends all that have been silent for longer than `limit`; returns how many.
    pub(crate) fn end_idle(&self, limit: Duration, ending: Ending) -> usize {
        let now = self.clock.now();
        let is_idle = |seat: &Seat, now| seat.idle(now) > limit;
        // Those of a row are looked at first and ended then: one may have spoken meanwhile.
        let end = |seat: &Seat| is_idle(seat, self.clock.now()) && self.end(seat, ending);
        self.seats.each(|seat| is_idle(seat, now), end)
    }

    fn full(&self, why: &'static str) -> Refusal {
        let retry_after = self.config.retry_after;
        self.refused(why, Refusal::TooManyConnections { retry_after })
    }

    fn refused(&self, why: &'static str, refusal: Refusal) -> Refusal {
        self.events.emit(Event::ConnectionRefused { why });
        refusal
    }
}
