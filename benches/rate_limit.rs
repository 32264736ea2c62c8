//! What a decision costs without HTTP, and what the layer adds to a service that does nothing.
//!
//! `cargo bench --bench rate_limit`. Beside the decisions stands their floor: a hash, a look at the clock and
//! one compare-and-swap in a table that is asked for nothing else. In the layers building the request and
//! dropping the answer is part of every figure, `nothing` is that alone. Allocations are counted. What peers
//! take for the same is measured by `benches/peers`.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a bench fails by panicking, and criterion's macros make undocumented functions"
)]

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hash::BuildHasher;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use criterion::{
    BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime,
};
use foldhash::fast::FixedState;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::PeerAddr;
use tower_keep::rate_limit::{
    Decision, Quota, RateLimitConfig, RateLimitLayer, RateLimiter, Rule, RuleCheck, Scope,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Body = Empty<Bytes>;

const KEYS: u32 = 10_000;
const RULE: &str = "rule";

/// Half full once all keys have come.
const KEYS_MAX: usize = KEYS as usize * 8 / 5;

/// So many at once that the end of it is never seen, and so slow that every bucket stays in use.
const ENDLESS: Quota = Quota::requests(1)
    .per(Duration::from_secs(1))
    .burst(5_000_000);

/// One an hour, which the first request has taken.
const SPENT: Quota = Quota::requests(1).per(Duration::from_secs(3600));

/// Everybody's address in turn, in no order.
struct Clients {
    at: u32,
}

impl Clients {
    const fn new() -> Self {
        Self { at: 0 }
    }

    fn next(&mut self) -> IpAddr {
        self.at = (self.at + 1) % KEYS;
        let mixed = self.at.wrapping_mul(0x9e37_79b1) & 0x00ff_ffff;
        IpAddr::V4(Ipv4Addr::from_bits(45 << 24 | mixed))
    }
}

fn limiter(rules: Vec<Rule>) -> RateLimiter {
    let config = RateLimitConfig {
        default_rule: false,
        keys_max: KEYS_MAX * rules.len(),
        rules,
        ..RateLimitConfig::default()
    };
    let limiter = RateLimiter::new(&config, &[], Clock::system(), Events::none());
    limiter.expect("a valid configuration")
}

fn by_address(name: &str, quota: Quota) -> Rule {
    Rule::new(name, quota).scope(Scope::Ip)
}

/// In memory a decision is there at once.
fn decided(check: RuleCheck<'_>) -> Option<Decision> {
    match pin!(check).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(decision) => decision,
        Poll::Pending => None,
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate_limit/decision");
    for (name, quota) in [("allow", ENDLESS), ("deny", SPENT)] {
        let limiter = limiter(vec![by_address(RULE, quota)]);
        let mut clients = Clients::new();
        let rule = limiter.rule(RULE).expect("the rule");
        (0..KEYS).for_each(|_| drop(rule.check_ip(clients.next(), 1)));
        group.bench_function(name, |bench| {
            bench.iter(|| decided(rule.check_ip(clients.next(), 1)));
        });
    }
    let callers = limiter(vec![Rule::new(RULE, ENDLESS)]);
    let callers = callers.rule(RULE).expect("the rule");
    group.bench_function("allow_text", |bench| {
        bench.iter(|| decided(callers.check_key(black_box("alice"), 1)));
    });
    let (floor, mut clients) = (Floor::new(), Clients::new());
    group.bench_function("floor", |bench| {
        bench.iter(|| floor.charge(clients.next()));
    });
    group.finish();
}

/// The least that a decision can be.
struct Floor {
    hasher: FixedState,
    clock: Clock,
    slots: Vec<AtomicU64>,
}

impl Floor {
    fn new() -> Self {
        Self {
            hasher: FixedState::with_seed(7),
            clock: Clock::system(),
            slots: (0..KEYS * 2).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn charge(&self, key: IpAddr) -> bool {
        let hash = u128::from(self.hasher.hash_one(key));
        let at = (hash * self.slots.len() as u128) >> 64;
        let Some(slot) = self.slots.get(at as usize) else {
            return false;
        };
        let seen = slot.load(Ordering::Relaxed);
        let next = seen.max(self.clock.now().as_nanos()) + 1;
        slot.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// Answers with nothing.
#[derive(Clone)]
struct Nothing;

impl Service<Request<Body>> for Nothing {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        ready(Ok(Response::new(Empty::new())))
    }
}

fn request(client: IpAddr) -> Request<Body> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = http::Uri::from_static("/contacts/7");
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("crm.example"));
    headers.insert(USER_AGENT, HeaderValue::from_static("bench/1"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    let peer = SocketAddr::new(client, 50_000);
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

/// One request through a service that is ready at once, polled by hand: no executor in the figure.
fn drive<S>(service: &mut S, client: IpAddr)
where
    S: Service<Request<Body>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let _ = black_box(service.poll_ready(&mut cx));
    match pin!(service.call(request(client))).poll(&mut cx) {
        Poll::Ready(answer) => drop(black_box(answer)),
        Poll::Pending => unreachable!("nothing here waits"),
    }
}

fn measure<S>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S)
where
    S: Service<Request<Body>, Error = Infallible>,
{
    let mut clients = Clients::new();
    (0..KEYS).for_each(|_| drive(&mut service, clients.next()));
    let region = Region::new(ALLOCATOR);
    (0..1_000).for_each(|_| drive(&mut service, clients.next()));
    let allocations = region.change().allocations as f64 / 1_000.0;
    println!("{name}: {allocations:.1} allocations per request");
    group.bench_function(name, |bench| {
        bench.iter(|| drive(&mut service, clients.next()));
    });
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rate_limit/layer");
    let layer = |rules| RateLimitLayer::new(limiter(rules)).layer(Nothing);
    measure(&mut group, "nothing", Nothing);
    // A rule that only watches has nothing to say.
    let quiet = by_address(RULE, ENDLESS).shadow(true);
    measure(&mut group, "allow_quiet", layer(vec![quiet]));
    measure(&mut group, "allow", layer(vec![by_address(RULE, ENDLESS)]));
    let four = ["one", "two", "three", "four"].map(|name| by_address(name, ENDLESS));
    measure(&mut group, "allow_four_rules", layer(four.to_vec()));
    measure(&mut group, "deny", layer(vec![by_address(RULE, SPENT)]));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(60).measurement_time(Duration::from_secs(3));
    targets = decisions, layers
}
criterion_main!(benches);
