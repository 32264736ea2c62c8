//! The guard against tower's own limits and tower-resilience: what it costs to be let in and to be turned away.
//!
//! All stand around a plain service that answers at once, called by one task: the figures are of the layers and not
//! of waiting. Everybody shares one state over all clones, as a limit of a whole service has to
//! (`GlobalConcurrencyLimitLayer`; tower-resilience's `build_with_handle`, without which each connection of axum's
//! has a limit of its own). RATIO is about what the layer adds to the bare service.
//!
//! They do not do the same. tower's permits and tower-resilience's end with an answer's head, ours with its
//! body, and only ours watches memory, knows critical routes and answers refusals itself; in `guard/refuse` the
//! others' errors are made into an answer as `HandleErrorLayer` would.
//!
//! tower-resilience's breaker classifies status codes here, as is needed to see a failing axum service. With a
//! window of time it walks through all that it remembers with each call, so it stands in the table with as much as
//! a busy minute leaves behind.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_keep::breaker::{BreakerConfig, BreakerLayer, CircuitBreakers};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::guard::{Admission, Criticality, Guard, GuardConfig, GuardLayer};
use tower_resilience_bulkhead::BulkheadLayer;
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};

use crate::Failure;
use crate::measure::{Bench, Case, Compare, Contender, Role};
use crate::traffic::Traffic;

const REQUESTS: usize = 20_000;
const SLOTS: usize = 64;

/// Being let in, with slots to spare.
pub(crate) fn admit(bench: &Bench) -> Result<(), Failure> {
    let traffic = Traffic::zipf(10_000)?;
    let ours = GuardLayer::new(guard(SLOTS)?).layer(plain());
    let limit = || GlobalConcurrencyLimitLayer::new(SLOTS);
    let shed = LoadShedLayer::new().layer(limit().layer(plain()));
    let (bulkhead, _handle) = BulkheadLayer::builder()
        .max_concurrent_calls(SLOTS)
        .reject_when_full()
        .build_with_handle()?;
    Case {
        name: "guard/admit",
        requests: REQUESTS,
        compare: Compare::AboveBaseline,
        contenders: vec![
            bench.contender("no_layer", Role::Baseline, &traffic, plain()),
            bench.contender("tower_keep", Role::Ours, &traffic, ours),
            bench.contender("tower_limit", Role::Peer, &traffic, limit().layer(plain())),
            bench.contender("tower_load_shed", Role::Peer, &traffic, shed),
            bench.contender(
                "resilience_bulkhead",
                Role::Peer,
                &traffic,
                bulkhead.layer(plain()),
            ),
        ],
    }
    .run();
    Ok(())
}

/// Being turned away, because somebody has all the slots.
pub(crate) fn refuse(bench: &Bench) -> Result<(), Failure> {
    let traffic = Traffic::zipf(10_000)?;
    let guard = guard(1)?;
    let Admission::Admitted(held) = guard.admit(Criticality::default()) else {
        return Err("the guard has a slot".into());
    };
    let ours = GuardLayer::new(guard).layer(plain());
    let shed = ServiceBuilder::new()
        .layer(LoadShedLayer::new())
        .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(
            Semaphore::new(0),
        )))
        .service(plain());
    let (bulkhead, handle) = BulkheadLayer::builder()
        .max_concurrent_calls(1)
        .reject_when_full()
        .build_with_handle()?;
    let mut endless = bulkhead.layer(service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    }));
    // It has a timer also where nobody waits.
    let runtime = Builder::new_current_thread().enable_time().build()?;
    let mut call = pin!(endless.call(Request::new(Body::empty())));
    let mut cx = Context::from_waker(Waker::noop());
    {
        let _inside = runtime.enter();
        if call.as_mut().poll(&mut cx).is_ready() || handle.active_calls() != 1 {
            return Err("the bulkhead's only call ends".into());
        }
    }
    Case {
        name: "guard/refuse",
        requests: REQUESTS,
        compare: Compare::AboveBaseline,
        contenders: vec![
            bench.contender("no_layer", Role::Baseline, &traffic, plain()),
            bench.contender("tower_keep", Role::Ours, &traffic, ours),
            bench.contender("tower_load_shed", Role::Peer, &traffic, Refusing(shed)),
            bench.contender(
                "resilience_bulkhead",
                Role::Peer,
                &traffic,
                Refusing(bulkhead.layer(plain())),
            ),
        ],
    }
    .run_in_own_words();
    drop(held);
    Ok(())
}

/// A circuit that is closed, around a service that does well.
pub(crate) fn breaker(bench: &Bench) -> Result<(), Failure> {
    let traffic = Traffic::zipf(10_000)?;
    let breakers = CircuitBreakers::new(&BreakerConfig::default(), Clock::system(), Events::none())?;
    let ours = BreakerLayer::new(breakers.of("service")).layer(plain());
    let mut contenders = vec![
        bench.contender("no_layer", Role::Baseline, &traffic, plain()),
        bench.contender("tower_keep", Role::Ours, &traffic, ours),
    ];
    let (counting, _handle) = CircuitBreakerLayer::builder()
        .classify_response(|answer: &Response<Body>| answer.status().is_server_error())
        .sliding_window_size(100)
        .build_with_handle()?;
    let counting = counting.layer(plain());
    contenders.push(bench.contender("resilience_last_100", Role::Peer, &traffic, counting));
    // Within the time of a turn, no record is old enough to be forgotten.
    for (name, records) in [
        ("resilience_time_1k", 1_000),
        ("resilience_time_10k", 10_000),
    ] {
        contenders.push(timed(bench, name, &traffic, records)?);
    }
    Case {
        name: "guard/breaker",
        // What walks through ten thousand records for each request takes long enough for fewer of them.
        requests: REQUESTS / 20,
        compare: Compare::AboveBaseline,
        contenders,
    }
    .run();
    Ok(())
}

/// A window of time that holds about so many records: it ends every turn with them.
fn timed(
    bench: &Bench,
    name: &'static str,
    traffic: &Traffic,
    records: usize,
) -> Result<Contender, Failure> {
    let (layer, _handle) = CircuitBreakerLayer::builder()
        .classify_response(|answer: &Response<Body>| answer.status().is_server_error())
        .sliding_window_type(SlidingWindowType::TimeBased)
        .sliding_window_size(records)
        .sliding_window_duration(Duration::from_secs(3600))
        .build_with_handle()?;
    let mut contender = bench.contender(name, Role::Peer, traffic, layer.layer(plain()));
    contender.begin(records);
    Ok(contender)
}

fn guard(slots: usize) -> Result<Guard, Failure> {
    let config = GuardConfig {
        slots,
        queue: if slots == 1 { 0 } else { 2 * slots },
        ..GuardConfig::default()
    };
    Ok(Guard::new(&config, Clock::system(), Events::none())?)
}

/// Answers at once.
fn plain() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
> + Clone
+ Send
+ 'static {
    service_fn(|_: Request<Body>| async { Ok(Response::new(Body::from("Hello, world!"))) })
}

/// An answer instead of an error.
struct Refusing<S>(S);

impl<S> Service<Request<Body>> for Refusing<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RefusingFuture<S::Future>;

    /// None of these services is unready for long, nor for good.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        RefusingFuture {
            future: self.0.call(request),
        }
    }
}

pin_project! {
    struct RefusingFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, E> Future for RefusingFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().future.poll(cx));
        Poll::Ready(Ok(result.unwrap_or_else(|_| {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer
        })))
    }
}
