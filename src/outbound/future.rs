//! The answer to a request on its way out.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::outbound::clearance::{UnderWay, Waiting};
use crate::refusal::Refusal;
use crate::response::{AnswerBody, refuse};

pin_project! {
    /// The future of a [`QuotaService`](crate::outbound::QuotaService): refused, under way, or waiting.
    #[derive(Debug)]
    pub struct QuotaFuture<S, ReqBody, F> {
        #[pin]
        journey: Journey<S, ReqBody, F>,
    }
}

pin_project! {
    #[project = JourneyProj]
    #[derive(Debug)]
    enum Journey<S, ReqBody, F> {
        // Answered here.
        Ready { refusal: Option<Refusal> },
        // With the inner service.
        Forward { #[pin] future: F, under_way: Option<UnderWay> },
        // Waiting for the quota. Boxed, because the request and the service wait along.
        Wait { waiter: Pin<Box<Waiter<S, ReqBody>>> },
    }
}

pin_project! {
    #[derive(Debug)]
    struct Waiter<S, ReqBody> {
        #[pin]
        waiting: Waiting,
        // Ready to be called, as it was asked to be before the request came.
        service: S,
        request: Option<Request<ReqBody>>,
    }
}

impl<S, ReqBody, F> QuotaFuture<S, ReqBody, F> {
    pub(crate) const fn refused(refusal: Refusal) -> Self {
        let refusal = Some(refusal);
        Self {
            journey: Journey::Ready { refusal },
        }
    }

    pub(crate) const fn sent(future: F, under_way: UnderWay) -> Self {
        let under_way = Some(under_way);
        Self {
            journey: Journey::Forward { future, under_way },
        }
    }

    pub(crate) fn waiting(waiting: Waiting, service: S, request: Request<ReqBody>) -> Self {
        let waiter = Box::pin(Waiter {
            waiting,
            service,
            request: Some(request),
        });
        Self {
            journey: Journey::Wait { waiter },
        }
    }
}

impl<S, ReqBody, ResBody> Future for QuotaFuture<S, ReqBody, S::Future>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Output = Result<Response<AnswerBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.journey.as_mut().project() {
                JourneyProj::Ready { refusal } => {
                    // Polled again after its answer: pending for ever, as when it had waited.
                    let Some(refusal) = refusal.take() else {
                        return Poll::Pending;
                    };
                    return Poll::Ready(Ok(refuse(refusal)));
                }
                JourneyProj::Forward { future, under_way } => {
                    let answer = ready!(future.poll(cx));
                    if let Some(under_way) = under_way.take() {
                        told(under_way, &answer);
                    }
                    return Poll::Ready(answer.map(|response| response.map(AnswerBody::service)));
                }
                JourneyProj::Wait { waiter } => {
                    let waiter = waiter.as_mut().project();
                    match ready!(waiter.waiting.poll(cx)) {
                        Ok(under_way) => {
                            let Some(request) = waiter.request.take() else {
                                return Poll::Pending;
                            };
                            let future = waiter.service.call(request);
                            let under_way = Some(under_way);
                            Journey::Forward { future, under_way }
                        }
                        Err(refusal) => {
                            let refusal = Some(refusal);
                            Journey::Ready { refusal }
                        }
                    }
                }
            };
            this.journey.set(next);
        }
    }
}

/// Says what came of a request. What a layer of our own has refused on the way, no remote has seen.
fn told<B, E>(under_way: UnderWay, answer: &Result<Response<B>, E>) {
    match answer {
        Ok(response) if response.extensions().get::<Refusal>().is_none() => {
            under_way.answered(response.status(), response.headers());
        }
        _ => under_way.failed(),
    }
}
