//! The service that counts what passes through it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::identity::RequestView;
use crate::metrics::body::{Content, MetricsBody};
use crate::metrics::engine::Metrics;
use crate::metrics::passage::{Passage, counting_panics};
use crate::refusal::Refusal;
use crate::response::Uncounted;

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
            passage: Passage::begin(stats, request.headers()),
            announced: announced(&request),
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
    passage: Passage,
    content: Content,
    /// How many bytes the request's body has, by the client's word; 0 if it says nothing.
    announced: u64,
}

impl Underway {
    /// The head is there.
    fn answered<B: Body>(mut self, mut response: Response<B>) -> Response<MetricsBody<B>> {
        let took = self.passage.head(response.status());
        let stats = self.passage.stats();
        if self.announced > 0 && !is_refused(&response) {
            let received = self.announced.min(most_received(took));
            stats.received.fetch_add(received, Ordering::Relaxed);
        }
        let uncounted = response.extensions().get::<Uncounted>().copied();
        let by_cache = if uncounted.is_none() && stats.shared.cache_tells {
            by_cache(response.headers())
        } else {
            None
        };
        match by_cache {
            Some(true) => stats.cached.fetch_add(1, Ordering::Relaxed),
            Some(false) => stats.uncached.fetch_add(1, Ordering::Relaxed),
            None => 0,
        };
        if stats.shared.server_timing {
            let timing = timing("app;dur=", took, "");
            response.headers_mut().append(SERVER_TIMING, timing);
        }
        if stats.shared.response_time {
            let time = timing("", took, "ms");
            response.headers_mut().insert(RESPONSE_TIME, time);
        }
        // Anybody can bring it about and nothing has failed: it counts like a precondition that does not hold.
        let counts_as = match uncounted {
            Some(Uncounted::OnlyIfCached) => StatusCode::PRECONDITION_FAILED,
            _ => response.status(),
        };
        MetricsBody::watch(response, self.passage, (self.content, counts_as))
    }
}

/// The length that the request announces for its body.
#[inline]
fn announced<B>(request: &Request<B>) -> u64 {
    // Those have hardly ever one, and are most of all requests.
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return 0;
    }
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

/// Whether nobody has read the request's body: a layer has answered in the service's stead, or it is too large.
fn is_refused<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::PAYLOAD_TOO_LARGE
        || response.extensions().get::<Refusal>().is_some()
}

/// How many bytes of a body may have come by the time of the answer's head. A length is the client's word, and answers
/// that do not wait for the body, a 404 say, would let one lie make the sum of all others' mean nothing: so it costs
/// time, on a connection that carries a byte in a nanosecond (8 Gbit/s), beside what may have come along with the head.
fn most_received(took: Duration) -> u64 {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    nanos.saturating_add(BUFFERED_MAX)
}

/// The bytes of a body that systems hold in their buffers before anybody asks for it.
const BUFFERED_MAX: u64 = 1 << 20;

/// Whether our cache served this answer; nothing if it could not have, or was not asked (RFC 9211 §2). It
/// writes a line of its own, after those of other caches; one with several caches in it is not its.
#[inline]
fn by_cache(headers: &HeaderMap) -> Option<bool> {
    let line = headers.get_all(CACHE_STATUS).iter().next_back()?.as_bytes();
    match line.strip_prefix(b"keep; ")? {
        b"hit" => Some(true),
        told => by_cache_at_length(told),
    }
}

