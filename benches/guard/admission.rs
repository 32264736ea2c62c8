//! The guard's entrance: alone, as a layer, and when all slots are taken.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use criterion::Criterion;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use tower::{Layer, Service};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::guard::{Admission, Criticality, Guard, GuardConfig, GuardLayer};

type Body = Empty<Bytes>;

/// A guard with so many slots, so many places in the queue, and so many routes that are not like the others.
fn guard(slots: usize, queue: usize, routes: usize) -> Guard {
    let critical = (0..routes).map(|number| format!("/rule/{number}/{{id}}"));
    let config = GuardConfig {
        slots,
        queue,
        critical: critical.collect(),
        ..GuardConfig::default()
    };
    Guard::new(&config, Clock::system(), Events::none()).expect("settings")
}

fn admit(guard: &Guard) -> Admission {
    guard.admit(Criticality::default())
}

/// One slot after the other, and given back at once; with a slot to spare and without one.
pub(crate) fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guard/admission");
    let free = guard(64, 128, 0);
    group.bench_function("admit and release", |bench| {
        bench.iter(|| black_box(admit(&free)));
    });
    let semaphore = std::sync::Arc::new(tokio::sync::Semaphore::new(64));
    group.bench_function("for comparison: tokio's semaphore, owned", |bench| {
        bench.iter(|| black_box(std::sync::Arc::clone(&semaphore).try_acquire_owned()));
    });
    let full = guard(1, 0, 0);
    let held = admit(&full);
    assert!(matches!(held, Admission::Admitted(_)), "there is a slot");
    group.bench_function("refuse", |bench| bench.iter(|| black_box(admit(&full))));
    drop(held);
    group.finish();
}

/// Answers at once, with nothing.
#[derive(Clone, Copy)]
struct Noop;

impl Service<Request<Body>> for Noop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

/// One request, polled by hand: no executor in the figure. Its answer is dropped, and with it the slot.
fn drive<S, B>(service: &mut S) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<B>, Error = Infallible>,
{
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static("/contacts/7");
    let mut cx = Context::from_waker(Waker::noop());
    let _ = black_box(service.poll_ready(&mut cx));
    let answer = pin!(service.call(request));
    match answer.poll(&mut cx) {
        Poll::Ready(Ok(answer)) => black_box(answer).status(),
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

/// Around a service that does nothing; building the request is part of every figure.
pub(crate) fn layer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guard/layer");
    group.bench_function("bare", |bench| bench.iter(|| drive(&mut Noop)));
    for routes in [0, 20] {
        let mut service = GuardLayer::new(guard(64, 128, routes)).layer(Noop);
        assert_eq!(drive(&mut service), StatusCode::OK);
        group.bench_function(format!("admitted, {routes} rules"), |bench| {
            bench.iter(|| drive(&mut service));
        });
        let full = guard(1, 0, routes);
        let held = admit(&full);
        let mut service = GuardLayer::new(full).layer(Noop);
        assert_eq!(drive(&mut service), StatusCode::SERVICE_UNAVAILABLE);
        group.bench_function(format!("refused, {routes} rules"), |bench| {
            bench.iter(|| drive(&mut service));
        });
        drop(held);
    }
    group.finish();
}

/// All slots are taken: to get in line, to be handed a slot, to leave.
pub(crate) fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("guard/queue");
    let mut cx = Context::from_waker(Waker::noop());
    for others in [0_usize, 100] {
        let guard = guard(1, 128, 0);
        let first = admit(&guard);
        let line: Vec<_> = (0..others).map(|_| admit(&guard)).collect();
        group.bench_function(format!("enter and leave, {others} before"), |bench| {
            bench.iter(|| match admit(&guard) {
                Admission::Wait(waiting) => {
                    let mut waiting = pin!(waiting);
                    assert!(waiting.as_mut().poll(&mut cx).is_pending());
                }
                other => unreachable!("{other:?}"),
            });
        });
        drop(line);
        drop(first);
    }
    let guard = guard(1, 128, 0);
    group.bench_function("enter, be handed the slot, release", |bench| {
        bench.iter(|| {
            let first = admit(&guard);
            let Admission::Wait(waiting) = admit(&guard) else {
                unreachable!("there is one slot");
            };
            let mut waiting = pin!(waiting);
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
            drop(first);
            assert!(waiting.as_mut().poll(&mut cx).is_ready());
        });
    });
    group.finish();
}
