//! Requests as `tracing` hears of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::metrics::{MetricsConfig, RequestSpanLayer, RequestSpans};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// What was heard: spans by number, and events with the span they lay in.
#[derive(Debug, Default)]
struct Log {
    spans: Vec<Fields>,
    events: Vec<(Level, Option<usize>, Fields)>,
    inside: Vec<usize>,
}

type Fields = BTreeMap<&'static str, String>;

struct Reading<'a>(&'a mut Fields);

impl Visit for Reading<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Listens to the crate's spans and to the tests' own events.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Log>>);

impl Listener {
    fn listen(&self) -> DefaultGuard {
        tracing::subscriber::set_default(self.clone())
    }

    fn spans(&self) -> Vec<Fields> {
        self.0.lock().unwrap().spans.clone()
    }

    fn events(&self) -> Vec<(Level, Option<usize>, Fields)> {
        self.0.lock().unwrap().events.clone()
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["tower_keep::http", "handler"].contains(&metadata.target())
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(
            (span.metadata().name(), *span.metadata().level()),
            ("http.request", Level::INFO)
        );
        let mut fields = Fields::new();
        span.record(&mut Reading(&mut fields));
        let mut log = self.0.lock().unwrap();
        log.spans.push(fields);
        Id::from_u64(log.spans.len() as u64)
    }
    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut log = self.0.lock().unwrap();
        let fields = &mut log.spans[span.into_u64() as usize - 1];
        values.record(&mut Reading(fields));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Reading(&mut fields));
        let mut log = self.0.lock().unwrap();
        let inside = log.inside.last().copied();
        log.events.push((*event.metadata().level(), inside, fields));
    }
    fn enter(&self, span: &Id) {
        self.0
            .lock()
            .unwrap()
            .inside
            .push(span.into_u64() as usize - 1);
    }
    fn exit(&self, span: &Id) {
        let left = self.0.lock().unwrap().inside.pop();
        assert_eq!(left, Some(span.into_u64() as usize - 1));
    }
}

/// The last seven bytes of an id that no share but the whole samples.
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ffffffffffffff-00f067aa0ba902b7-00";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ffffffffffffff-00f067aa0ba902b7-01";

fn layer(trace_sample: f64) -> (RequestSpanLayer, ManualClock) {
    let (clock, hand) = Clock::manual();
    let config = MetricsConfig {
        trace_sample,
        routes: vec!["/contacts/{id}".to_owned()],
        ..MetricsConfig::default()
    };
    (
        RequestSpanLayer::new(RequestSpans::new(&config, clock)),
        hand,
    )
}

fn request(path: &str, trace_parent: &str) -> Request<()> {
    let request = Request::builder().uri(path);
    request
        .header("traceparent", trace_parent)
        .body(())
        .unwrap()
}

type Answer = Result<Response<Full<Bytes>>, Infallible>;

/// Answers with the status that the path ends in, after as many milliseconds as the query says.
fn answering(
    hand: ManualClock,
) -> impl tower::Service<
    Request<()>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future = impl Future<Output = Answer>,
> + Clone {
    tower::service_fn(move |request: Request<()>| {
        let hand = hand.clone();
        async move {
            tracing::info!(target: "handler", "at work");
            tokio::task::yield_now().await;
            let millis = request.uri().query().unwrap_or("0").parse().unwrap();
            hand.advance(Duration::from_millis(millis));
            let status: u16 = request
                .uri()
                .path()
                .rsplit('/')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            let answer = Response::builder().status(status);
            Ok(answer.body(Full::new(Bytes::from_static(b"text"))).unwrap())
        }
    })
}

#[tokio::test]
async fn a_sampled_request_has_a_span_until_the_end_of_its_body() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(0.000_001);
    let service = layer.layer(answering(hand.clone()));
    let response = service
        .oneshot(request("/contacts/200?7", SAMPLED))
        .await
        .unwrap();
    hand.advance(Duration::from_millis(5));
    let fields = &listener.spans()[0];
    let expected = [
        ("method", "GET"),
        ("route", "/contacts/{id}"),
        ("status", "200"),
        ("trace_id", "4bf92f3577b34da6a3ffffffffffffff"),
    ];
    assert_eq!(*fields, expected.map(|(k, v)| (k, v.to_owned())).into());
    response.into_body().collect().await.unwrap();
    assert_eq!(listener.spans()[0]["duration_ms"], "12.0");
    let events = listener.events();
    assert_eq!(events.len(), 1, "neither slow nor failed: {events:?}");
    assert_eq!(events[0].1, Some(0), "what the handler says lies within");
}

