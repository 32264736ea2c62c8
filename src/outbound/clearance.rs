//! A request's way past its remote's quota: let through, waiting, or refused.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::clock::Moment;
use crate::event::Event;
use crate::outbound::remote::{Arrival, Remote, Step};
use crate::refusal::Refusal;

/// What [`RemoteQuota::ask`](crate::outbound::RemoteQuota::ask) decided.
#[derive(Debug)]
#[must_use = "dropping a clearance that said yes counts the request as sent"]
pub enum Clearance {
    /// Send the request, and tell what came of it.
    Go(UnderWay),
    /// Not yet: wait.
    Wait(Waiting),
    /// Not within the time a request may wait.
    Refused(Refusal),
}

impl Clearance {
    /// Waits if need be.
    ///
    /// # Errors
    ///
    /// [`Refusal::OverQuota`], which names the remote as its rule.
    pub async fn granted(self) -> Result<UnderWay, Refusal> {
        match self {
            Self::Go(under_way) => Ok(under_way),
            Self::Wait(waiting) => waiting.await,
            Self::Refused(refusal) => Err(refusal),
        }
    }

    pub(crate) fn of(remote: Arc<Remote>) -> Self {
        match remote.arrive() {
            Arrival::Go => Self::Go(UnderWay::begun(remote)),
            Arrival::Refused(retry_after) => Self::Refused(remote.refuse(retry_after)),
            Arrival::Wait(ticket) => {
                // The ticket is in good hands before anything that could fail is called.
                let remote = Some(remote);
                Self::Wait(Waiting::begun(InLine { ticket, remote }))
            }
        }
    }
}

/// A request that is under way to a remote, and counted. Tell what came of it; dropped without a word it
/// counts as sent and not answered, until the remote says better.
#[must_use = "say what came of the request"]
pub struct UnderWay {
    /// `None` once it was told, and where quotas are not honoured.
    remote: Option<Arc<Remote>>,
    sent: Moment,
}

impl UnderWay {
    fn begun(remote: Arc<Remote>) -> Self {
        Self {
            sent: remote.desk.clock.now(),
            remote: Some(remote),
        }
    }

    /// One that nobody counts.
    pub(crate) const fn uncounted() -> Self {
        Self {
            remote: None,
            sent: Moment::from_nanos(0),
        }
    }

    /// The remote has answered: learns what it says about its quota.
    pub fn answered(mut self, status: StatusCode, headers: &HeaderMap) {
        if let Some(remote) = self.remote.take() {
            remote.hear(self.sent, status, headers);
        }
    }

    /// The request came to nothing, and the remote has probably not counted it: there was no connection.
    pub fn failed(mut self) {
        if let Some(remote) = self.remote.take() {
            remote.give_back();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(remote) = self.remote.take() {
            remote.give_up();
        }
    }
}

impl fmt::Debug for UnderWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.remote.as_ref().map(|remote| remote.name());
        f.debug_struct("UnderWay").field("remote", &remote).finish()
    }
}

pin_project! {
    /// A place in the line before a remote, as a future: ready with a request [`UnderWay`], or with the
    /// reason why not.
    ///
    /// Served in the order of arrival, as soon as the remote's quota allows. Refuses once the budget,
    /// [`QuotaConfig::wait_max`](crate::outbound::QuotaConfig::wait_max), has passed, and before that as
    /// soon as it is known that it will not do. Cancel safe: dropping it at any time leaves the line.
    /// Pending for ever when polled after it was ready.
    #[derive(Debug)]
    #[must_use = "a place in line that nobody polls holds up those behind it"]
    pub struct Waiting {
        place: InLine,
        began: Moment,
        deadline: Moment,
        // When the sleep ends, on our clock.
        wakes: Option<Moment>,
        #[pin]
        sleep: Sleep,
    }
}

impl Waiting {
    fn begun(place: InLine) -> Self {
        let (mut began, mut deadline) = (Moment::default(), Moment::default());
        if let Some(remote) = &place.remote {
            began = remote.desk.clock.now();
            deadline = began.plus(remote.desk.wait_max);
        }
        Self {
            place,
            began,
            deadline,
            wakes: None,
            sleep: tokio::time::sleep(deadline.since(began)),
        }
    }
}

/// A ticket, given back on drop.
struct InLine {
    ticket: u64,
    /// `None` once the wait is over.
    remote: Option<Arc<Remote>>,
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(remote) = self.remote.take() {
            remote.leave(self.ticket);
            remote.desk.stand_up();
        }
    }
}

impl fmt::Debug for InLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = self.remote.as_ref().map(|remote| remote.name());
        f.debug_struct("InLine")
            .field("remote", &remote)
            .field("ticket", &self.ticket)
            .finish()
    }
}

impl Future for Waiting {
    type Output = Result<UnderWay, Refusal>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let Some(remote) = &this.place.remote else {
                return Poll::Pending;
            };
            let step = remote.step(this.place.ticket, *this.deadline, cx.waker());
            let at = match step {
                Step::Sleep(at) => at,
                Step::Go | Step::Refused(_) => {
                    let Some(remote) = this.place.remote.take() else {
                        return Poll::Pending;
                    };
                    remote.desk.stand_up();
                    return Poll::Ready(match step {
                        Step::Refused(retry_after) => {
                            remote.leave(this.place.ticket);
                            Err(remote.refuse(retry_after))
                        }
                        _ => Ok(went(remote, *this.began)),
                    });
                }
            };
            if *this.wakes != Some(at) {
                *this.wakes = Some(at);
                let now = remote.desk.clock.now();
                this.sleep.set(tokio::time::sleep(at.since(now)));
            }
            if this.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Two clocks need not agree to the millisecond: if it is too early by ours, sleep again.
            *this.wakes = None;
        }
    }
}

/// A request goes after having waited.
fn went(remote: Arc<Remote>, began: Moment) -> UnderWay {
    // It is in good hands before anybody is told.
    let under_way = UnderWay::begun(remote);
    if let Some(remote) = &under_way.remote {
        let waited = under_way.sent.since(began);
        let name = &**remote.name();
        let event = Event::RemoteQuotaWaited {
            remote: name,
            waited,
        };
        remote.desk.events.emit(event);
    }
    under_way
}
