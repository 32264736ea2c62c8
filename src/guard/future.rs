//! The answer to a guarded request, on its way.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::guard::admission::{Permit, Waiting};
use crate::guard::body::{GuardBody, LongLived};
use crate::guard::engine::Guard;
use crate::guard::pressure::Pressure;
use crate::refusal::Refusal;
use crate::response::refuse;

pin_project! {
    /// The future of [`GuardService`](crate::guard::GuardService): refused, under way, or in the queue.
    #[derive(Debug)]
    pub struct GuardFuture<S, ReqBody, F> {
        #[pin]
        journey: Journey<S, ReqBody, F>,
        version: Version,
    }
}

pin_project! {
    #[project = StageProj]
    #[derive(Debug)]
    enum Journey<S, ReqBody, F> {
        /// Answered here.
        Ready { refusal: Option<Refusal>, pressure: Pressure },
        /// With the inner service; the permit goes over to the answer's body.
        Forward { #[pin] future: F, permit: Option<Permit> },
        /// Waiting for a slot. Boxed, because the request and the service wait along.
        Slow { queued: Pin<Box<Queued<S, ReqBody>>> },
    }
}

pin_project! {
    #[derive(Debug)]
    struct Queued<S, ReqBody> {
        #[pin]
        waiting: Waiting,
        guard: Guard,
        // Ready to be called, as it was asked to be before the request came.
        service: S,
        request: Option<Request<ReqBody>>,
    }
}

impl<S, ReqBody, F> GuardFuture<S, ReqBody, F> {
    /// Refused at the entrance.
    pub(crate) const fn refused(refusal: Refusal, pressure: Pressure, version: Version) -> Self {
        let refusal = Some(refusal);
        Self {
            journey: Journey::Ready { refusal, pressure },
            version,
        }
    }

    /// Admitted; `future` is the inner service's.
    pub(crate) const fn admitted(future: F, permit: Permit, version: Version) -> Self {
        let permit = Some(permit);
        Self {
            journey: Journey::Forward { future, permit },
            version,
        }
    }

    /// Sent to the queue with a ready service to call afterwards.
    pub(crate) fn queued(
        waiting: Waiting,
        guard: Guard,
        service: S,
        request: Request<ReqBody>,
    ) -> Self {
        let version = request.version();
        let queued = Box::pin(Queued {
            waiting,
            guard,
            service,
            request: Some(request),
        });
        Self {
            journey: Journey::Slow { queued },
            version,
        }
    }
}

impl<S, ReqBody, ResBody> Future for GuardFuture<S, ReqBody, S::Future>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body<Data = Bytes>,
{
    type Output = Result<Response<GuardBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let version = *this.version;
        loop {
            let next = match this.journey.as_mut().project() {
                StageProj::Ready { refusal, pressure } => {
                    // Polled again after its answer: pending for ever, like a permit without a slot.
                    let Some(refusal) = refusal.take() else {
                        return Poll::Pending;
                    };
                    let response = refuse(refusal).map(GuardBody::refusal);
                    return Poll::Ready(Ok(deliver(response, *pressure, version)));
                }
                StageProj::Forward { future, permit } => {
                    let response = match ready!(future.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            *permit = None;
                            return Poll::Ready(Err(error));
                        }
                    };
                    let permit = permit.take().unwrap_or_else(Permit::unguarded);
                    let pressure = permit.pressure();
                    let long_lived = response.extensions().get::<LongLived>().is_some();
                    let permit = Some(permit).filter(|_| !long_lived);
                    let response = response.map(|body| GuardBody::admitted(body, permit));
                    return Poll::Ready(Ok(deliver(response, pressure, version)));
                }
                StageProj::Slow { queued } => {
                    let queued = queued.as_mut().project();
                    match ready!(queued.waiting.poll(cx)) {
                        Ok(permit) => {
                            let Some(request) = queued.request.take() else {
                                return Poll::Pending;
                            };
                            let future = queued.service.call(request);
                            let permit = Some(permit);
                            Journey::Forward { future, permit }
                        }
                        Err(refusal) => Journey::Ready {
                            refusal: Some(refusal),
                            pressure: queued.guard.pressure(),
                        },
                    }
                }
            };
            this.journey.set(next);
        }
    }
}

/// Marks the answer: at severe pressure the connection ends with it, because an idle connection's
/// buffers are memory as well, and a client that comes back may be sent to another instance.
///
/// RFC 9112 §9.6: "The "close" connection option is defined as a signal that the sender will close
/// this connection after completion of the response." HTTP/2 has no such field (RFC 9113 §8.2.2),
/// and a connection that switches protocols (RFC 9110 §15.2.2) is no longer HTTP's to end.
fn deliver<B>(mut response: Response<B>, pressure: Pressure, version: Version) -> Response<B> {
    if pressure >= Pressure::Severe
        && version <= Version::HTTP_11
        && response.status() != StatusCode::SWITCHING_PROTOCOLS
    {
        // Added to what is there: the field is a list, and its other options stay true.
        response
            .headers_mut()
            .append(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severe_pressure_ends_connections_of_http_1_only() {
        for (pressure, version, status, closes) in [
            (Pressure::High, Version::HTTP_11, 200, false),
            (Pressure::Severe, Version::HTTP_11, 200, true),
            (Pressure::Critical, Version::HTTP_10, 503, true),
            (Pressure::Severe, Version::HTTP_2, 200, false),
            (Pressure::Critical, Version::HTTP_3, 200, false),
            (Pressure::Critical, Version::HTTP_11, 101, false),
            (Pressure::Unknown, Version::HTTP_11, 200, false),
        ] {
            let response = Response::builder().status(status).body(()).unwrap();
            let response = deliver(response, pressure, version);
            assert_eq!(
                response.headers().contains_key(CONNECTION),
                closes,
                "{pressure:?} {version:?} {status}"
            );
        }
    }
}
