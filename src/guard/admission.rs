//! Who comes in: admitted, waiting, or refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::clock::Moment;
use crate::event::Event;
use crate::guard::claim::Claim;
use crate::guard::entrance::{Entrance, newcomer};
use crate::guard::line::Ticket;
use crate::guard::pressure::Pressure;
use crate::guard::slots::Place;
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

/// A slot. Dropping it gives the slot to the next in the queue, or back.
#[derive(Debug)]
#[must_use = "dropping a permit gives its slot back"]
pub struct Permit {
    /// `None` in a guard that is switched off.
    held: Option<Held>,
    /// The route's, where it has slots of its own. Held for its drop alone.
    _route: Option<Held>,
}

#[derive(Debug)]
struct Held {
    entrance: Arc<Entrance>,
    /// Where it is learnt how long requests take.
    began: Option<Moment>,
    /// Of those who had to wait.
    ticket: Option<Ticket>,
}

impl Held {
    /// A slot whose holder is not inside yet, so that nothing is learnt from it.
    const fn of(entrance: Arc<Entrance>, ticket: Option<Ticket>) -> Self {
        Self {
            entrance,
            began: None,
            ticket,
        }
    }

    fn begin(&mut self) {
        self.began = self.entrance.began();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.entrance.release(self.ticket, self.began);
    }
}

impl Permit {
    /// A permit of a guard that is switched off: it holds no slot and knows no pressure.
    pub(crate) const fn unguarded() -> Self {
        Self {
            held: None,
            _route: None,
        }
    }

    /// The pressure right now.
    pub(crate) fn pressure(&self) -> Pressure {
        self.held
            .as_ref()
            .map_or(Pressure::Unknown, |held| held.entrance.pressure())
    }
}

pin_project! {
    /// A place in the queue, as a future: ready with a [`Permit`], or with the reason why not.
    ///
    /// The more important come first, then everybody's tenants take turns, each in the order of arrival or,
    /// once the queue has stood for an interval, the newest first. Refuses with [`Refusal::Overloaded`] once
    /// the queue timeout, counted from arrival, has passed, when the queue stands and this wait has grown
    /// too long, or when somebody more important takes the place; with [`Refusal::MemoryPressure`] as soon as
    /// the pressure becomes critical. Cancel safe: dropping it at any time leaves the queue, and a slot that
    /// was just handed over goes to the next. Pending for ever when polled after it was ready.
    #[derive(Debug)]
    #[must_use = "a place in the queue that nobody polls holds up those behind it"]
    pub struct Waiting {
        place: InLine,
        claim: Claim,
        began: Moment,
        // What is still to be entered once the route's own slot is there, and that slot when it is.
        guard: Option<Arc<Entrance>>,
        route: Option<Held>,
        #[pin]
        patience: Sleep,
    }
}

/// A ticket of the line, given back on drop.
#[derive(Debug)]
struct InLine {
    ticket: Ticket,
    /// `None` once the wait is over.
    entrance: Option<Arc<Entrance>>,
    since: Moment,
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(entrance) = self.give_up() {
            let waited = entrance.clock().now().since(self.since);
            entrance.events().emit(Event::GuardLeft { waited });
        }
    }
}

impl InLine {
    fn give_up(&mut self) -> Option<Arc<Entrance>> {
        let entrance = self.entrance.take()?;
        let clock = entrance.clock();
        entrance.wake_pacer(entrance.slots().leave(self.ticket, || clock.now()));
        Some(entrance)
    }
}

