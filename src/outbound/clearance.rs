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
    /// soon as it is known that it will not do. One that nobody polls is passed over a second after its budget
    /// has, and refused when it is polled after all. Cancel safe: dropping it at any time leaves the line.
    /// Pending for ever when polled after it was ready.
    #[derive(Debug)]
    #[must_use = "a place in line that nobody polls holds up those behind it for as long as it may wait"]
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, HeaderValue};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::event::Events;
    use crate::outbound::config::QuotaConfig;
    use crate::outbound::desk::Desk;
    use crate::outbound::remotes::Remotes;

    /// A remote, and time that passes by hand on its clock and Tokio's alike.
    struct Bench {
        remotes: Remotes,
        desk: Arc<Desk>,
        hand: ManualClock,
    }

    impl Bench {
        fn new(wait: Duration, waiting_max: usize) -> Self {
            let config = QuotaConfig {
                wait_max: wait,
                waiting_max,
                ..QuotaConfig::default()
            };
            let (clock, hand) = Clock::manual();
            Self {
                remotes: Remotes::new(8),
                desk: Arc::new(Desk::new(&config, clock, Events::none())),
                hand,
            }
        }

        fn ask(&self) -> Clearance {
            Clearance::of(self.remotes.at("a.test", &self.desk))
        }

        #[track_caller]
        fn sent(&self) -> UnderWay {
            match self.ask() {
                Clearance::Go(under_way) => under_way,
                other => panic!("{other:?}"),
            }
        }

        #[track_caller]
        fn refused(&self) -> Duration {
            match self.ask() {
                Clearance::Refused(refusal) => refusal.retry_after().unwrap(),
                other => panic!("{other:?}"),
            }
        }

        /// Waits in a task of its own.
        fn waits(&self) -> JoinHandle<Result<UnderWay, Refusal>> {
            match self.ask() {
                Clearance::Wait(waiting) =>
                {
                    #[expect(clippy::disallowed_methods, reason = "a test ends with its tasks")]
                    tokio::spawn(waiting)
                }
                other => panic!("{other:?}"),
            }
        }

        /// Lets time pass in a hundred steps, and everybody do what is due.
        async fn pass(&self, millis: u64) {
            let mut left = millis;
            while left > 0 {
                let step = left.min(1 + millis / 100);
                self.hand.advance(Duration::from_millis(step));
                tokio::time::advance(Duration::from_millis(step)).await;
                settle().await;
                left -= step;
            }
        }
    }

    async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    fn answer(under_way: UnderWay, status: u16, fields: &[(&'static str, &'static str)]) {
        let fields = fields.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let status = StatusCode::from_u16(status).unwrap();
        under_way.answered(status, &fields.collect());
    }

    /// Which of them are done, and with which outcome.
    async fn outcome(task: JoinHandle<Result<UnderWay, Refusal>>) -> Result<UnderWay, Refusal> {
        assert!(task.is_finished(), "it waits still");
        task.await.unwrap()
    }

    const NONE_LEFT: &[(&str, &str)] = &[("ratelimit", "\"a\";r=0;t=2")];

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_goes_when_the_window_begins_and_in_order() {
        let bench = Bench::new(Duration::from_secs(5), 10);
        answer(
            bench.sent(),
            200,
            &[
                ("ratelimit", "\"a\";r=0;t=2"),
                ("ratelimit-policy", "\"a\";q=2;w=60"),
            ],
        );
        let [first, second, third] = [bench.waits(), bench.waits(), bench.waits()];
        bench.pass(1999).await;
        assert!(!first.is_finished(), "not before the end");
        // Up to a tenth of the time later.
        bench.pass(201).await;
        let first = outcome(first).await.unwrap();
        let second = outcome(second).await.unwrap();
        assert!(!third.is_finished(), "the window has two");
        answer(first, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        settle().await;
        assert!(!third.is_finished(), "the second may not be counted yet");
        answer(second, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        settle().await;
        drop(outcome(third).await.unwrap());
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_would_be_too_long_is_refused_at_once() {
        let bench = Bench::new(Duration::from_secs(5), 10);
        answer(bench.sent(), 429, &[("retry-after", "60")]);
        assert!(bench.refused() >= Duration::from_secs(60));
        bench.pass(58_000).await;
        let waits = bench.waits();
        bench.pass(3_000).await;
        drop(outcome(waits).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_wait_are_refused_when_the_remote_says_how_long_it_takes() {
        let bench = Bench::new(Duration::from_secs(5), 10);
        let under_way = [bench.sent(), bench.sent()];
        let mut under_way = under_way.into_iter();
        answer(
            under_way.next().unwrap(),
            200,
            &[("ratelimit", "\"a\";r=1;t=60")],
        );
        let waiting = [bench.waits(), bench.waits(), bench.waits()];
        settle().await;
        assert_eq!(bench.desk.waiting(), 3);
        // The last one was counted, so nothing can change any more before the end.
        answer(
            under_way.next().unwrap(),
            200,
            &[("ratelimit", "\"a\";r=0;t=60")],
        );
        settle().await;
        for task in waiting {
            let refusal = outcome(task).await.unwrap_err();
            assert!(refusal.retry_after().unwrap() >= Duration::from_secs(60));
        }
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_ends_a_wait_for_answers_that_do_not_come() {
        let bench = Bench::new(Duration::from_secs(1), 10);
        let [one, _under_way] = [bench.sent(), bench.sent()];
        answer(one, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        let waits = [bench.waits(), bench.waits()];
        bench.pass(999).await;
        assert!(waits.iter().all(|task| !task.is_finished()));
        bench.pass(2).await;
        for task in waits {
            assert!(outcome(task).await.is_err());
        }
    }

    /// A future that is kept and forgotten.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_not_polled_holds_up_nobody_for_ever() {
        let bench = Bench::new(Duration::from_secs(1), 10);
        let [one, under_way] = [bench.sent(), bench.sent()];
        answer(one, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        let Clearance::Wait(forgotten) = bench.ask() else {
            panic!("there may be one left");
        };
        let behind = bench.waits();
        bench.pass(1_900).await;
        assert!(!behind.is_finished(), "the first may still be polled");
        bench.pass(200).await;
        let refusal = outcome(behind).await.unwrap_err();
        assert!(refusal.retry_after().unwrap() > Duration::ZERO);
        // One that is left over for whoever comes is not kept for the first, who comes too late.
        under_way.failed();
        drop(bench.sent());
        assert!(forgotten.await.is_err());
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_behind_one_that_is_not_polled_goes_when_somebody_comes() {
        let bench = Bench::new(Duration::from_secs(1), 10);
        let [one, under_way] = [bench.sent(), bench.sent()];
        answer(one, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        let Clearance::Wait(forgotten) = bench.ask() else {
            panic!("there may be one left");
        };
        bench.pass(500).await;
        let behind = bench.waits();
        under_way.failed();
        bench.pass(1_510).await;
        assert!(!behind.is_finished(), "nobody has looked");
        let next = bench.ask();
        settle().await;
        drop(outcome(behind).await.unwrap());
        drop((next, forgotten));
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_budget_nobody_waits() {
        let bench = Bench::new(Duration::ZERO, 10);
        let [one, under_way] = [bench.sent(), bench.sent()];
        answer(one, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        assert!(bench.refused() >= Duration::from_secs(59));
        under_way.failed();
        drop(bench.sent());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_away_leaves_the_line_to_the_others() {
        let bench = Bench::new(Duration::from_secs(5), 2);
        answer(bench.sent(), 200, NONE_LEFT);
        let [first, second] = [bench.waits(), bench.waits()];
        settle().await;
        assert!(bench.refused() > Duration::ZERO, "two may wait");
        first.abort();
        settle().await;
        let third = bench.waits();
        settle().await;
        second.abort();
        bench.pass(2201).await;
        let under_way = outcome(third).await.unwrap();
        // Nothing is left behind by those who have gone: one goes ahead, and it is the third.
        let standing = bench.remotes.find("a.test").unwrap().standing();
        assert_eq!((standing.under_way, standing.waiting), (1, 0));
        under_way.failed();
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_dropped_when_its_turn_has_come_hands_it_on() {
        let bench = Bench::new(Duration::from_secs(5), 10);
        let (one, two) = (bench.sent(), bench.sent());
        answer(one, 200, &[("ratelimit", "\"a\";r=1;t=60")]);
        let [first, second] = [bench.waits(), bench.waits()];
        settle().await;
        two.failed();
        // Woken, but dropped before it was polled again.
        first.abort();
        settle().await;
        drop(outcome(second).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_herd_does_not_run_over_a_remote_that_has_just_come_back() {
        let bench = Bench::new(Duration::from_secs(5), 1000);
        answer(bench.sent(), 503, &[("retry-after", "1")]);
        let mut herd: Vec<_> = (0..1000).map(|_| bench.waits()).collect();
        bench.pass(1101).await;
        for most in [1, 2, 4] {
            let (gone, rest): (Vec<_>, _) = herd.into_iter().partition(JoinHandle::is_finished);
            assert_eq!(gone.len(), most);
            herd = rest;
            let mut gone = gone.into_iter();
            answer(outcome(gone.next().unwrap()).await.unwrap(), 200, &[]);
            for task in gone {
                outcome(task).await.unwrap().failed();
            }
            settle().await;
        }
        herd.iter().for_each(JoinHandle::abort);
        settle().await;
        assert_eq!(bench.desk.waiting(), 0);
    }

    #[test]
    fn the_futures_are_small_and_travel() {
        fn travels<T: Send>() -> usize {
            size_of::<T>()
        }
        assert!(travels::<UnderWay>() <= 24 && travels::<Waiting>() <= 256);
    }
}
