//! What rules can say beyond a number per time, through the layer and without it, in memory.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::identity::{Caller, PeerAddr, RequestView};
use tower_keep::rate_limit::{
    Cost, Count, Decision, PenaltyConfig, Period, Quota, RateLimitConfig, RateLimitLayer,
    RateLimiter, RefusalWriter, RequestCost, Rule, Scope,
};
use tower_keep::refusal::Refusal;

const HOUR: Duration = Duration::from_secs(3600);

type Answer = Response<Full<Bytes>>;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }
}

struct Stand {
    limiter: RateLimiter,
    hand: ManualClock,
    heard: Arc<Heard>,
}

fn only(rules: Vec<Rule>) -> RateLimitConfig {
    RateLimitConfig {
        keys_max: 1000,
        default_rule: false,
        rules,
        ..RateLimitConfig::default()
    }
}

fn stand(config: &RateLimitConfig) -> Stand {
    let (clock, hand) = Clock::manual();
    let heard = Arc::new(Heard::default());
    let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
    let limiter = RateLimiter::new(config, &[], clock, events).unwrap();
    Stand {
        limiter,
        hand,
        heard,
    }
}

fn an_hour(requests: u32) -> Quota {
    Quota::requests(requests).per(HOUR)
}

fn from(peer: &str) -> Request<()> {
    let mut request = Request::new(());
    let peer = SocketAddr::new(peer.parse().unwrap(), 1234);
    request.extensions_mut().insert(PeerAddr(peer));
    request
}

fn somebody() -> Request<()> {
    from("203.0.113.7")
}

impl Stand {
    /// The answer of a service that answers so, or of the limiter before it.
    async fn answer(&self, request: Request<()>, with: Answer) -> Response<Bytes> {
        let answer = Mutex::new(Some(with));
        let answer = Arc::new(answer);
        let service = service_fn(move |_: Request<()>| {
            let answer = answer.lock().unwrap().take().unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let service = RateLimitLayer::new(self.limiter.clone()).layer(service);
        let (head, body) = service.oneshot(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn status(&self, request: Request<()>, with: StatusCode) -> StatusCode {
        let mut answer = Answer::default();
        *answer.status_mut() = with;
        self.answer(request, answer).await.status()
    }

    /// How many of 100 requests pass at once.
    async fn passes(&self, request: impl Fn() -> Request<()>) -> usize {
        let mut passed = 0;
        for _ in 0..100 {
            let decision = self.limiter.check(&RequestView::of(&request())).await;
            passed += usize::from(decision.is_none_or(|decision| decision.is_allow()));
        }
        passed
    }

    fn remaining(&self) -> u32 {
        let decision = self.limiter.peek(&RequestView::of(&somebody())).unwrap();
        decision.standing().unwrap().remaining()
    }
}

#[tokio::test]
async fn who_knows_the_password_is_never_kept_waiting() {
    let login = Rule::new("login", an_hour(3)).count(Count::Failures);
    let stand = stand(&only(vec![login]));
    for _ in 0..20 {
        assert_eq!(stand.status(somebody(), StatusCode::OK).await, 200);
    }
    for _ in 0..3 {
        assert_eq!(
            stand.status(somebody(), StatusCode::UNAUTHORIZED).await,
            401
        );
    }
    assert_eq!(stand.status(somebody(), StatusCode::OK).await, 429);
    assert_eq!(stand.status(from("203.0.113.8"), StatusCode::OK).await, 200);
}

#[tokio::test]
async fn a_handler_tells_what_a_request_has_cost() {
    let rule = Rule::new("tokens", an_hour(100)).cost(RequestCost::Told);
    let stand = stand(&only(vec![rule]));
    let costs = |cost: Option<u32>| {
        let mut answer = Answer::default();
        if let Some(cost) = cost {
            answer.extensions_mut().insert(Cost(cost));
        }
        answer
    };
    for (cost, remaining) in [(Some(30), 70), (Some(0), 70), (None, 69), (Some(1), 68)] {
        assert_eq!(stand.answer(somebody(), costs(cost)).await.status(), 200);
        assert_eq!(stand.remaining(), remaining, "{cost:?}");
    }
    // More than was left: that is paid back before anybody passes again.
    assert_eq!(
        stand.answer(somebody(), costs(Some(118))).await.status(),
        200
    );
    let refused = stand.answer(somebody(), costs(None)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], (51 * 36).to_string());
    stand.hand.advance(Duration::from_secs(51 * 36));
    assert_eq!(stand.answer(somebody(), costs(None)).await.status(), 200);
}

#[tokio::test]
async fn a_body_costs_the_bytes_that_were_sent_of_it() {
    let rule = Rule::new("bytes", an_hour(1000)).cost(RequestCost::BodyBytes);
    let stand = stand(&only(vec![rule]));
    let layer = RateLimitLayer::new(stand.limiter.clone());
    let service = layer.layer(service_fn(|_: Request<()>| async {
        let frames =
            (0..10).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[7; 60]))));
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
    }));
    let answer = service.clone().oneshot(somebody()).await.unwrap();
    assert_eq!(stand.remaining(), 1000, "nothing was sent yet");
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes().len(),
        600
    );
    assert_eq!(stand.remaining(), 400);
    // A client that leaves in the middle.
    let mut body = service
        .clone()
        .oneshot(somebody())
        .await
        .unwrap()
        .into_body();
    for _ in 0..2 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert_eq!(stand.remaining(), 280);
    let answer = service.clone().oneshot(somebody()).await.unwrap();
    answer.into_body().collect().await.unwrap();
    assert_eq!(service.oneshot(somebody()).await.unwrap().status(), 429);
}

