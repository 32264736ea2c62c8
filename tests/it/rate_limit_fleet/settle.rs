//! What is known only after the answer, told to Redis.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::rate_limit::{
    Cost, Count, Mode, Quota, RateLimitBody, RateLimitConfig, RateLimitLayer, RequestCost,
};

use super::bucket::used;
use super::{Instance, SECOND, at_once, by, only, questions};
use crate::redis::TestRedis;
use crate::store::{patient, until};

type Answer = Response<RateLimitBody<Full<Bytes>>>;

/// One of a fleet before a service that answers with this status, and says what it cost.
async fn answered(instance: &Instance, status: u16, cost: u32) -> Answer {
    let login = service_fn(move |_: Request<()>| async move {
        let body = Full::new(Bytes::from(vec![b'x'; 250]));
        let mut answer = Response::builder().status(status).body(body).unwrap();
        answer.extensions_mut().insert(Cost(cost));
        Ok::<_, Infallible>(answer)
    });
    let layer = RateLimitLayer::new(instance.limiter.clone());
    layer.layer(login).oneshot(by("alice")).await.unwrap()
}

async fn two(server: &TestRedis, config: &RateLimitConfig) -> (Instance, Instance) {
    let redis = patient(&server.url());
    (
        Instance::join(&redis, config).await,
        Instance::join(&redis, config).await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_login_is_given_back_and_a_wrong_one_counts_everywhere() {
    let server = TestRedis::start();
    let rule = at_once("login", 5).count(Count::Failures);
    let (one, other) = two(&server, &only([rule])).await;
    let mut raw = server.raw();
    let mut is_used = |tokens| used(&mut raw, "caller:alice", "login", 5) == tokens;
    for _ in 0..20 {
        assert_eq!(answered(&one, 200, 0).await.status(), 200);
        until("it is given back", || is_used(0)).await;
    }
    for wrong in 1..=5 {
        let instance = if wrong % 2 == 0 { &one } else { &other };
        assert_eq!(answered(instance, 401, 0).await.status(), 401);
        until("it counts", || is_used(wrong)).await;
    }
    assert_eq!(answered(&one, 200, 0).await.status(), 429);
    assert_eq!(answered(&other, 200, 0).await.status(), 429);
}

/// What one knows of a bucket is told only to a server that may have forgotten it.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_gave_back_is_not_charged_again() {
    let server = TestRedis::start();
    let rule = at_once("login", 50).count(Count::Failures);
    let (one, other) = two(&server, &only([rule])).await;
    let mut raw = server.raw();
    let mut is_used = |tokens| used(&mut raw, "caller:alice", "login", 50) == tokens;
    assert_eq!(answered(&one, 401, 0).await.status(), 401);
    for wrong in 2..=20 {
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let right = slow_login(&other, told);
        let right = tokio::spawn(right);
        until("the right one counts for now", || is_used(wrong)).await;
        // This one hears of both.
        assert_eq!(answered(&one, 401, 0).await.status(), 401);
        tell.send(()).unwrap();
        assert_eq!(right.await.unwrap().status(), 200);
        until("only the wrong ones count", || is_used(wrong)).await;
    }
}

/// A right login whose answer comes when it is told to.
fn slow_login(
    instance: &Instance,
    told: tokio::sync::oneshot::Receiver<()>,
) -> impl Future<Output = Answer> + Send + use<> {
    let told = Arc::new(tokio::sync::Mutex::new(Some(told)));
    let login = service_fn(move |_: Request<()>| {
        let told = Arc::clone(&told);
        async move {
            let told = told.lock().await.take().expect("once");
            told.await.unwrap();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("welcome"))))
        }
    });
    let layer = RateLimitLayer::new(instance.limiter.clone());
    let answer = layer.layer(login).oneshot(by("alice"));
    async move { answer.await.unwrap() }
}