#[tokio::test]
async fn failed_and_slow_requests_are_told_whether_sampled_or_not() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(0.000_001);
    let service = layer.layer(answering(hand));
    for (parent, path) in [
        (UNSAMPLED, "/contacts/503"),
        (UNSAMPLED, "/elsewhere/200?1500"),
        (UNSAMPLED, "/contacts/404?900"),
        (SAMPLED, "/contacts/500?2000"),
    ] {
        service
            .clone()
            .oneshot(request(path, parent))
            .await
            .unwrap();
    }
    assert_eq!(listener.spans().len(), 1);
    let events: Vec<_> = listener
        .events()
        .into_iter()
        .filter(|(.., f)| f.contains_key("route"))
        .collect();
    let seen = |(level, span, fields): &(Level, Option<usize>, Fields)| {
        assert_eq!(fields["trace_id"], "4bf92f3577b34da6a3ffffffffffffff");
        let text = format!(
            "{} {} {}",
            fields["route"], fields["status"], fields["duration_ms"]
        );
        (*level, *span, text)
    };
    let seen: Vec<_> = events.iter().map(seen).collect();
    assert_eq!(
        seen,
        [
            (Level::ERROR, None, "/contacts/{id} 503 0.0".to_owned()),
            (Level::WARN, None, "unmatched 200 1500.0".to_owned()),
            (
                Level::ERROR,
                Some(0),
                "/contacts/{id} 500 2000.0".to_owned()
            ),
        ]
    );
}

#[tokio::test]
async fn nothing_is_told_where_it_is_off() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(0.0);
    let service = layer.layer(answering(hand));
    let response = service
        .oneshot(request("/contacts/500?2000", SAMPLED))
        .await
        .unwrap();
    response.into_body().collect().await.unwrap();
    assert!(listener.spans().is_empty());
    assert_eq!(listener.events().len(), 1, "the handler's own");
}

#[tokio::test]
async fn a_cancelled_request_ends_its_span_without_a_status() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(1.0);
    let stuck = tower::service_fn(|_: Request<()>| std::future::pending::<Answer>());
    let mut waiting = Box::pin(
        layer
            .layer(stuck)
            .oneshot(request("/contacts/1", UNSAMPLED)),
    );
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut nobody).is_pending());
    hand.advance(Duration::from_millis(30));
    drop(waiting);
    let spans = listener.spans();
    assert_eq!(spans[0]["duration_ms"], "30.0");
    assert!(!spans[0].contains_key("status"));
}

/// What is told of requests, as opposed to what handlers say: level, span, route, status and duration.
fn told(listener: &Listener) -> Vec<(Level, Option<usize>, String)> {
    let events = listener.events().into_iter();
    let of_requests = events.filter(|(.., fields)| fields.contains_key("route"));
    let words =
        |fields: &Fields| ["route", "status", "duration_ms"].map(|name| fields[name].clone());
    of_requests
        .map(|(level, span, fields)| (level, span, words(&fields).join(" ")))
        .collect()
}

#[tokio::test]
async fn who_left_after_waiting_for_long_is_told_whether_sampled_or_not() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(0.000_001);
    let stuck = layer.layer(tower::service_fn(|_: Request<()>| {
        std::future::pending::<Answer>()
    }));
    for (parent, millis) in [(UNSAMPLED, 1_000), (UNSAMPLED, 1_500), (SAMPLED, 2_000)] {
        let mut waiting = Box::pin(stuck.clone().oneshot(request("/contacts/1", parent)));
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut nobody).is_pending());
        hand.advance(Duration::from_millis(millis));
        drop(waiting);
    }
    let expected = [
        (Level::WARN, None, "/contacts/{id} 499 1500.0".to_owned()),
        (Level::WARN, Some(0), "/contacts/{id} 499 2000.0".to_owned()),
    ];
    assert_eq!(told(&listener), expected);
}