#[tokio::test]
async fn a_request_may_cost_several_tokens() {
    let rule = Rule::new("weighed", an_hour(10)).cost(RequestCost::by(|request| {
        let weight = request.headers.get("x-weight");
        weight.map_or(1, |weight| weight.to_str().unwrap().parse().unwrap())
    }));
    let stand = stand(&only(vec![rule]));
    let weighs = |weight: u32| {
        let mut request = somebody();
        request.headers_mut().insert("x-weight", weight.into());
        request
    };
    assert_eq!(stand.status(weighs(7), StatusCode::OK).await, 200);
    assert_eq!(stand.status(weighs(4), StatusCode::OK).await, 429);
    assert_eq!(stand.status(weighs(3), StatusCode::OK).await, 200);
    assert_eq!(
        stand.status(weighs(0), StatusCode::OK).await,
        429,
        "nothing is left"
    );
    stand.hand.advance(HOUR);
    // More than it holds is all that it holds.
    assert_eq!(stand.status(weighs(99), StatusCode::OK).await, 200);
    assert_eq!(stand.remaining(), 0);
}

#[tokio::test]
async fn a_plans_quota_comes_back_with_the_calendar() {
    let plan = Rule::new("plan", Quota::requests(5).each(Period::Day));
    let stand = stand(&only(vec![plan]));
    // A manual clock begins at midnight.
    stand.hand.advance(22 * HOUR);
    let first = stand.answer(somebody(), Answer::default()).await;
    assert_eq!(first.headers()["ratelimit-policy"], "\"plan\";q=5;w=86400");
    assert_eq!(first.headers()["ratelimit"], "\"plan\";r=4;t=7200");
    assert_eq!(stand.passes(somebody).await, 4);
    stand.hand.advance(HOUR);
    let refused = stand.answer(somebody(), Answer::default()).await;
    assert_eq!(refused.headers()["retry-after"], "3600");
    assert_eq!(refused.headers()["ratelimit"], "\"plan\";r=0;t=3600");
    stand.hand.advance(HOUR - Duration::from_secs(1));
    assert_eq!(stand.passes(somebody).await, 0);
    stand.hand.advance(Duration::from_secs(1));
    assert_eq!(stand.passes(somebody).await, 5);
    stand.hand.advance(20 * 24 * HOUR);
    assert_eq!(stand.passes(somebody).await, 5);
}

