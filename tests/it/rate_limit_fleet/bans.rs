//! Bans: spoken on one instance, heeded by all.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tower_keep::identity::{PeerAddr, RequestView};
use tower_keep::rate_limit::{Decision, Mode, PenaltyConfig, RateLimitConfig, Rule, Scope};

use super::{Instance, at_once, calls, fleet, only, questions};
use crate::redis::{Answer, Proxy, TestRedis};
use crate::store::{patient, until};

/// Banned after the third refusal.
fn strict(rules: impl IntoIterator<Item = Rule>) -> RateLimitConfig {
    let penalty = PenaltyConfig {
        strikes: 2,
        ban: Duration::from_secs(600),
        ..PenaltyConfig::default()
    };
    RateLimitConfig {
        penalty: Some(penalty),
        ..only(rules)
    }
}

async fn is_banned(instance: &Instance, caller: &str) -> bool {
    matches!(instance.ask(caller).await, Decision::Banned { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_banned_on_one_is_banned_on_all_and_pardoned_by_any() {
    let server = TestRedis::start();
    let config = strict([at_once("r", 10)]);
    let all = fleet(&server, 3, &config).await;
    assert_eq!(all[0].count("alice", 100).await, 10);
    for _ in 0..3 {
        let _ = all[0].ask("alice").await;
    }
    assert!(is_banned(&all[0], "alice").await);
    let mut raw = server.raw();
    until("the ban is in Redis", || {
        raw.must(&["PTTL", "keep:rl:ban:{caller:alice}"]).integer() > 590_000
    })
    .await;
    // Whoever hears of it refuses without asking, although its own bucket is not used up yet.
    for other in &all[1..] {
        until("it was heard", || !other.says("last_end: 0")).await;
        let before = questions(&mut raw);
        assert!(is_banned(other, "alice").await);
        assert_eq!(questions(&mut raw), before);
        assert!(other.passes("bob").await);
    }
    // Who comes later meets it in Redis.
    let late = Instance::join(&patient(&server.url()), &config).await;
    let Decision::Banned { retry_after } = late.ask("alice").await else {
        panic!("a late comer lets her in");
    };
    assert!(retry_after > Duration::from_secs(590), "{retry_after:?}");
    // A moment later it knows by itself.
    let before = questions(&mut raw);
    assert!(is_banned(&late, "alice").await);
    assert_eq!(questions(&mut raw), before);

    // The bucket is full again, the ban is not over.
    raw.must(&["DEL", "keep:rl:{caller:alice}:r"]);
    assert!(all[2].limiter.unban("caller:alice"));
    for instance in all[1..].iter().map(|one| &**one).chain([&late]) {
        let mut free = false;
        for _ in 0..1000 {
            free = instance.passes("alice").await;
            if free {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(free, "still banned");
    }
    is_let_in(&all[0]).await;
}

/// They share a bucket and the questions about it, not each other's bans.
#[tokio::test(flavor = "multi_thread")]
async fn a_banned_client_takes_nobody_along() {
    let server = TestRedis::start();
    let config = strict([at_once("all", 100_000).scope(Scope::Global)]);
    let all = fleet(&server, 2, &config).await;
    assert!(
        all[0]
            .limiter
            .ban("ip:203.0.113.66", Duration::from_secs(600))
    );
    let mut raw = server.raw();
    until("the ban is in Redis", || {
        raw.must(&["EXISTS", "keep:rl:ban:{ip:203.0.113.66}"])
            .integer()
            == 1
    })
    .await;
    // A late comer has to ask.
    let late = Arc::new(Instance::join(&patient(&server.url()), &config).await);
    let mut tasks = Vec::new();
    for n in 0..300_u32 {
        let late = Arc::clone(&late);
        let last = if n % 3 == 0 { 66 } else { n % 60 };
        tasks.push(tokio::spawn(async move {
            let mut request = Request::get("/").body(()).unwrap();
            let peer = format!("203.0.113.{last}:99").parse().unwrap();
            request.extensions_mut().insert(PeerAddr(peer));
            let decision = late.limiter.check(&RequestView::of(&request)).await;
            (last, matches!(decision, Some(Decision::Banned { .. })))
        }));
    }
    for task in tasks {
        let (last, banned) = task.await.unwrap();
        assert_eq!(banned, last == 66, "{last}");
    }
}

/// Asks, as a client would, until she is let in.
async fn is_let_in(instance: &Instance) {
    lets_in(instance, "alice").await;
}

async fn lets_in(instance: &Instance, caller: &str) {
    for _ in 0..1000 {
        if !is_banned(instance, caller).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{caller} is still banned");
}

/// An operator who corrects himself at once is understood by all, however many are spoken of.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_ban_and_a_pardon_in_a_row_the_last_word_counts() {
    const CALLERS: u64 = 300;
    let server = TestRedis::start();
    let config = strict([at_once("r", 10)]);
    let both = fleet(&server, 2, &config).await;
    for n in 0..CALLERS {
        let who = format!("caller:{n}");
        let ban = || both[0].limiter.ban(&who, Duration::from_secs(600));
        if n % 2 == 0 {
            assert!(!both[0].limiter.unban(&who) && ban());
        } else {
            assert!(ban() && both[0].limiter.unban(&who));
        }
    }
    let mut raw = server.raw();
    until("all was said", || {
        calls(&mut raw, ["publish"]) == [2 * CALLERS]
    })
    .await;
    for n in 0..CALLERS {
        let last = if n % 2 == 0 { "1" } else { "0" };
        let known = raw.must(&["GET", &format!("keep:rl:ban:{{caller:{n}}}")]);
        assert_eq!(known, Answer::Bulk(last.into()), "{n}");
        let caller = n.to_string();
        match n % 2 {
            0 => assert!(is_banned(&both[1], &caller).await, "{n}"),
            _ => lets_in(&both[1], &caller).await,
        }
    }
}

/// One of two does not hear that a ban was lifted, because the network between it and Redis is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_that_was_lifted_unheard_ends_when_the_client_comes_again() {
    let server = TestRedis::start();
    let proxy = Proxy::to(server.port());
    let config = strict([at_once("r", 10)]);
    let one = Instance::join(&patient(&server.url()), &config).await;
    let other = Instance::join(&patient(&proxy.url()), &config).await;
    let mut raw = server.raw();
    for turn in 0..2 {
        assert!(one.limiter.ban("caller:alice", Duration::from_secs(600)));
        let heard =
            || raw.must(&["GET", "keep:rl:ban:{caller:alice}"]) == Answer::Bulk(b"1".into());
        until("the ban is in Redis", heard).await;
        for _ in 0..1000 {
            if is_banned(&other, "alice").await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(is_banned(&other, "alice").await, "{turn}");
        proxy.refuse();
        proxy.cut();
        until("it counts alone", || other.says("up: false")).await;
        assert!(one.limiter.unban("caller:alice"));
        let lifted =
            || raw.must(&["GET", "keep:rl:ban:{caller:alice}"]) == Answer::Bulk(b"0".into());
        until("it is lifted", lifted).await;
        assert!(is_banned(&other, "alice").await, "nobody could tell it");
        proxy.forward();
        other.counts_together().await;
        is_let_in(&other).await;
        is_let_in(&one).await;
    }
}

/// What Redis has lost was not lifted.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_that_redis_has_lost_holds_and_is_told_again() {
    let server = TestRedis::start();
    let config = strict([at_once("r", 10)]);
    let both = fleet(&server, 2, &config).await;
    assert!(
        both[0]
            .limiter
            .ban("caller:alice", Duration::from_secs(600))
    );
    until("it was heard", || !both[1].says("last_end: 0")).await;
    tokio::task::block_in_place(|| server.kill());
    until("it counts alone", || both[1].says("up: false")).await;
    tokio::task::block_in_place(|| server.restart());
    both[1].counts_together().await;
    let mut raw = server.raw();
    let mut known = false;
    for _ in 0..1000 {
        assert!(is_banned(&both[1], "alice").await);
        known = raw.must(&["PTTL", "keep:rl:ban:{caller:alice}"]).integer() > 500_000;
        if known {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(known, "Redis was not told");
    let late = Instance::join(&patient(&server.url()), &config).await;
    assert!(is_banned(&late, "alice").await);
}

/// It holds tokens, for which it need not ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_ban_that_was_missed_is_met_when_tokens_are_taken_in_advance() {
    let server = TestRedis::start();
    let config = strict([at_once("r", 1_000_000).mode(Mode::Leased)]);
    let instance = Instance::join(&patient(&server.url()), &config).await;
    let mut raw = server.raw();
    let mut asked = 0;
    // It lives on what it holds: of many requests hardly any asks.
    loop {
        let before = questions(&mut raw);
        for _ in 0..100 {
            assert!(instance.passes("alice").await);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        asked += 1;
        assert!(asked < 100, "it never holds any");
        if questions(&mut raw) - before <= 2 {
            break;
        }
    }
    // Nobody says so.
    raw.must(&["SET", "keep:rl:ban:{caller:alice}", "1", "PX", "600000"]);
    for _ in 0..20_000 {
        if is_banned(&instance, "alice").await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it goes on granting");
}

/// Also by one that has never heard of it, and to one that cannot hear it now.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_pardoned_by_a_stranger_is_pardoned_for_good() {
    let server = TestRedis::start();
    let config = strict([at_once("r", 10)]);
    let stranger = Instance::join(&patient(&server.url()), &config).await;
    assert!(!stranger.limiter.unban("caller:alice"));
    let mut raw = server.raw();
    let key = "keep:rl:ban:{caller:alice}";
    until("it is remembered", || {
        raw.must(&["GET", key]) == Answer::Bulk(b"0".into())
    })
    .await;
    let longest = PenaltyConfig::default().ban_max.as_millis();
    let left = raw.must(&["PTTL", key]).integer();
    assert!(left > i64::try_from(longest).unwrap() / 2, "{left}");
    assert!(stranger.passes("alice").await);
}