#[tokio::test]
async fn a_panic_is_told_as_a_500_wherever_it_is_caught() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, _) = layer(0.000_001);
    let panics = tower::service_fn(|request: Request<()>| {
        assert!(
            request.uri().path() != "/at/once",
            "before there is a future"
        );
        async fn fails() -> Answer {
            panic!("within it")
        }
        fails()
    });
    for path in ["/at/once", "/contacts/1"] {
        let call = layer.layer(panics).oneshot(request(path, UNSAMPLED));
        let mut nobody = Context::from_waker(Waker::noop());
        // The runtime drops a task's future while it still unwinds, and who catches a panic in between does after that.
        let polled = AssertUnwindSafe(move || {
            let mut call = Box::pin(call);
            call.as_mut().poll(&mut nobody).is_pending()
        });
        assert!(catch_unwind(polled).is_err());
        let mut call = Box::pin(layer.layer(panics).oneshot(request(path, UNSAMPLED)));
        let mut nobody = Context::from_waker(Waker::noop());
        let polled = AssertUnwindSafe(|| call.as_mut().poll(&mut nobody).is_pending());
        assert!(catch_unwind(polled).is_err());
        drop(call);
    }
    let expected = ["unmatched 500 0.0", "/contacts/{id} 500 0.0"];
    let expected = expected.into_iter().flat_map(|words| [words; 2]);
    let expected: Vec<_> = expected
        .map(|words| (Level::ERROR, None, words.to_owned()))
        .collect();
    assert_eq!(told(&listener), expected);
}

#[tokio::test]
async fn invented_methods_are_not_written() {
    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, hand) = layer(1.0);
    let request = Request::builder()
        .method("EVIL\u{7e}1")
        .uri("/x/200")
        .body(())
        .unwrap();
    layer.layer(answering(hand)).oneshot(request).await.unwrap();
    assert_eq!(listener.spans()[0]["method"], "_OTHER");
}

/// axum lays a router's layers around anew for each connection; the share is over all of them.
#[cfg(feature = "axum")]
#[tokio::test]
async fn the_share_is_kept_over_all_connections() {
    use axum::Router;
    use axum::routing::get;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let listener = Listener::default();
    let _listening = listener.listen();
    let (layer, _) = layer(0.25);
    let router = Router::new()
        .route("/a/{b}", get(async || "text"))
        .layer(layer);
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}/a/7", socket.local_addr().unwrap());
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move { axum::serve(socket, router).await.unwrap() });
    for _ in 0..40 {
        // A client of its own is a connection of its own.
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::builder()
            .uri(&site)
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = client.request(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let spans = listener.spans();
    // Were the sequence to begin anew with each connection, all of them would be sampled.
    assert!(spans.len().abs_diff(10) <= 2, "{}", spans.len());
    assert!(spans.iter().all(|fields| fields["route"] == "/a/{b}"));
}

/// The whole stack inside, as its documentation puts it.
#[cfg(feature = "axum")]
#[tokio::test]
async fn what_the_stack_answers_itself_has_a_span_as_well() {
    use axum::body::Body;
    use axum::routing::get;
    use tower_keep::{Keep, Profile};

    let listener = Listener::default();
    let _listening = listener.listen();
    let keep = Keep::builder(Profile::production())
        .metrics(|metrics| metrics.trace_sample = 1.0)
        .build()
        .unwrap();
    let handler = get(async || ([("cache-control", "max-age=60")], "text"));
    let router = axum::Router::new().route("/a/{b}", handler);
    let router = router.layer(keep.layer()).layer(keep.span_layer());
    for _ in 0..2 {
        let request = Request::builder().uri("/a/7").body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(keep.metrics().snapshot().cache.hits, 1);
    let spans = listener.spans();
    assert_eq!(spans.len(), 2);
    for fields in spans {
        assert_eq!((&*fields["route"], &*fields["status"]), ("/a/{b}", "200"));
        assert!(fields.contains_key("duration_ms"));
    }
    keep.shutdown().await;
}
