//! Who the limiter counts, spares and refuses, as seen from before a service.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::{ApiKey, Caller, PeerAddr};
use tower_keep::rate_limit::{
    Count, Quota, RateLimitConfig, RateLimitLayer, RateLimiter, Rule, Scope,
};
use tower_keep::refusal::Refusal;

const MINUTE: Duration = Duration::from_secs(60);

/// Only these rules.
fn only(rules: Vec<Rule>) -> RateLimitConfig {
    RateLimitConfig {
        default_rule: false,
        rules,
        ..RateLimitConfig::default()
    }
}

/// A limiter whose clock stands still.
fn limiter(config: &RateLimitConfig) -> RateLimiter {
    let (clock, _hand) = Clock::manual();
    RateLimiter::new(config, &[], clock, Events::none()).unwrap()
}

fn from(peer: &str) -> Request<()> {
    let mut request = Request::new(());
    let peer: IpAddr = peer.parse().unwrap();
    let peer = SocketAddr::new(peer, 1234);
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

fn by(caller: Caller) -> Request<()> {
    let mut request = from("203.0.113.7");
    request.extensions_mut().insert(caller);
    request
}

/// What a service answers behind the limiter that says 401 to whoever comes for `/login`, else 200.
async fn ask(limiter: &RateLimiter, request: &Request<()>) -> Response<()> {
    let service = service_fn(async |request: Request<()>| {
        let mut response = Response::new(());
        if request.uri().path() == "/login" {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(response)
    });
    let limited = RateLimitLayer::new(limiter.clone()).layer(service);
    limited.oneshot(request.clone()).await.unwrap().map(|_| ())
}

/// How many of `times` such requests reach the service.
async fn passes(limiter: &RateLimiter, request: &Request<()>, times: usize) -> usize {
    let mut passed = 0;
    for _ in 0..times {
        let answer = ask(limiter, request).await;
        passed += usize::from(answer.extensions().get::<Refusal>().is_none());
    }
    passed
}

#[tokio::test]
async fn who_is_listed_is_spared_or_refused_whatever_the_rules_say() {
    let limiter = limiter(&RateLimitConfig {
        allow: ["10.0.0.0/8", "caller:probe"].map(str::to_owned).to_vec(),
        deny: ["198.51.100.0/24", "tenant:acme"]
            .map(str::to_owned)
            .to_vec(),
        admin_bypass: true,
        ..only(vec![
            Rule::new("all", Quota::requests(3).per(MINUTE)).scope(Scope::Global),
        ])
    });
    for spared in [
        from("10.1.2.3"),
        by(Caller::new("probe")),
        by(Caller::new("root").tier("admin")),
    ] {
        assert_eq!(passes(&limiter, &spared, 20).await, 20);
        let answer = ask(&limiter, &spared).await;
        assert!(!answer.headers().contains_key("ratelimit"), "{answer:?}");
    }
    for refused in [
        from("198.51.100.7"),
        by(Caller::new("a").tenant("acme")),
        by(Caller::new("probe").tenant("acme")),
    ] {
        let answer = ask(&limiter, &refused).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        assert_eq!(answer.extensions().get(), Some(&Refusal::DenyListed));
        assert!(!answer.headers().contains_key("retry-after"), "{answer:?}");
    }
    // None of all that was counted by the rule for everybody.
    assert_eq!(passes(&limiter, &from("203.0.113.7"), 9).await, 3);
}

#[tokio::test]
async fn an_address_has_no_more_than_256_fingerprints_however_it_describes_itself() {
    let quota = Quota::requests(2).per(MINUTE);
    let limiter = limiter(&only(vec![
        Rule::new("prints", quota).scope(Scope::Fingerprint),
    ]));
    let described = |agent: String| {
        let mut request = from("203.0.113.7");
        let headers: &mut HeaderMap = request.headers_mut();
        headers.insert("user-agent", agent.parse().unwrap());
        request
    };
    let firefox = described("Firefox/140".to_owned());
    assert_eq!(passes(&limiter, &firefox, 5).await, 2);
    let mut passed = 0;
    for at in 0..5000 {
        passed += passes(&limiter, &described(format!("bot {at}")), 1).await;
    }
    // Enough to tell people apart who share the address; an end to it for one who makes himself many.
    assert!((400..=2 * 255).contains(&passed), "{passed}");
    assert_eq!(passes(&limiter, &from("203.0.113.8"), 5).await, 2);
}

#[tokio::test]
async fn a_caller_of_a_tier_that_nobody_knows_gets_the_smallest_quota() {
    let limiter = limiter(&only(vec![Rule::plans()]));
    for (request, passed) in [
        (from("203.0.113.7"), 20),
        (by(Caller::new("a").tier("free")), 100),
        (by(Caller::new("b").tier("pro")), 1000),
        (by(Caller::new("c").tier("platinum")), 20),
        // `basic`, which is none of the plans.
        (by(Caller::new("d")), 20),
    ] {
        assert_eq!(passes(&limiter, &request, 1001).await, passed);
    }
}

#[tokio::test]
async fn a_preset_search_lets_ten_at_once_through_and_fifty_a_minute_after() {
    let (clock, hand) = Clock::manual();
    let config = only(vec![Rule::search("/search")]);
    let limiter = RateLimiter::new(&config, &[], clock, Events::none()).unwrap();
    let mut request = by(Caller::new("a"));
    *request.uri_mut() = "/search?q=x".parse().unwrap();
    let mut passed = passes(&limiter, &request, 30).await;
    assert_eq!(passed, 10);
    for _ in 0..60 {
        hand.advance(Duration::from_secs(1));
        passed += passes(&limiter, &request, 5).await;
    }
    assert_eq!(passed, 60);
    *request.uri_mut() = "/other".parse().unwrap();
    assert_eq!(passes(&limiter, &request, 100).await, 100);
}

#[tokio::test]
async fn only_failed_logins_count_where_only_failures_do() {
    for (count, passed) in [
        (Count::All, 5),
        (Count::Failures, 5),
        (Count::Successes, 20),
        (
            Count::when(|response| response.status == StatusCode::FORBIDDEN),
            20,
        ),
    ] {
        let rule = Rule::authentication("/login").count(count.clone());
        let limiter = limiter(&only(vec![rule]));
        let mut request = from("203.0.113.7");
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = "/login".parse().unwrap();
        assert_eq!(passes(&limiter, &request, 20).await, passed, "{count:?}");
    }
}

#[tokio::test]
async fn a_key_keeps_its_bucket_wherever_it_is_used_and_on_whatever_plan() {
    let quota = Quota::requests(4).per(MINUTE);
    let rule = Rule::new("keys", quota)
        .scope(Scope::ApiKey)
        .tier("pro", quota);
    let limiter = limiter(&only(vec![rule]));
    let keyed = |peer: &str, tier: &str| {
        let mut request = from(peer);
        let extensions = request.extensions_mut();
        extensions.insert(ApiKey::new("k-1"));
        extensions.insert(Caller::new("a").tier(tier));
        request
    };
    assert_eq!(passes(&limiter, &keyed("203.0.113.7", "basic"), 3).await, 3);
    assert_eq!(passes(&limiter, &keyed("203.0.113.8", "pro"), 3).await, 1);
}
