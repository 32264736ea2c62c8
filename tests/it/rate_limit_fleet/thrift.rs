//! How many questions Redis is asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::identity::{Caller, PeerAddr};
use tower_keep::rate_limit::{Mode, Quota, RateLimitLayer, Rule, Scope};

use super::{HOUR, Instance, SECOND, at_once, by, fleet, only, questions};
use crate::redis::TestRedis;

/// Five rules, each of which counts against somebody else or something else.
fn five() -> Vec<Rule> {
    vec![
        at_once("caller", 20),
        at_once("tenant", 30).scope(Scope::Tenant),
        at_once("address", 40).scope(Scope::Ip),
        at_once("everybody", 50).scope(Scope::Global),
        at_once("print", 60).scope(Scope::Fingerprint),
    ]
}

fn told_who() -> Request<()> {
    let mut request = by("alice");
    let caller = Caller::new("alice").tenant("acme");
    request.extensions_mut().insert(caller);
    let peer = "203.0.113.7:1234".parse().unwrap();
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn five_rules_are_one_question_and_what_is_known_to_be_denied_is_none() {
    let server = TestRedis::start();
    let both = fleet(&server, 2, &only(five())).await;
    let layers = both
        .iter()
        .map(|instance| RateLimitLayer::new(instance.limiter.clone()));
    let hello = service_fn(async |_: Request<()>| {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello"))))
    });
    let services: Vec<_> = layers.map(|layer| layer.layer(hello)).collect();
    let ask = async |at: usize| {
        let answer = services[at].clone().oneshot(told_who()).await.unwrap();
        answer.status().as_u16()
    };
    let mut raw = server.raw();
    let before = questions(&mut raw);
    for passed in 1..=20 {
        assert_eq!(ask(0).await, 200);
        assert_eq!(questions(&mut raw), before + passed);
    }
    // The answer told as well that nothing is left.
    for _ in 0..50 {
        assert_eq!(ask(0).await, 429);
    }
    assert_eq!(questions(&mut raw), before + 20);
    // The other one has to be told, once.
    for _ in 0..50 {
        assert_eq!(ask(1).await, 429);
    }
    assert_eq!(questions(&mut raw), before + 21);
    // All five were charged for what passed, and for nothing else.
    for (owner, bucket, holds) in [
        ("caller:alice", "caller", 20),
        ("tenant:acme", "tenant", 30),
        ("ip:203.0.113.7", "address", 40),
        ("all", "everybody", 50),
    ] {
        assert_eq!(super::bucket::used(&mut raw, owner, bucket, holds), 20);
    }
}

/// So many requests one after the other, each of which passes.
async fn pass(instance: Arc<Instance>, count: usize, pace: Duration) {
    let began = Instant::now();
    for done in 0..count {
        let due = pace * u32::try_from(done).unwrap();
        tokio::time::sleep_until((began + due).into()).await;
        assert!(instance.passes("alice").await, "{done}");
    }
}

/// The questions that four instances ask for so many requests each, on a key within its quota.
async fn asked(mode: Mode, count: usize, pace: Duration) -> u64 {
    let server = TestRedis::start();
    // Four times what comes.
    let quota = Quota::requests(16_000).per(SECOND).burst(16_000);
    let mut rule = at_once("hot", 1).mode(mode);
    rule.quota = Some(quota);
    let all = fleet(&server, 4, &only([rule])).await;
    let mut raw = server.raw();
    let before = questions(&mut raw);
    let tasks = all
        .iter()
        .map(|instance| tokio::spawn(pass(Arc::clone(instance), count, pace)));
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    questions(&mut raw) - before
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_ask_for_twenty_requests_at_a_time_and_more() {
    const COUNT: usize = 2000;
    let (exact, leased) = tokio::join!(
        asked(Mode::Exact, COUNT, Duration::from_millis(1)),
        asked(Mode::Leased, COUNT, Duration::from_millis(1))
    );
    eprintln!("{exact} questions in exact mode, {leased} with leases");
    assert_eq!(exact, 4 * COUNT as u64);
    assert!(leased * 20 <= exact, "{leased} of {exact}");
}

/// A burst that is used up and hammered on: each instance learns of it once.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_asks_nothing_with_leases_either() {
    let server = TestRedis::start();
    let all = fleet(&server, 4, &only([at_once("hot", 100).mode(Mode::Leased)])).await;
    let mut passed = 0;
    for instance in &all {
        passed += instance.count("alice", 1000).await;
    }
    // What one of them holds in advance is of no use to the others.
    assert!((90..=100).contains(&passed), "{passed}");
    let mut raw = server.raw();
    let before = questions(&mut raw);
    for instance in &all {
        for _ in 0..1000 {
            assert!(!instance.passes("alice").await);
        }
    }
    assert_eq!(questions(&mut raw), before);
}

/// Every way that tokens are taken in advance while hundreds of others ask for the same bucket along with
/// buckets of their own: none of it is taken twice and lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_leased_rule_beside_exact_ones_is_of_use_to_the_last_tenth() {
    let server = TestRedis::start();
    let everybody = Rule::new("everybody", Quota::requests(4000).per(HOUR * 24))
        .scope(Scope::Global)
        .mode(Mode::Leased);
    let all = fleet(&server, 4, &only([at_once("own", 1), everybody])).await;
    let mut tasks = Vec::new();
    for (at, instance) in (0..).zip(&all) {
        for task in 0..50 {
            let instance = Arc::clone(instance);
            tasks.push(tokio::spawn(async move {
                let mut passed = 0;
                for caller in 0..25 {
                    let caller = format!("{at}-{task}-{caller}");
                    passed += usize::from(instance.passes(&caller).await);
                }
                passed
            }));
        }
    }
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    let mut raw = server.raw();
    eprintln!("{passed} of 4000, {} questions", questions(&mut raw));
    assert!(passed <= 4000, "{passed}");
    assert!(passed >= 3800, "{passed}");
}