#[tokio::test]
async fn who_goes_on_after_a_refusal_is_banned_and_may_be_pardoned() {
    let penalty = PenaltyConfig {
        strikes: 3,
        ..PenaltyConfig::default()
    };
    let config = RateLimitConfig {
        penalty: Some(penalty),
        ..only(vec![Rule::new("r", an_hour(1)).methods([Method::POST])])
    };
    let stand = stand(&config);
    let post = || {
        let mut request = somebody();
        *request.method_mut() = Method::POST;
        request
    };
    assert_eq!(stand.passes(post).await, 1);
    let refused = stand.answer(somebody(), Answer::default()).await;
    assert_eq!(
        refused.status(),
        429,
        "no rule speaks of it, but the client is banned"
    );
    assert_eq!(refused.headers()["retry-after"], "60");
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    let abuse = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected";
    assert_eq!(problem["type"], abuse);
    let reason = refused.extensions().get::<Refusal>().unwrap();
    assert_eq!(reason.name(), "banned");
    assert_eq!(stand.status(from("203.0.113.8"), StatusCode::OK).await, 200);
    let heard = stand.heard.0.lock().unwrap().clone();
    let banned = "ClientBanned { who: \"ip:203.0.113.7\", lasts: 60s }";
    assert_eq!(heard.iter().filter(|event| *event == banned).count(), 1);
    assert!(heard.contains(&"ClientShutOut { why: \"banned\" }".to_owned()));
    assert!(stand.limiter.unban("ip:203.0.113.7"));
    assert!(!stand.limiter.unban("ip:203.0.113.7"));
    assert_eq!(stand.status(somebody(), StatusCode::OK).await, 200);
    assert!(stand.limiter.ban("ip:203.0.113.8", HOUR));
    assert_eq!(stand.status(from("203.0.113.8"), StatusCode::OK).await, 429);
    stand.hand.advance(HOUR);
    assert_eq!(stand.status(from("203.0.113.8"), StatusCode::OK).await, 200);
}

/// Or whoever empties what all share would have everybody banned.
#[tokio::test]
async fn nobody_is_struck_for_what_others_have_used_up() {
    let config = RateLimitConfig {
        penalty: Some(PenaltyConfig::default()),
        ..only(vec![
            Rule::new("all", an_hour(5)).scope(Scope::Global),
            Rule::new("own", an_hour(100)),
        ])
    };
    let stand = stand(&config);
    assert_eq!(stand.passes(somebody).await, 5);
    let refused = stand.answer(from("203.0.113.8"), Answer::default()).await;
    assert_eq!(
        refused.extensions().get::<Refusal>().unwrap().name(),
        "over_quota"
    );
    let nobody = stand.answer(Request::new(()), Answer::default()).await;
    assert_eq!(
        nobody.extensions().get::<Refusal>().unwrap().name(),
        "over_quota"
    );
    assert!(!format!("{:?}", stand.heard.0.lock().unwrap()).contains("ClientBanned"));
}

#[tokio::test]
async fn a_ban_is_spoken_however_the_name_is_written_and_never_shortened() {
    let config = RateLimitConfig {
        penalty: Some(PenaltyConfig::default()),
        ..only(vec![Rule::new("r", an_hour(100))])
    };
    let stand = stand(&config);
    for who in ["alice", "tenant:acme", "caller:", ""] {
        assert!(!stand.limiter.ban(who, HOUR), "{who}");
    }
    assert!(stand.limiter.ban("203.0.113.7", HOUR));
    assert!(stand.limiter.ban("ip:203.0.113.7", HOUR / 60));
    let preflight = || {
        let mut request = somebody();
        *request.method_mut() = Method::OPTIONS;
        let headers = request.headers_mut();
        headers.insert("origin", "https://a.test".parse().unwrap());
        headers.insert("access-control-request-method", "PUT".parse().unwrap());
        request
    };
    let refused = stand.answer(preflight(), Answer::default()).await;
    assert_eq!(
        refused.headers()["retry-after"],
        "3600",
        "a preflight is no way around it"
    );
    assert!(stand.limiter.ban("caller:a@b.c", HOUR));
    let mut request = from("192.0.2.1");
    request.extensions_mut().insert(Caller::new("a@b.c"));
    assert_eq!(stand.status(request, StatusCode::OK).await, 429);
    assert!(stand.limiter.unban("caller:a@b.c"));
    assert!(
        !RateLimiter::new(&only(vec![]), &[], Clock::manual().0, Events::none())
            .unwrap()
            .ban("caller:a", HOUR)
    );
}

#[tokio::test]
async fn a_rule_that_watches_settles_as_if_it_did_not() {
    let login = Rule::new("login", an_hour(3))
        .count(Count::Failures)
        .shadow(true);
    let stand = stand(&only(vec![login]));
    for _ in 0..9 {
        assert_eq!(stand.status(somebody(), StatusCode::OK).await, 200);
    }
    for _ in 0..4 {
        assert_eq!(
            stand.status(somebody(), StatusCode::UNAUTHORIZED).await,
            401
        );
    }
    let heard = stand.heard.0.lock().unwrap();
    let denied = "RateLimitDenied { rule: \"login\", shadow: true }";
    assert_eq!(heard.iter().filter(|event| *event == denied).count(), 1);
}

