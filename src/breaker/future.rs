//! The answer to a call, on its way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;

use crate::breaker::call::Call;
use crate::breaker::outcome::{Classifier, Outcome};
use crate::response::AnswerBody;

pin_project! {
    /// The future of a [`BreakerService`](crate::breaker::BreakerService): answered, or under way.
    ///
    /// Dropping it cancels the call, and counts as the circuit's settings say.
    #[derive(Debug)]
    pub struct BreakerFuture<F> {
        #[pin]
        journey: Journey<F>,
    }
}

pin_project! {
    #[project = JourneyProj]
    #[derive(Debug)]
    enum Journey<F> {
        // Answered here.
        Ready { response: Option<Response<Bytes>> },
        // With the inner service.
        Forward { #[pin] future: F, call: Option<Call>, classifier: Classifier },
    }
}

impl<F> BreakerFuture<F> {
    pub(crate) const fn answered(response: Response<Bytes>) -> Self {
        let response = Some(response);
        Self {
            journey: Journey::Ready { response },
        }
    }

    pub(crate) const fn under_way(future: F, call: Option<Call>, classifier: Classifier) -> Self {
        Self {
            journey: Journey::Forward {
                future,
                call,
                classifier,
            },
        }
    }
}

impl<F, B, E> Future for BreakerFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<AnswerBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().journey.project() {
            JourneyProj::Ready { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response.map(AnswerBody::own))),
                // Polled again after its answer: pending for ever.
                None => Poll::Pending,
            },
            JourneyProj::Forward {
                future,
                call,
                classifier,
            } => {
                let watched = Watched(call);
                let answer = ready!(future.poll(cx));
                let outcome = match &answer {
                    Ok(response) => classifier.outcome(response),
                    Err(_) => Outcome::Failed,
                };
                if let Some(call) = watched.0.take() {
                    call.finish(outcome);
                }
                Poll::Ready(answer.map(|response| response.map(AnswerBody::service)))
            }
        }
    }
}

/// A panic is a failure, also where somebody catches it further outside and drops the future only then.
struct Watched<'a>(&'a mut Option<Call>);

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(call) = self.0.take()
        {
            call.failed();
        }
    }
}
