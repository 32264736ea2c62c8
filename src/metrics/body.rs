//! A body that knows when it has been delivered.
//!
//! A connection does not poll a body to its end. It leaves a body alone that says it is at its end,
//! that belongs to a `HEAD` request or to a status without content, and it stops as soon as the
//! announced length is there. So the end is looked for after every frame, and before the first; only
//! a body that is dropped before any of these signs was cancelled.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::metrics::passage::{Passage, counting_panics};

pin_project! {
    /// The inner service's body, watched until its end.
    #[derive(Debug)]
    pub struct MetricsBody<B> {
        #[pin]
        body: B,
        // None once the request is counted, and where nothing is counted.
        delivery: Option<Delivery>,
    }
}

/// An answer whose body is on its way.
#[derive(Debug)]
struct Delivery {
    passage: Passage,
    status: StatusCode,
    /// Bytes to come until the announced length is there, if one was announced.
    left: Option<u64>,
}

/// Whether the request's method lets its answer have content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Most methods do.
    Allowed,
    /// `HEAD` does not (RFC 9110 §9.3.2).
    Never,
    /// A tunnel takes the place of a successful answer's content (RFC 9110 §9.3.6).
    UnlessSuccessful,
}

impl Content {
    /// What `method` says.
    pub(crate) fn of(method: &http::Method) -> Self {
        match *method {
            http::Method::HEAD => Self::Never,
            http::Method::CONNECT => Self::UnlessSuccessful,
            _ => Self::Allowed,
        }
    }

    /// Whether an answer of `status` has no content, whatever its body holds (RFC 9110 §6.4.1).
    fn forbidden(self, status: StatusCode) -> bool {
        let by_method = match self {
            Self::Allowed => false,
            Self::Never => true,
            Self::UnlessSuccessful => status.is_success(),
        };
        let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        by_method || status.is_informational() || none.contains(&status)
    }
}

impl<B> MetricsBody<B> {
    /// A body that nobody watches.
    pub(crate) const fn unwatched(body: B) -> Self {
        Self {
            body,
            delivery: None,
        }
    }
}

impl<B: Body> MetricsBody<B> {
    /// The body of `response`, watched: `passage` ends when it does, under the status that the answer `counts_as`.
    pub(crate) fn watch(
        response: Response<B>,
        passage: Passage,
        (content, counts_as): (Content, StatusCode),
    ) -> Response<Self> {
        let status = response.status();
        // The connection goes by the field if there is one, whatever the body says of itself.
        let announced = response.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|length| length.to_str().ok()?.parse().ok());
        let body = response.body();
        let delivery = Delivery {
            passage,
            status: counts_as,
            left: announced.or_else(|| body.size_hint().exact()),
        };
        let over = content.forbidden(status) || delivery.is_over(body);
        let mut delivery = Some(delivery);
        if over {
            deliver(&mut delivery);
        }
        response.map(|body| Self { body, delivery })
    }
}

impl Delivery {
    fn is_over<B: Body>(&self, body: &B) -> bool {
        self.left == Some(0) || body.is_end_stream()
    }
}

/// The answer has been delivered to its end.
fn deliver(delivery: &mut Option<Delivery>) {
    if let Some(Delivery {
        passage, status, ..
    }) = delivery.take()
    {
        passage.delivered(status);
    }
}