#[tokio::test]
async fn the_lists_come_before_all_rules() {
    let config = RateLimitConfig {
        allow: vec!["203.0.113.7".to_owned(), "caller:robot".to_owned()],
        deny: vec!["198.51.100.0/24".to_owned()],
        admin_bypass: true,
        ..only(vec![Rule::new("r", an_hour(2))])
    };
    let stand = stand(&config);
    let by = |caller: Caller| {
        move || {
            let mut request = from("192.0.2.1");
            request.extensions_mut().insert(caller.clone());
            request
        }
    };
    assert_eq!(stand.passes(somebody).await, 100);
    assert_eq!(stand.passes(by(Caller::new("robot"))).await, 100);
    assert_eq!(
        stand.passes(by(Caller::new("root").tier("admin"))).await,
        100
    );
    assert_eq!(stand.passes(by(Caller::new("alice"))).await, 2);
    let refused = stand.answer(from("198.51.100.9"), Answer::default()).await;
    assert_eq!(refused.status(), 403);
    assert!(refused.headers().get("retry-after").is_none());
    assert_eq!(
        refused.headers()["content-type"],
        "application/problem+json"
    );
    let decision = stand.limiter.check(&RequestView::of(&from("198.51.100.9")));
    assert!(matches!(decision.await, Some(Decision::DenyListed)));
}

#[tokio::test]
async fn a_change_of_quotas_is_no_fresh_start() {
    let rule = |requests| only(vec![Rule::new("r", an_hour(requests))]);
    let stand = stand(&rule(10));
    for _ in 0..5 {
        assert_eq!(stand.status(somebody(), StatusCode::OK).await, 200);
    }
    // Half is gone, and half stays gone, up and down and over another window.
    stand.limiter.reconfigure(&rule(100)).unwrap();
    assert_eq!(stand.remaining(), 50);
    stand.limiter.reconfigure(&rule(10)).unwrap();
    assert_eq!(stand.remaining(), 5);
    let quick = Quota::requests(20).per(Duration::from_secs(1));
    let quick = only(vec![Rule::new("other", an_hour(3)), Rule::new("r", quick)]);
    stand.limiter.reconfigure(&quick).unwrap();
    stand.limiter.reconfigure(&rule(10)).unwrap();
    assert_eq!(stand.remaining(), 5, "also one that nobody has met");
    stand.limiter.reconfigure(&rule(10)).unwrap();
    assert_eq!(stand.passes(somebody).await, 5);
    stand.limiter.reconfigure(&rule(4)).unwrap();
    assert_eq!(stand.passes(somebody).await, 0);
    // Neither is it to take a rule out and put it back, as it was or another.
    let other = only(vec![Rule::new("other", an_hour(3))]);
    for again in [4, 8] {
        stand.limiter.reconfigure(&other).unwrap();
        stand.limiter.reconfigure(&other).unwrap();
        stand.limiter.reconfigure(&rule(again)).unwrap();
        assert_eq!(stand.passes(somebody).await, 0, "{again}");
    }
    stand.hand.advance(HOUR);
    assert_eq!(stand.passes(somebody).await, 8);
    // Nor once what was used under the former quotas is forgotten.
    stand.hand.advance(24 * HOUR);
    assert_eq!(stand.passes(somebody).await, 8);
    stand.limiter.reconfigure(&rule(8)).unwrap();
    assert_eq!(stand.passes(somebody).await, 0);
    stand.hand.advance(HOUR);
    assert_eq!(stand.passes(somebody).await, 8);
    assert_eq!(stand.remaining(), 0);
}

#[tokio::test]
async fn what_cannot_be_changed_while_it_runs_is_a_fault() {
    let stand = stand(&only(vec![Rule::new("r", an_hour(1))]));
    let other = RateLimitConfig {
        keys_max: 2000,
        trusted_proxies: vec!["10.0.0.0/8".to_owned()],
        ..only(vec![Rule::new("r", an_hour(9))])
    };
    let error = stand.limiter.reconfigure(&other).unwrap_err();
    let fields: Vec<&str> = error.faults().iter().map(|fault| &*fault.field).collect();
    assert_eq!(
        fields,
        ["rate_limit.keys_max", "rate_limit.trusted_proxies"]
    );
    let wrong = only(vec![Rule::new("r", an_hour(0))]);
    assert!(stand.limiter.reconfigure(&wrong).is_err());
    assert_eq!(stand.passes(somebody).await, 1, "all stayed as it was");
}

