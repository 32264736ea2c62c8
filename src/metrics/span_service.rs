//! The layer that tells requests to `tracing`.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::metrics::spans::{RequestSpans, Telling};
use crate::response::Uncounted;

/// Tells the requests of the services it is laid around to `tracing`, in spans and events; see
/// [`RequestSpans`]. It belongs outside of all other layers, so that what they log lies within the span.
///
/// Where it is off, or nobody listens even to errors, a request costs some 30 ns more for its wrapped body. Where it
/// is on, one without a span costs some 100 ns: two readings of the clock, a look for `traceparent`, and a box for what
/// is remembered of the request, without which all others would pay for the room that it takes.
#[derive(Clone, Debug)]
pub struct RequestSpanLayer {
    spans: RequestSpans,
}

impl RequestSpanLayer {
    /// A layer that samples with all others of `spans`.
    #[must_use]
    pub const fn new(spans: RequestSpans) -> Self {
        Self { spans }
    }
}

impl<S> Layer<S> for RequestSpanLayer {
    type Service = RequestSpanService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let spans = self.spans.clone();
        RequestSpanService { inner, spans }
    }
}

/// Tells the requests of an inner service; see [`RequestSpanLayer`].
#[derive(Clone, Debug)]
pub struct RequestSpanService<S> {
    inner: S,
    spans: RequestSpans,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RequestSpanService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
{
    type Response = Response<RequestSpanBody<ResBody>>;
    type Error = S::Error;
    type Future = RequestSpanFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let telling = self.spans.begin(&request);
        let future = match &telling {
            Some(telling) => telling.within(|| self.inner.call(request)),
            None => self.inner.call(request),
        };
        RequestSpanFuture { future, telling }
    }
}

pin_project! {
    /// The inner service's future, within the request's span.
    #[derive(Debug)]
    pub struct RequestSpanFuture<F> {
        #[pin]
        future: F,
        // None where nothing is told, and once the head is there.
        telling: Option<Box<Telling>>,
    }
}

impl<F, B, E> Future for RequestSpanFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<RequestSpanBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match &*this.telling {
            Some(telling) => telling.within(|| this.future.poll(cx)),
            None => this.future.poll(cx),
        };
        let result = ready!(polled);
        let mut telling = this.telling.take();
        if let Some(telling) = &mut telling {
            match &result {
                Ok(response) => {
                    // One that anybody may ask the cache for is no failure.
                    let told = response.extensions().get::<Uncounted>();
                    let failed = response.status().is_server_error()
                        && told != Some(&Uncounted::OnlyIfCached);
                    telling.answered(response.status(), failed);
                }
                // The client gets a broken connection at best, and that is the service's doing.
                Err(_) => telling.answered(StatusCode::INTERNAL_SERVER_ERROR, true),
            }
        }
        Poll::Ready(result.map(|response| response.map(|body| RequestSpanBody { body, telling })))
    }
}

pin_project! {
    /// The inner service's body, within the request's span until its end.
    #[derive(Debug)]
    pub struct RequestSpanBody<B> {
        #[pin]
        body: B,
        // None where nothing is told, and once the body has ended.
        telling: Option<Box<Telling>>,
    }
}

impl<B: Body> Body for RequestSpanBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = match &*this.telling {
            Some(telling) => telling.within(|| this.body.as_mut().poll_frame(cx)),
            None => return this.body.poll_frame(cx),
        };
        let frame = ready!(polled);
        // A connection drops the body at its announced length without asking on, and that is its end as well.
        if !matches!(frame, Some(Ok(_))) || this.body.is_end_stream() {
            *this.telling = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
