//! The service that counts what passes through it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::clock::Moment;
use crate::identity::RequestView;
use crate::metrics::body::{Content, MetricsBody};
use crate::metrics::engine::Metrics;
use crate::metrics::routes::Passage;

/// Counts the requests of an inner service; see [`metrics`](crate::metrics).
#[derive(Clone, Debug)]
pub struct MetricsService<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> MetricsService<S> {
    pub(crate) const fn new(inner: S, metrics: Metrics) -> Self {
        Self { inner, metrics }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for MetricsService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Response = Response<MetricsBody<ResBody>>;
    type Error = S::Error;
    type Future = MetricsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        if !self.metrics.config().enabled {
            return MetricsFuture {
                future: self.inner.call(request),
                underway: None,
            };
        }
        let stats = self.metrics.routes().of(&RequestView::of(&request));
        let underway = Underway {
            content: Content::of(request.method()),
            begun: self.metrics.clock().now(),
            passage: Passage::begin(stats),
            metrics: self.metrics.clone(),
        };
        MetricsFuture {
            // The passage has begun: a call that panics is counted while it unwinds.
            future: self.inner.call(request),
            underway: Some(underway),
        }
    }
}

/// A request whose answer's head is awaited. Dropping it there counts the request as cancelled.
#[derive(Debug)]
struct Underway {
    metrics: Metrics,
    passage: Passage,
    begun: Moment,
    content: Content,
}

impl Underway {
    /// The head is there.
    fn answered<B: Body>(self, mut response: Response<B>) -> Response<MetricsBody<B>> {
        let took = self.metrics.clock().now().since(self.begun);
        let (stats, config) = (self.passage.stats(), self.metrics.config());
        stats.count_head(took, config.slow_request);
        if config.server_timing {
            let timing = server_timing(took);
            response.headers_mut().append(SERVER_TIMING, timing);
        }
        MetricsBody::watch(response, self.passage, self.content)
    }
}

pin_project! {
    /// The inner service's future, timed.
    #[derive(Debug)]
    pub struct MetricsFuture<F> {
        #[pin]
        future: F,
        // None where nothing is counted, and once the head is there.
        underway: Option<Underway>,
    }
}

impl<F, B, E> Future for MetricsFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<MetricsBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.future.poll(cx));
        let Some(underway) = this.underway.take() else {
            return Poll::Ready(result.map(|response| response.map(MetricsBody::unwatched)));
        };
        Poll::Ready(match result {
            Ok(response) => Ok(underway.answered(response)),
            Err(error) => {
                // The client gets a broken connection at best, and that is the service's doing.
                underway
                    .passage
                    .delivered(StatusCode::INTERNAL_SERVER_ERROR);
                Err(error)
            }
        })
    }
}

/// Server Timing, W3C.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// `app;dur=12.3`: milliseconds to one place. Finer figures would only help to time secrets.
fn server_timing(took: Duration) -> HeaderValue {
    let tenths = took.as_micros() / 100;
    let text = format!("app;dur={}.{}", tenths / 10, tenths % 10);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("app"))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::metrics::config::MetricsConfig;

    fn metrics(config: &MetricsConfig) -> (Metrics, ManualClock) {
        let (clock, hand) = Clock::manual();
        (Metrics::new(config, clock).unwrap(), hand)
    }

    fn text() -> Response<Full<Bytes>> {
        Response::new(Full::new(Bytes::from_static(b"text")))
    }

    #[tokio::test]
    async fn time_is_taken_to_the_head_and_flight_lasts_to_the_end_of_the_body() {
        let config = MetricsConfig {
            server_timing: true,
            ..MetricsConfig::default()
        };
        let (metrics, hand) = metrics(&config);
        let later = hand.clone();
        let inner = tower::service_fn(move |_: Request<()>| {
            later.advance(Duration::from_micros(1_234_567));
            async { Ok::<_, Infallible>(text()) }
        });
        let service = MetricsService::new(inner, metrics.clone());
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.headers()["server-timing"], "app;dur=1234.5");
        hand.advance(Duration::from_secs(30));
        let http = metrics.snapshot().http;
        assert_eq!((http.in_flight, http.requests), (1, 0));
        response.into_body().collect().await.unwrap();
        let snapshot = metrics.snapshot();
        let (http, route) = (snapshot.http, &snapshot.routes[0]);
        assert_eq!((http.in_flight, http.requests, http.slow), (0, 1, 1));
        let p50 = route.latency.p50.unwrap().as_secs_f64();
        assert!((1.15..1.32).contains(&p50), "{p50}");
    }

    #[tokio::test]
    async fn an_error_of_the_service_counts_as_5xx() {
        let (metrics, _) = metrics(&MetricsConfig::default());
        let inner = tower::service_fn(|_: Request<()>| async {
            Err::<Response<Full<Bytes>>, _>(std::fmt::Error)
        });
        let service = MetricsService::new(inner, metrics.clone());
        assert!(service.oneshot(Request::new(())).await.is_err());
        let http = metrics.snapshot().http;
        assert_eq!((http.status.server_error, http.in_flight), (1, 0));
    }

    #[tokio::test]
    async fn a_panic_before_or_in_the_future_returns_the_place() {
        for early in [true, false] {
            let (metrics, _) = metrics(&MetricsConfig::default());
            let inner = tower::service_fn(move |_: Request<()>| {
                assert!(!early, "in call");
                async {
                    tokio::task::yield_now().await;
                    if std::hint::black_box(true) {
                        panic!("in the future");
                    }
                    Ok::<_, Infallible>(text())
                }
            });
            let service = MetricsService::new(inner, metrics.clone());
            let mut tasks = tokio::task::JoinSet::new();
            tasks.spawn(service.oneshot(Request::new(())));
            assert!(tasks.join_next().await.unwrap().unwrap_err().is_panic());
            let http = metrics.snapshot().http;
            assert_eq!((http.in_flight, http.status.server_error), (0, 1));
        }
    }

    #[tokio::test]
    async fn disabled_metrics_leave_no_trace() {
        let config = MetricsConfig {
            enabled: false,
            server_timing: true,
            ..MetricsConfig::default()
        };
        let (metrics, _) = metrics(&config);
        let inner = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(text()) });
        let service = MetricsService::new(inner, metrics.clone());
        let response = service.oneshot(Request::new(())).await.unwrap();
        assert!(response.headers().is_empty());
        assert!(metrics.snapshot().routes.is_empty());
    }

    #[tokio::test]
    async fn readiness_is_the_inner_services() {
        let (mock, mut handle) = tower_test::mock::pair::<Request<()>, Response<Full<Bytes>>>();
        let (metrics, _) = metrics(&MetricsConfig::default());
        let mut service = tower_test::mock::Spawn::new(MetricsService::new(mock, metrics));
        handle.allow(0);
        assert!(service.poll_ready().is_pending());
        handle.allow(1);
        assert!(service.poll_ready().is_ready());
    }
}