#[tokio::test]
async fn those_who_press_hardest_are_named() {
    let stand = stand(&only(vec![Rule::new("r", an_hour(10))]));
    let by = |name: &'static str| {
        move || {
            let mut request = somebody();
            request.extensions_mut().insert(Caller::new(name));
            request
        }
    };
    assert_eq!(stand.limiter.top(5), []);
    stand.passes(by("mallory")).await;
    for _ in 0..9 {
        assert!(
            stand
                .limiter
                .check(&RequestView::of(&by("nora")()))
                .await
                .unwrap()
                .is_allow()
        );
    }
    let alice = stand.limiter.check(&RequestView::of(&by("alice")()));
    assert!(alice.await.unwrap().is_allow());
    let top = stand.limiter.top(5);
    let who: Vec<&str> = top.iter().map(|entry| &*entry.who).collect();
    assert_eq!(who, ["caller:mallory", "caller:nora"]);
    assert_eq!((top[0].refused, top[0].near, top[1].near), (90, 2, 1));
    assert_eq!(&*top[0].rule, "r");
}

#[tokio::test]
async fn a_page_of_another_origin_can_read_why() {
    let config = RateLimitConfig {
        expose_headers: true,
        ..only(vec![Rule::new("r", an_hour(1)).scope(Scope::Global)])
    };
    let stand = stand(&config);
    for status in [200, 429] {
        let answer = stand.answer(somebody(), Answer::default()).await;
        assert_eq!(answer.status(), status);
        let exposed = &answer.headers()["access-control-expose-headers"];
        assert_eq!(exposed, "RateLimit-Policy, RateLimit, Retry-After");
    }
}

#[tokio::test]
async fn an_application_writes_refusals_in_its_own_way() {
    let Stand {
        limiter,
        hand,
        heard,
    } = stand(&only(vec![Rule::new("r", an_hour(1))]));
    let limiter = limiter.refusals(RefusalWriter::new(|mut refusal| {
        let reason = refusal.extensions().get::<Refusal>().unwrap().to_string();
        *refusal.body_mut() = Bytes::from(reason);
        refusal.headers_mut().remove("content-type");
        refusal
    }));
    let stand = Stand {
        limiter,
        hand,
        heard,
    };
    assert_eq!(
        stand.answer(somebody(), Answer::default()).await.status(),
        200
    );
    let refused = stand.answer(somebody(), Answer::default()).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.body(), "over the quota of rule \"r\"");
    assert_eq!(refused.headers()["retry-after"], "3600");
}

#[tokio::test]
async fn a_flood_of_keys_changes_nothing_about_the_memory() {
    let config = RateLimitConfig {
        keys_max: 50_000,
        ..only(vec![Rule::new("r", an_hour(5)).scope(Scope::Ip)])
    };
    let stand = stand(&config);
    let bytes = stand.limiter.table_bytes();
    assert!(bytes / 50_000 <= 10, "{bytes}");
    for name in 0..1_000_000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(name).into();
        assert!(
            stand
                .limiter
                .rule("r")
                .unwrap()
                .check_ip(ip, 1)
                .await
                .unwrap()
                .is_allow()
        );
    }
    assert_eq!(stand.limiter.table_bytes(), bytes);
    assert!(stand.limiter.evictions() > 900_000);
    let strict = RateLimitConfig {
        deny_when_full: true,
        keys_max: 50_000,
        ..only(vec![Rule::new("r", an_hour(5)).scope(Scope::Ip)])
    };
    let strict = self::stand(&strict);
    let mut passed = 0;
    for name in 0..200_000_u32 {
        let ip = std::net::Ipv4Addr::from_bits(name).into();
        let decision = strict
            .limiter
            .rule("r")
            .unwrap()
            .check_ip(ip, 1)
            .await
            .unwrap();
        passed += u32::from(decision.is_allow());
    }
    // As many as there are slots, and some that share one with another of the same tag.
    assert!((50_000..=62_600).contains(&passed), "{passed}");
    assert_eq!(strict.limiter.evictions(), 0);
}