impl Future for Waiting {
    type Output = Result<Permit, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Some(entrance) = this.place.entrance.clone() else {
                return Poll::Pending;
            };
            let waited = || entrance.clock().now().since(*this.began);
            // The order matters: the waker stands in the line before the pressure is looked at, so that
            // a change in between finds it there.
            let handed = entrance.slots().poll(this.place.ticket, cx.waker());
            if let Poll::Ready(Err(why)) = handed {
                this.place.entrance = None;
                return Poll::Ready(Err(entrance.refuse_as_overloaded(why, waited())));
            }
            if entrance.sheds() && !this.claim.is_critical() {
                this.place.give_up();
                return Poll::Ready(Err(entrance.refuse_for_memory(waited())));
            }
            if handed.is_pending() {
                if this.patience.as_mut().poll(cx).is_ready() {
                    this.place.give_up();
                    let refusal = entrance.refuse_as_overloaded("queue_timeout", waited());
                    return Poll::Ready(Err(refusal));
                }
                return Poll::Pending;
            }
            // From here on the slot is held, not the ticket.
            this.place.entrance = None;
            let held = Held::of(entrance, Some(this.place.ticket));
            let Some(guard) = this.guard.take() else {
                let waited = held.entrance.clock().now().since(*this.began);
                return Poll::Ready(Ok(permit(held, this.route.take(), waited)));
            };
            *this.route = Some(held);
            let (claim, now) = (*this.claim, guard.clock().now());
            match guard.take(|| newcomer(claim.criticality(), claim.tenant_key(), now)) {
                Place::Slot => {
                    let waited = now.since(*this.began);
                    let held = Held::of(guard, None);
                    return Poll::Ready(Ok(permit(held, this.route.take(), waited)));
                }
                Place::Nowhere => {
                    *this.route = None;
                    let waited = now.since(*this.began);
                    return Poll::Ready(Err(guard.refuse_as_overloaded("overloaded", waited)));
                }
                Place::Line(ticket) => {
                    this.place.ticket = ticket;
                    this.place.since = now;
                    this.place.entrance = Some(guard);
                }
            }
        }
    }
}

/// Decides about one arrival at `guard`, which has to pass `route` first where there is one. `claim` is asked
/// only when it matters: at critical pressure and before queueing.
#[inline]
pub(crate) fn admit(
    guard: &Arc<Entrance>,
    route: Option<&Arc<Entrance>>,
    claim: impl Fn() -> Claim,
) -> Admission {
    guard.look_at_the_clock();
    if guard.sheds() && !claim().is_critical() {
        return Admission::Refused(guard.refuse_for_memory(Duration::ZERO));
    }
    let Some(route) = route else {
        return enter(guard, None, None, claim);
    };
    enter(route, Some(guard), None, claim)
}

/// Asks `first` for a slot, and then `then`, holding `route` meanwhile.
#[inline]
fn enter(
    first: &Arc<Entrance>,
    then: Option<&Arc<Entrance>>,
    route: Option<Held>,
    claim: impl Fn() -> Claim,
) -> Admission {
    let mut came = None;
    let place = first.take(|| {
        let (claim, now) = (claim(), first.clock().now());
        came = Some((claim, now));
        newcomer(claim.criticality(), claim.tenant_key(), now)
    });
    match (place, came) {
        (Place::Slot, _) => {
            let held = Held::of(Arc::clone(first), None);
            match then {
                None => Admission::Admitted(permit(held, route, Duration::ZERO)),
                Some(guard) => enter(guard, None, Some(held), claim),
            }
        }
        (Place::Line(ticket), Some((claim, now))) => {
            // The ticket is in good hands before anything that could fail is called.
            let place = InLine {
                ticket,
                entrance: Some(Arc::clone(first)),
                since: now,
            };
            Admission::Wait(Waiting {
                place,
                claim,
                began: now,
                guard: then.map(Arc::clone),
                route,
                patience: tokio::time::sleep(first.queue_timeout()),
            })
        }
        (Place::Line(_) | Place::Nowhere, _) => {
            Admission::Refused(first.refuse_as_overloaded("overloaded", Duration::ZERO))
        }
    }
}

/// The permit for a slot that was taken or handed over.
fn permit(mut held: Held, mut route: Option<Held>, waited: Duration) -> Permit {
    held.begin();
    route.iter_mut().for_each(Held::begin);
    // The permit exists before anybody is told: should a recorder panic, its slot goes back.
    let permit = Permit {
        held: Some(held),
        _route: route,
    };
    if let Some(held) = &permit.held {
        held.entrance.events().emit(Event::GuardAdmitted { waited });
    }
    permit
}