/// What has grown back by itself is charged to nobody any more: to give it back would be to give away what
/// others were charged.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_after_it_has_grown_back_is_nothing() {
    let server = TestRedis::start();
    let mut rule = at_once("login", 1).count(Count::Failures);
    rule.quota = Some(Quota::requests(2).per(SECOND).burst(100));
    let (one, other) = two(&server, &only([rule])).await;
    let mut raw = server.raw();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let right = tokio::spawn(slow_login(&other, told));
    let key = "keep:rl:{caller:alice}:login";
    until("it is charged", || {
        raw.must(&["EXISTS", key]).integer() == 1
    })
    .await;
    until("it has grown back", || {
        raw.must(&["EXISTS", key]).integer() == 0
    })
    .await;
    for _ in 0..40 {
        assert_eq!(answered(&one, 401, 0).await.status(), 401);
    }
    // Of the forty nothing is lost.
    let (charged, before) = (raw.must(&["GET", key]), questions(&mut raw));
    tell.send(()).unwrap();
    assert_eq!(right.await.unwrap().status(), 200);
    until("it is told", || questions(&mut raw) > before).await;
    assert_eq!(raw.must(&["GET", key]), charged);
    assert_ne!(charged, crate::redis::Answer::Nil);
}

/// With leases as well, though what lies before tokens taken in advance stays counted.
#[tokio::test(flavor = "multi_thread")]
async fn right_logins_are_given_back_also_where_tokens_are_taken_in_advance() {
    let server = TestRedis::start();
    let rule = at_once("login", 100).count(Count::Failures);
    let (one, other) = two(&server, &only([rule.mode(Mode::Leased)])).await;
    for turn in 0..500 {
        let instance = if turn % 2 == 0 { &one } else { &other };
        assert_eq!(answered(instance, 200, 0).await.status(), 200, "{turn}");
    }
    let mut wrong = 0;
    for instance in [&one, &other] {
        while answered(instance, 401, 0).await.status() == 401 {
            wrong += 1;
        }
    }
    assert!((50..=100).contains(&wrong), "{wrong}");
}

#[tokio::test(flavor = "multi_thread")]
async fn costs_that_are_told_afterwards_are_charged_everywhere() {
    let server = TestRedis::start();
    let rule = at_once("told", 100).cost(RequestCost::Told);
    let (one, other) = two(&server, &only([rule])).await;
    let mut raw = server.raw();
    let mut is_used = |tokens| used(&mut raw, "caller:alice", "told", 100) == tokens;
    for (cost, all) in [(30, 30), (0, 30), (1, 31), (200, 200)] {
        assert_eq!(answered(&one, 200, cost).await.status(), 200);
        // At most twice what it holds.
        until("it is charged", || is_used(all)).await;
    }
    assert_eq!(answered(&other, 200, 0).await.status(), 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_of_answers_are_charged_everywhere_once_they_are_sent() {
    let server = TestRedis::start();
    let rule = at_once("bytes", 600).cost(RequestCost::BodyBytes);
    let (one, other) = two(&server, &only([rule])).await;
    let mut raw = server.raw();
    let mut is_used = |tokens| used(&mut raw, "caller:alice", "bytes", 600) == tokens;
    for (instance, all) in [(&one, 250), (&other, 500), (&one, 750)] {
        let answer = answered(instance, 200, 0).await;
        assert_eq!(answer.status(), 200);
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 250);
        until("it is charged", || is_used(all)).await;
    }
    assert_eq!(answered(&other, 200, 0).await.status(), 429);
}

/// What a request costs is part of what is asked: nobody goes along with somebody cheaper.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_different_costs_are_never_charged_for_each_other() {
    let server = TestRedis::start();
    let costs = |request: &tower_keep::identity::RequestView<'_>| {
        let cost = request.headers.get("x-cost").unwrap();
        cost.to_str().unwrap().parse().unwrap()
    };
    let rule = at_once("costly", 20_000).cost(RequestCost::by(costs));
    let instance = Instance::join(&patient(&server.url()), &only([rule])).await;
    let checks = (0..200_u32).map(|n| {
        let cost = if n % 2 == 0 { 1 } else { 64 };
        let mut request = by("alice");
        request.headers_mut().insert("x-cost", cost.into());
        let view = tower_keep::identity::RequestView::of(&request);
        tokio::spawn(instance.limiter.check(&view))
    });
    for check in checks.collect::<Vec<_>>() {
        assert!(check.await.unwrap().unwrap().is_allow());
    }
    let mut raw = server.raw();
    let all = used(&mut raw, "caller:alice", "costly", 20_000);
    assert_eq!(all, 100 + 6400);
}