fn by_cache_at_length(told: &[u8]) -> Option<bool> {
    // The key comes last, and is for the client to choose.
    let parts = told.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let mut parts = parts.take_while(|part| !part.starts_with(b"key="));
    let first = parts.next()?;
    let (mut collapsed, mut stored) = (false, false);
    for part in parts {
        match part {
            b"collapsed" => collapsed = true,
            b"stored" => stored = true,
            // There is another cache behind it, and ours has no neighbours in its line.
            _ if part.contains(&b',') => return None,
            _ => {}
        }
    }
    match first {
        b"hit" => Some(true),
        _ if collapsed && first.starts_with(b"fwd=") => Some(true),
        b"fwd=stale" => Some(false),
        // What may not be stored could not have been served.
        b"fwd=uri-miss" | b"fwd=vary-miss" | b"fwd=partial" => stored.then_some(false),
        _ => None,
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
        let polled = counting_panics(this.underway, || this.future.poll(cx));
        let result = ready!(polled);
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

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
/// Server Timing, W3C.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// `app;dur=12.3`: milliseconds to one place. Finer figures would only help to time secrets.
fn timing(before: &str, took: Duration, after: &str) -> HeaderValue {
    let tenths = took.as_micros() / 100;
    let text = format!("{before}{}.{}{after}", tenths / 10, tenths % 10);
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
    use crate::response::refusal_bytes;

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
            response_time: true,
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
        assert_eq!(response.headers()["x-response-time"], "1234.5ms");
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

    #[test]
    fn what_the_cache_did_is_read_from_its_own_line() {
        let by_cache = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("cache-status", HeaderValue::from_static(line));
            }
            by_cache(&headers)
        };
        for (line, served) in [
            ("keep; hit", Some(true)),
            ("keep; hit; ttl=30; key=\"/a, fwd=b\"", Some(true)),
            ("keep; hit; detail=stale-while-revalidate", Some(true)),
            ("keep; fwd=stale; detail=stale-if-error", Some(false)),
            ("keep; fwd=stale; fwd-status=304; stored", Some(false)),
            ("keep; fwd=uri-miss; collapsed", Some(true)),
            ("keep; fwd=uri-miss; stored", Some(false)),
            ("keep; fwd=vary-miss; stored", Some(false)),
            ("keep; fwd=uri-miss", None),
            ("keep; fwd=bypass", None),
            ("keep; fwd=method", None),
            ("keep; fwd=partial; stored", Some(false)),
            ("keep; fwd=request", None),
            ("keep; fwd=request; stored", None),
            ("keep; fwd=request; fwd-status=304; stored", None),
            ("keep; fwd=method; stored", None),
            ("keep; fwd=bypass; stored", None),
            ("keep; detail=only-if-cached", None),
            // The key is the client's to choose.
            (r#"keep; fwd=bypass; key="/a;collapsed;stored""#, None),
            (r#"keep; fwd=uri-miss; ttl=0; key="/a\"; stored; ""#, None),
            (
                r#"keep; fwd=stale; ttl=-3; key="/a;collapsed""#,
                Some(false),
            ),
            // Several caches in one line.
            ("keep; hit, other; fwd=miss", None),
            ("keep; fwd=uri-miss; stored, other; hit", None),
            ("other; fwd=miss, keep; hit", None),
            ("keeper; hit", None),
            ("keep; hitherto", None),
            ("other; hit", None),
        ] {
            assert_eq!(by_cache(&[line]), served, "{line}");
            assert_eq!(by_cache(&["keep; hit", line]), served, "{line}");
        }
        assert_eq!(by_cache(&[]), None);
    }

    #[tokio::test]
    async fn slow_requests_are_kept_with_their_trace_and_so_are_clients_that_left() {
        let config = MetricsConfig {
            slow_requests_kept: 2,
            ..MetricsConfig::default()
        };
        let (metrics, hand) = metrics(&config);
        let later = hand.clone();
        let inner = tower::service_fn(move |request: Request<()>| {
            let took: u64 = request.uri().path()[1..].parse().unwrap();
            later.advance(Duration::from_millis(took));
            async { Ok::<_, Infallible>(text()) }
        });
        for took in ["/5000", "/1001", "/1000"] {
            let service = MetricsService::new(inner.clone(), metrics.clone());
            let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let request = Request::get(took).header("traceparent", trace);
            service.oneshot(request.body(()).unwrap()).await.unwrap();
        }
        let slow = metrics.slow_requests();
        let told: Vec<_> = slow
            .iter()
            .map(|it| (it.took.as_millis(), it.status))
            .collect();
        assert_eq!(told, [(1001, 200), (5000, 200)]);
        assert_eq!(
            slow[0].trace_id.as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_eq!((&*slow[0].route, slow[0].method), ("unmatched", "GET"));

        let stuck = tower::service_fn(|_: Request<()>| std::future::pending());
        let mut stuck = MetricsService::<_>::new(stuck, metrics.clone());
        let left: MetricsFuture<std::future::Pending<Result<Response<Full<Bytes>>, Infallible>>> =
            stuck.call(Request::new(()));
        hand.advance(Duration::from_secs(2));
        drop(left);
        let slow = metrics.slow_requests();
        let told: Vec<_> = slow
            .iter()
            .map(|it| (it.took.as_millis(), it.status))
            .collect();
        assert_eq!(
            told,
            [(2000, 499), (1001, 200)],
            "bounded, the newest first"
        );
        assert!(slow[0].trace_id.is_none());
    }

    #[tokio::test]
    async fn bytes_are_counted_both_ways() {
        let (metrics, _) = metrics(&MetricsConfig::default());
        let inner = tower::service_fn(|_: Request<()>| async { Ok::<_, Infallible>(text()) });
        for (method, length) in [
            ("POST", "1000"),
            ("PUT", "24"),
            ("POST", "many"),
            ("GET", "7"),
        ] {
            let request = Request::builder()
                .method(method)
                .header("content-length", length);
            let service = MetricsService::new(inner, metrics.clone());
            let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        let http = metrics.snapshot().http;
        assert_eq!((http.bytes_received, http.bytes_sent), (1024, 16));
    }

    /// Once a request that was refused at once, or led nowhere, added as much as it liked to say.
    #[tokio::test]
    async fn what_cannot_have_come_is_not_counted() {
        const TEBIBYTE: &str = "1099511627776";
        let (metrics, hand) = metrics(&MetricsConfig::default());
        let post = async |answer: fn() -> Response<Full<Bytes>>, length: &str, took: Duration| {
            let before = metrics.snapshot().http.bytes_received;
            let hand = hand.clone();
            let inner = tower::service_fn(move |_: Request<()>| {
                hand.advance(took);
                async move { Ok::<_, Infallible>(answer()) }
            });
            let request = Request::post("/").header("content-length", length);
            let service = MetricsService::new(inner, metrics.clone());
            let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
            metrics.snapshot().http.bytes_received - before
        };
        let (second, lately) = (Duration::from_secs(1), Duration::ZERO);
        let refused = || refusal_bytes(Refusal::DenyListed).map(Full::new);
        let too_large = || {
            let mut answer = text();
            *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            answer
        };
        assert_eq!(post(refused, "1000", second).await, 0);
        assert_eq!(post(too_large, "1000", second).await, 0);
        assert_eq!(post(text, TEBIBYTE, lately).await, 1 << 20);
        assert_eq!(post(text, "18446744073709551615", lately).await, 1 << 20);
        assert_eq!(
            post(text, TEBIBYTE, second).await,
            1_000_000_000 + (1 << 20)
        );
        assert_eq!(post(text, "500000000", second).await, 500_000_000);
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
    async fn a_panic_that_is_caught_further_out_counts_as_5xx() {
        let (metrics, _) = metrics(&MetricsConfig::default());
        let inner = tower::service_fn(|_: Request<()>| async {
            tokio::task::yield_now().await;
            if std::hint::black_box(true) {
                panic!("in the future");
            }
            Ok::<_, Infallible>(text())
        });
        let mut future =
            Box::pin(MetricsService::new(inner, metrics.clone()).oneshot(Request::new(())));
        // As a layer that catches panics does: it keeps the future, and drops it later.
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let caught = loop {
            let poll = std::panic::AssertUnwindSafe(|| future.as_mut().poll(&mut cx).is_ready());
            if let Err(caught) = std::panic::catch_unwind(poll) {
                break caught;
            }
        };
        let http = metrics.snapshot().http;
        assert_eq!((http.in_flight, http.status.server_error), (0, 1));
        drop((future, caught));
        let http = metrics.snapshot().http;
        assert_eq!((http.status.server_error, http.cancelled), (1, 0));
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
