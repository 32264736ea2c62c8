//! The guard and a circuit breaker as a keep runs them: watched by its canary, counted by its metrics.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use criterion::Criterion;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service, service_fn};
use tower_keep::{Keep, Profile};

use crate::goals::{nanos, note};

type Body = Empty<Bytes>;

pub(crate) fn whole(criterion: &mut Criterion) {
    // One with a worker of its own: the canary lives while the bench holds this thread.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let inside = runtime.enter();
    let keep = Keep::builder(Profile::azure_b1())
        .build()
        .expect("settings");
    drop(inside);
    let mut group = criterion.benchmark_group("guard/whole");
    let without = of_service(service_fn(answer));
    let guard = of_service(keep.guard_layer().layer(service_fn(answer)));
    note(
        "the guard of a keep, over the service",
        guard - without,
        80.0,
        "ns",
    );
    let breaker = keep.breaker_layer("bench");
    let inner = breaker.layer(service_fn(answer));
    let both = of_service(keep.guard_layer().layer(inner.clone()));
    note("the guard and a breaker", both - without, 200.0, "ns");
    let mut service = keep.guard_layer().layer(inner);
    group.bench_function("the guard and a breaker", |bench| {
        bench.iter(|| drive(&mut service));
    });
    group.finish();
}

fn answer(_: Request<Body>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(Response::new(Empty::new())))
}

fn of_service<S: Service<Request<Body>>>(mut service: S) -> f64 {
    nanos(|| drive(&mut service))
}

fn drive<S: Service<Request<Body>>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    let future = pin!(service.call(black_box(Request::new(Empty::new()))));
    drop(black_box(future.poll(&mut cx)));
}
