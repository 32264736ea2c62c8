//! Circuit breakers: a call that is made, and one that is not.

use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use criterion::Criterion;
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_keep::breaker::{BreakerConfig, BreakerLayer, CircuitBreakers};
use tower_keep::clock::Clock;
use tower_keep::event::Events;

use crate::goals::{measure, nanos, note};

fn breakers(change: impl FnOnce(&mut BreakerConfig)) -> CircuitBreakers {
    let mut config = BreakerConfig::default();
    change(&mut config);
    CircuitBreakers::new(&config, Clock::system(), Events::none()).expect("settings")
}

pub(crate) fn breaker(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("breaker");
    for (secs, name) in [
        (10, "a call that succeeds, window of 10 s"),
        (600, "a call that succeeds, window of 10 min"),
    ] {
        let breaker = breakers(|config| config.window = Duration::from_secs(secs)).of("bench");
        let seen = measure(&mut group, name, || {
            if let Ok(call) = black_box(&breaker).admit() {
                call.succeeded();
            }
        });
        note(name, seen, 75.0, "ns");
    }
    let never = breakers(|config| {
        config.consecutive_failures = None;
        config.calls_min = 1_000_000;
        config.window = Duration::from_millis(10);
    });
    let never = never.of("bench");
    measure(&mut group, "a call that fails", || {
        if let Ok(call) = black_box(&never).admit() {
            call.failed();
        }
    });
    let open = breakers(|_| {}).of("bench");
    open.force_open();
    measure(&mut group, "a call that is not made", || {
        drop(black_box(black_box(&open).admit()));
    });
    let all = breakers(|_| {});
    let held: Vec<_> = (0..200)
        .map(|host| all.of(&format!("h{host}.test")))
        .collect();
    measure(&mut group, "a circuit by name, of 200", || {
        drop(black_box(all.of(black_box("h7.test"))));
    });
    drop(held);
    group.finish();
    let layer = BreakerLayer::new(breakers(|_| {}).of("bench"));
    let with = of_service(layer.layer(service_fn(answer)));
    let without = of_service(service_fn(answer));
    note(
        "the layer, over the service alone",
        with - without,
        75.0,
        "ns",
    );
}

fn answer(_: Request<()>) -> Ready<Result<Response<()>, std::io::Error>> {
    ready(Ok(Response::new(())))
}

/// What a request takes.
fn of_service<S>(mut service: S) -> f64
where
    S: Service<Request<()>>,
{
    nanos(|| {
        let mut cx = Context::from_waker(Waker::noop());
        let future = pin!(service.call(black_box(Request::new(()))));
        drop(black_box(future.poll(&mut cx)));
    })
}
