//! The metrics layer against axum-prometheus: what counting a request costs.
//!
//! `metrics/router` is an axum router of one route whose state is given once, cloned for every request,
//! as `axum::serve` does; so both layers see axum's `MatchedPath` and label by route. `metrics/bare` is
//! the layer around a plain service, for which axum-prometheus has no template to label by: there it is sent one
//! path only.
//!
//! RATIO is about what the layer adds: the same service without a layer, measured in the same round, is
//! taken off. In the router that includes what axum itself pays for having a layer, two allocations. axum-prometheus runs in its leanest form (no body sizes), its recorder in the set-up of its
//! own `pair()`. That recorder keeps every duration until somebody drains it (`run_upkeep`, every five
//! seconds in `pair()`); here that happens after each turn and off the clock, in the peer's favour.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::{Route, get};
use axum_prometheus::metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle,
};
use axum_prometheus::utils::SECONDS_DURATION_BUCKETS;
use axum_prometheus::{AXUM_HTTP_REQUESTS_DURATION_SECONDS, BaseMetricLayer};
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service, service_fn};
use tower_keep::clock::Clock;
use tower_keep::metrics::{Metrics, MetricsConfig, MetricsLayer};

use crate::Failure;
use crate::drive::AsServed;
use crate::measure::{Bench, Case, Compare, Role};
use crate::traffic::Traffic;

const REQUESTS: usize = 20_000;
const ROUTE: &str = "/items/{id}";

pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    let traffic = Traffic::zipf(10_000)?;
    let metrics = Metrics::new(&MetricsConfig::default(), Clock::system())?;
    let duration = Matcher::Full(AXUM_HTTP_REQUESTS_DURATION_SECONDS.to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(duration, SECONDS_DURATION_BUCKETS)?
        .install_recorder()?;
    let upkept = recorder.clone();

    let plain = AsServed(Router::new().route(ROUTE, get(text)).with_state(()));
    let ours = routed(MetricsLayer::new(metrics.clone()));
    let peer = routed(BaseMetricLayer::new());
    let floor = Floor::default();
    let least = routed(floor.clone());
    let sent = Case {
        name: "metrics/router",
        requests: REQUESTS,
        compare: Compare::AboveBaseline,
        contenders: vec![
            bench.contender("no_layer", Role::Baseline, &traffic, plain),
            bench.contender("tower_keep", Role::Ours, &traffic, ours),
            bench
                .contender("axum_prometheus", Role::Peer, &traffic, peer)
                .resting(move || upkept.run_upkeep()),
            bench.contender("floor", Role::Peer, &traffic, least),
        ],
    }
    .run();
    // A layer that counts nothing is fast. Each must have counted all, and under the template.
    let counted = metrics.snapshot().http.requests;
    say_if(counted != sent, "tower-keep", counted, sent);
    let total =
        format!("requests_total{{method=\"GET\",status=\"200\",endpoint=\"{ROUTE}\"}} {sent}");
    let text = recorder.render();
    say_if(!text.contains(&total), "axum-prometheus", 0, sent);
    let counted = floor.figures.requests.load(Ordering::Relaxed);
    say_if(counted != sent, "floor", counted, sent);

    bare(bench, &traffic, &recorder)
}

/// The layer around a plain service: the path is matched by our own table. axum-prometheus, which has no table,
/// takes the path itself for a label, so it is sent one path only: its best case.
fn bare(
    bench: &Bench,
    traffic: &Traffic,
    recorder: &PrometheusHandle,
) -> Result<(), Failure> {
    let config = MetricsConfig {
        routes: vec![ROUTE.to_owned()],
        ..MetricsConfig::default()
    };
    let metrics = Metrics::new(&config, Clock::system())?;
    let plain = || service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(text().await) });
    let ours = MetricsLayer::new(metrics.clone()).layer(plain());
    let peer = OnePath(BaseMetricLayer::new().layer(plain()));
    let upkept = recorder.clone();
    let least = Floor::default().layer(plain());
    let sent = Case {
        name: "metrics/bare",
        requests: REQUESTS,
        compare: Compare::AboveBaseline,
        contenders: vec![
            bench.contender("no_layer", Role::Baseline, traffic, plain()),
            bench.contender("tower_keep", Role::Ours, traffic, ours),
            bench
                .contender("axum_prometheus", Role::Peer, traffic, peer)
                .resting(move || upkept.run_upkeep()),
            bench.contender("floor", Role::Peer, traffic, least),
        ],
    }
    .run();
    let counted = metrics.snapshot().http.requests;
    say_if(counted != sent, "tower-keep", counted, sent);
    Ok(())
}

/// Sends every request to the same path.
#[derive(Clone)]
struct OnePath<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for OnePath<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> S::Future {
        *request.uri_mut() = http::Uri::from_static("/items/7");
        self.0.call(request)
    }
}

fn say_if(wrong: bool, who: &str, counted: u64, sent: u64) {
    if wrong {
        println!("WARNING: {who} counted {counted} of {sent} requests; its figures mean nothing\n");
    }
}

async fn text() -> Response<Body> {
    Response::new(Body::from("Hello, world!"))
}

/// A router of one route below `layer`, with its state, as one connection has it.
fn routed<L>(layer: L) -> AsServed<Router>
where
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request<Body>>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send + 'static,
{
    let router = Router::new().route(ROUTE, get(text)).layer(layer);
    AsServed(router.with_state(()))
}

/// The least that counting can cost: two looks at the clock, one number up and down, two numbers up.
/// It knows one route and one method, keeps no distribution, and does not watch the body.
#[derive(Clone)]
struct Floor {
    clock: quanta::Clock,
    figures: Arc<Figures>,
}

#[derive(Default)]
struct Figures {
    in_flight: AtomicU64,
    requests: AtomicU64,
    nanos: AtomicU64,
}

#[derive(Clone)]
struct FloorService<S> {
    inner: S,
    floor: Floor,
}

impl Default for Floor {
    fn default() -> Self {
        Self {
            clock: quanta::Clock::new(),
            figures: Arc::default(),
        }
    }
}

impl<S> Layer<S> for Floor {
    type Service = FloorService<S>;

    fn layer(&self, inner: S) -> FloorService<S> {
        let floor = self.clone();
        FloorService { inner, floor }
    }
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for FloorService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = FloorFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let floor = self.floor.clone();
        floor.figures.in_flight.fetch_add(1, Ordering::Relaxed);
        FloorFuture {
            begun: floor.clock.raw(),
            floor,
            future: self.inner.call(request),
        }
    }
}

pin_project! {
    struct FloorFuture<F> {
        #[pin]
        future: F,
        floor: Floor,
        begun: u64,
    }
}

impl<F: Future> Future for FloorFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let output = ready!(this.future.poll(cx));
        let Floor { clock, figures } = this.floor;
        let nanos = clock.delta_as_nanos(*this.begun, clock.raw());
        figures.nanos.fetch_add(nanos, Ordering::Relaxed);
        figures.requests.fetch_add(1, Ordering::Relaxed);
        figures.in_flight.fetch_sub(1, Ordering::Relaxed);
        Poll::Ready(output)
    }
}