impl<B: Body> Body for MetricsBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let polled = counting_panics(this.delivery, || this.body.as_mut().poll_frame(cx));
        let frame = ready!(polled);
        let Some(delivery) = this.delivery else {
            return Poll::Ready(frame);
        };
        match &frame {
            None => deliver(this.delivery),
            // Dropped without having been delivered, it counts as cancelled.
            Some(Err(_)) => *this.delivery = None,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let bytes = data.remaining() as u64;
                    delivery.passage.sent(bytes);
                    if let Some(left) = &mut delivery.left {
                        *left = left.saturating_sub(bytes);
                    }
                }
                if frame.is_trailers() || delivery.is_over(&*this.body) {
                    deliver(this.delivery);
                }
            }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use bytes::Bytes;
    use http::Method;
    use http_body_util::combinators::BoxBody;
    use http_body_util::{BodyExt, Empty, Full};

    use super::*;
    use crate::clock::Clock;
    use crate::identity::RequestView;
    use crate::metrics::config::MetricsConfig;
    use crate::metrics::routes::{RouteStats, Routes};
    use crate::metrics::shared::Shared;

    /// How one watched answer ended so far.
    #[derive(Debug, PartialEq)]
    enum Ending {
        InFlight,
        Delivered,
        Cancelled,
    }
    use Ending::{Cancelled, Delivered, InFlight};

    fn ending(stats: &RouteStats) -> Ending {
        let counts = stats.counts();
        let [c1, c2, c3, c4, c5, cancelled, ..] = counts;
        match (stats.in_flight(&counts), c1 + c2 + c3 + c4 + c5, cancelled) {
            (1, 0, 0) => InFlight,
            (0, 1, 0) => Delivered,
            (0, 0, 1) => Cancelled,
            counts => panic!("counted more than once: {counts:?}"),
        }
    }

    type Boxed = BoxBody<Bytes, &'static str>;

    fn full(text: &'static str) -> Boxed {
        Full::new(Bytes::from(text)).map_err(never).boxed()
    }

    fn never(never: Infallible) -> &'static str {
        match never {}
    }

    /// A body of unknown length whose frames are all ready; `Err` is a failure.
    struct Frames(std::vec::IntoIter<Result<Frame<Bytes>, &'static str>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            Poll::Ready(self.0.next())
        }
    }

    fn frames(frames: Vec<Result<Frame<Bytes>, &'static str>>) -> Boxed {
        Frames(frames.into_iter()).boxed()
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from(text)))
    }

    struct Watched {
        stats: Arc<RouteStats>,
        body: MetricsBody<Boxed>,
    }

    fn watch(method: &Method, response: Response<Boxed>) -> Watched {
        let shared = Shared::new(&MetricsConfig::default(), Clock::manual().0);
        let routes = Routes::new(&[], 8, Arc::new(shared));
        let stats = routes.of(&RequestView::of(&http::Request::new(())));
        let passage = Passage::begin(Arc::clone(&stats), &http::HeaderMap::new());
        let status = response.status();
        let response = MetricsBody::watch(response, passage, (Content::of(method), status));
        let body = response.into_body();
        Watched { stats, body }
    }

    impl Watched {
        async fn poll(&mut self) -> Ending {
            let _ = self.body.frame().await;
            ending(&self.stats)
        }

        fn dropped(self) -> Ending {
            drop(self.body);
            ending(&self.stats)
        }
    }

    fn answer(status: u16, body: Boxed) -> Response<Boxed> {
        Response::builder().status(status).body(body).unwrap()
    }

    #[test]
    fn an_answer_without_content_is_delivered_with_its_head() {
        let empty = || Empty::new().map_err(never).boxed();
        for (method, status, body) in [
            (Method::GET, 200, empty()),
            (Method::HEAD, 200, full("as GET would answer")),
            (Method::GET, 204, full("not sent")),
            (Method::GET, 304, full("not sent")),
            (Method::GET, 101, full("not sent")),
            (Method::CONNECT, 200, full("not sent")),
        ] {
            let watched = watch(&method, answer(status, body));
            assert_eq!(ending(&watched.stats), Delivered, "{method} {status}");
            assert_eq!(watched.dropped(), Delivered);
        }
        let refused = watch(&Method::CONNECT, answer(403, full("sent")));
        assert_eq!(ending(&refused.stats), InFlight);
    }

    #[test]
    fn a_head_answer_is_delivered_though_it_announces_a_length() {
        let response = Response::builder().header("content-length", "1000");
        let response = response.body(frames(vec![])).unwrap();
        assert_eq!(watch(&Method::HEAD, response).dropped(), Delivered);
    }

    #[tokio::test]
    async fn a_stream_is_in_flight_until_it_says_it_is_over() {
        let mut watched = watch(
            &Method::GET,
            answer(200, frames(vec![data("a"), data("b")])),
        );
        assert_eq!(ending(&watched.stats), InFlight);
        assert_eq!(watched.poll().await, InFlight);
        assert_eq!(watched.poll().await, InFlight);
        assert_eq!(watched.poll().await, Delivered);
        assert_eq!(watched.dropped(), Delivered);
    }

    #[tokio::test]
    async fn a_body_is_over_once_its_length_is_there() {
        let mut by_hint = watch(&Method::GET, answer(200, full("ten bytes.")));
        assert_eq!(ending(&by_hint.stats), InFlight);
        assert_eq!(by_hint.poll().await, Delivered);

        let response = Response::builder().header("content-length", "2");
        let response = response.body(frames(vec![data("a"), data("b")])).unwrap();
        let mut by_field = watch(&Method::GET, response);
        assert_eq!(by_field.poll().await, InFlight);
        assert_eq!(by_field.poll().await, Delivered);
    }

    #[tokio::test]
    async fn trailers_are_the_end() {
        let trailers = Ok(Frame::trailers(http::HeaderMap::new()));
        let mut watched = watch(&Method::GET, answer(200, frames(vec![data("a"), trailers])));
        assert_eq!(watched.poll().await, InFlight);
        assert_eq!(watched.poll().await, Delivered);
    }

    #[tokio::test]
    async fn a_body_dropped_midway_or_failing_was_cancelled() {
        let never_read = watch(&Method::GET, answer(200, full("text")));
        assert_eq!(never_read.dropped(), Cancelled);
        let mut midway = watch(
            &Method::GET,
            answer(200, frames(vec![data("a"), data("b")])),
        );
        assert_eq!(midway.poll().await, InFlight);
        assert_eq!(midway.dropped(), Cancelled);
        let mut failing = watch(&Method::GET, answer(200, frames(vec![Err("broken")])));
        assert_eq!(failing.poll().await, Cancelled);
        assert_eq!(failing.dropped(), Cancelled);
    }
}
