//! Who comes in: admitted, waiting, or refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::clock::{Clock, Moment};
use crate::event::{Event, Events};
use crate::guard::pressure::{Pressure, PressureCell};
use crate::guard::slots::{Place, Slots};
use crate::refusal::Refusal;

/// What [`Guard::admit`](crate::guard::Guard::admit) decided.
#[derive(Debug)]
#[must_use = "dropping an admission gives its slot or its place in the queue back"]
pub enum Admission {
    /// Come in; the slot is held until the permit is dropped.
    Admitted(Permit),
    /// All slots are taken: wait in the queue.
    Wait(Waiting),
    /// Turned away.
    Refused(Refusal),
}

/// A slot. Dropping it gives the slot to the first in the queue, or back.
#[derive(Debug)]
#[must_use = "dropping a permit gives its slot back"]
pub struct Permit {
    /// `None` in a guard that is switched off.
    entrance: Option<Arc<Entrance>>,
}

impl Permit {
    /// A permit of a guard that is switched off: it holds no slot and knows no pressure.
    pub(crate) const fn unguarded() -> Self {
        Self { entrance: None }
    }

    /// The pressure right now.
    pub(crate) fn pressure(&self) -> Pressure {
        self.entrance
            .as_ref()
            .map_or(Pressure::Unknown, |entrance| entrance.pressure.load())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(entrance) = &self.entrance {
            entrance.slots.release();
        }
    }
}

pin_project! {
    /// A place in the queue, as a future: ready with a [`Permit`], or with the reason why not.
    ///
    /// Served in the order of arrival. Refuses with [`Refusal::Overloaded`] once the queue timeout,
    /// counted from arrival, has passed, and with [`Refusal::MemoryPressure`] as soon as the pressure
    /// becomes critical. Cancel safe: dropping it at any time leaves the queue, and a slot that was
    /// just handed over goes to the next. Pending for ever when polled after it was ready.
    #[derive(Debug)]
    #[must_use = "a place in the queue that nobody polls holds up those behind it"]
    pub struct Waiting {
        place: InLine,
        critical: bool,
        began: Moment,
        #[pin]
        patience: Sleep,
    }
}

/// A ticket of the line, given back on drop.
#[derive(Debug)]
struct InLine {
    ticket: u64,
    /// `None` once the wait is over.
    entrance: Option<Arc<Entrance>>,
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl InLine {
    fn give_up(&mut self) {
        if let Some(entrance) = self.entrance.take() {
            entrance.slots.leave(self.ticket);
        }
    }
}

impl Future for Waiting {
    type Output = Result<Permit, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(entrance) = this.place.entrance.clone() else {
            return Poll::Pending;
        };
        // The order matters: the waker stands in the line before the pressure is looked at, so that
        // a change in between finds it there.
        let handed = entrance.slots.poll(this.place.ticket, cx.waker());
        if entrance.sheds() && !*this.critical {
            this.place.give_up();
            return Poll::Ready(Err(entrance.refuse_for_memory()));
        }
        if handed.is_ready() {
            let waited = entrance.clock.now().since(*this.began);
            // From here on the permit owns the slot, not the ticket.
            this.place.entrance = None;
            return Poll::Ready(Ok(entrance.permit(waited)));
        }
        if this.patience.poll(cx).is_ready() {
            this.place.give_up();
            return Poll::Ready(Err(entrance.refuse_as_overloaded("queue_timeout")));
        }
        Poll::Pending
    }
}

/// The part of a guard that permits and waiters share.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) slots: Slots,
    pub(crate) pressure: PressureCell,
    pub(crate) clock: Clock,
    pub(crate) events: Events,
    pub(crate) queue_timeout: Duration,
    pub(crate) retry_after: Duration,
}

impl Entrance {
    /// Decides about one arrival. `critical` is asked only when it matters: at critical pressure and
    /// before queueing.
    #[inline]
    pub(crate) fn admit(self: &Arc<Self>, critical: impl Fn() -> bool) -> Admission {
        if self.sheds() && !critical() {
            return Admission::Refused(self.refuse_for_memory());
        }
        match self.slots.take() {
            Place::Slot => Admission::Admitted(Arc::clone(self).permit(Duration::ZERO)),
            Place::Nowhere => Admission::Refused(self.refuse_as_overloaded("overloaded")),
            Place::Line(ticket) => {
                // The ticket is in good hands before anything that could fail is called.
                let place = InLine {
                    ticket,
                    entrance: Some(Arc::clone(self)),
                };
                Admission::Wait(Waiting {
                    place,
                    critical: critical(),
                    began: self.clock.now(),
                    patience: tokio::time::sleep(self.queue_timeout),
                })
            }
        }
    }

    /// Takes note of a new level; at the critical one, those who wait are told.
    pub(crate) fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure);
        if pressure >= Pressure::Critical {
            self.slots.wake_all();
        }
    }

    fn sheds(&self) -> bool {
        self.pressure.load() >= Pressure::Critical
    }

    /// The permit for a slot that was taken or handed over.
    fn permit(self: Arc<Self>, waited: Duration) -> Permit {
        // The permit exists before anybody is told: should a recorder panic, its slot goes back.
        let permit = Permit {
            entrance: Some(self),
        };
        if let Some(entrance) = &permit.entrance {
            entrance.events.emit(Event::GuardAdmitted { waited });
        }
        permit
    }

    fn refuse_for_memory(&self) -> Refusal {
        let retry_after = self.retry_after;
        let why = "memory_pressure";
        self.events.emit(Event::GuardRefused { why });
        Refusal::MemoryPressure { retry_after }
    }

    fn refuse_as_overloaded(&self, why: &'static str) -> Refusal {
        let retry_after = self.retry_after;
        self.events.emit(Event::GuardRefused { why });
        Refusal::Overloaded { retry_after }
    }
}
