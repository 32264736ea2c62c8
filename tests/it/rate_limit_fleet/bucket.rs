//! Shared buckets: counted together, all or nothing, changed while they are used, as in memory.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::Request;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::identity::{Caller, RequestView};
use tower_keep::rate_limit::{
    Decision, Period, Quota, RateLimitConfig, RateLimiter, RequestCost, Rule, Scope,
};

use super::{HOUR, Instance, SECOND, at_once, fleet, only};
use crate::redis::{Answer, Raw, TestCluster, TestRedis};
use crate::store::{patient, until};

/// How many tokens of a bucket are used, as Redis has it, where it holds so many.
pub fn used(raw: &mut Raw, owner: &str, bucket: &str, holds: u128) -> u128 {
    let key = format!("keep:rl:{{{owner}}}:{bucket}");
    let Answer::Bulk(value) = raw.must(&["GET", &key]) else {
        return 0;
    };
    let (tag, numbers) = value.split_first().unwrap();
    let numbers = numbers.chunks_exact(8).map(|number| {
        let number = f64::from_le_bytes(number.try_into().unwrap());
        number as u128
    });
    let numbers: Vec<u128> = numbers.collect();
    match tag {
        b'w' => numbers[1],
        b'r' => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let (full, fill) = (numbers[0], numbers[2]);
            full.saturating_sub(now.as_micros()).div_ceil(fill / holds)
        }
        other => panic!("a bucket that begins with {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_and_a_month_are_counted_together() {
    let server = TestRedis::start();
    let plan = Rule::new("plan", Quota::requests(10).each(Period::Month)).scope(Scope::Caller);
    let both = fleet(&server, 2, &only([plan])).await;
    assert_eq!(both[0].count("alice", 6).await, 6);
    assert_eq!(both[1].count("alice", 100).await, 4);
    assert_eq!(both[0].count("alice", 100).await, 0);
    assert_eq!(both[1].count("bob", 100).await, 10);
    let mut raw = server.raw();
    assert_eq!(used(&mut raw, "caller:alice", "plan", 10), 10);
}

/// Of what there was half is used up before the quota is doubled: half of the new one is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_changed_in_a_fleet_is_no_fresh_burst() {
    let changes = [
        (20, at_once("r", 20), at_once("r", 40), 20),
        (40, at_once("r", 40), at_once("r", 10), 5),
        (20, at_once("r", 20), each(Period::Month, 60), 30),
        (60, each(Period::Month, 60), at_once("r", 20), 10),
        (20, each(Period::Month, 20), each(Period::Month, 60), 50),
    ];
    let server = TestRedis::start();
    for (holds, old, new, left) in changes {
        let what = format!("{:?} to {:?}", old.quota, new.quota);
        let both = fleet(&server, 2, &only([old.clone()])).await;
        let half = holds / 2;
        assert_eq!(both[0].count("alice", half).await, half, "{what}");
        // First the one that knows of no request, then the other one.
        both[1].limiter.reconfigure(&only([new.clone()])).unwrap();
        let second = both[1].count("alice", left / 5).await;
        both[0].limiter.reconfigure(&only([new])).unwrap();
        let first = both[0].count("alice", 100).await;
        assert_eq!((second, second + first), (left / 5, left), "{what}");
        assert_eq!(both[1].count("alice", 100).await, 0, "{what}");
        server.raw().must(&["FLUSHALL"]);
    }
}

fn each(period: Period, requests: u32) -> Rule {
    Rule::new("r", Quota::requests(requests).each(period)).scope(Scope::Caller)
}

/// The rules' owners lie on different servers, so that one grants what the other does not.
#[tokio::test(flavor = "multi_thread")]
async fn in_a_cluster_a_denial_by_one_owners_rule_charges_no_other_owner() {
    let cluster = tokio::task::block_in_place(TestCluster::start);
    let redis = patient(&cluster.url());
    let config = only([at_once("own", 10), at_once("all", 3).scope(Scope::Global)]);
    let first = Instance::join(&redis, &config).await;
    let second = Instance::join(&redis, &config).await;
    assert_eq!(first.count("first", 100).await, 3);
    // Callers on every server.
    for caller in ["a", "b", "c", "d", "e", "f"] {
        let owner = format!("caller:{caller}");
        let slot = cluster.slot_of(&format!("{{{owner}}}"));
        let mut raw = cluster.nodes()[cluster.node_of_slot(slot)].raw();
        // Each knows of the denial after the first time, so a third one is asked as well.
        let fresh = Instance::join(&redis, &config).await;
        for instance in [&first, &second, &fresh] {
            assert!(!instance.passes(caller).await);
        }
        until("it is given back", || {
            used(&mut raw, &owner, "own", 10) == 0
        })
        .await;
    }
}

/// While questions follow each other what is known here is told with each: never as more than Redis knows, or
/// the bucket would stay as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_grows_back_while_it_is_asked_for() {
    let server = TestRedis::start();
    let mut rule = at_once("r", 1);
    rule.quota = Some(Quota::requests(2000).per(SECOND).burst(20_000));
    let instance = Instance::join(&patient(&server.url()), &only([rule])).await;
    let began = Instant::now();
    let mut passed = 0;
    while began.elapsed() < SECOND {
        passed += u128::from(instance.passes("alice").await);
    }
    let could = (began.elapsed().as_micros() / 500).min(passed);
    let grown = passed - used(&mut server.raw(), "caller:alice", "r", 20_000).min(passed);
    assert!(
        grown * 10 >= could * 9,
        "{grown} of {could}, {passed} passed"
    );
}

/// A number that looks like any other, always the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn costs(request: &RequestView<'_>) -> u32 {
    let cost = request.headers.get("x-cost").unwrap();
    cost.to_str().unwrap().parse().unwrap()
}

/// Rules of which no two ever deny for the same time.
fn several() -> RateLimitConfig {
    let slow = |requests: u32, hours: u32| Quota::requests(requests).per(HOUR * hours);
    only([
        Rule::new("caller", slow(40, 50))
            .scope(Scope::Caller)
            .tier("premium", slow(60, 61)),
        Rule::new("costly", slow(300, 73))
            .scope(Scope::Caller)
            .cost(RequestCost::by(costs)),
        Rule::new("tenant", slow(150, 87)).scope(Scope::Tenant),
        Rule::new("all", slow(260, 99)).scope(Scope::Global),
        Rule::new("month", Quota::requests(50).each(Period::Month)).scope(Scope::Caller),
        Rule::new("narrow", slow(7, 20)).route("/narrow"),
        Rule::new("watching", slow(1, 10)).shadow(true),
    ])
}

fn some_request(chance: &mut Chance) -> Request<()> {
    let path = ["/", "/", "/narrow"][chance.below(3) as usize];
    let cost = [1, 1, 2, 5, 30, 0][chance.below(6) as usize];
    let caller = chance.below(9);
    let tenant = format!("t{}", caller % 3);
    let tier = if caller < 4 { "premium" } else { "basic" };
    let caller = Caller::new(format!("c{caller}")).tier(tier).tenant(tenant);
    let mut request = Request::get(path).header("x-cost", cost).body(()).unwrap();
    request.extensions_mut().insert(caller);
    request
}

/// What was decided, without the times.
fn told(decision: Option<Decision>) -> String {
    let decision = decision.expect("a rule speaks of it");
    let standing = decision.standing().expect("a quota decides");
    let (rule, left) = (standing.rule(), standing.remaining());
    format!("{} by {rule}, {left} left", decision.is_allow())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_one_decides_as_memory_does() {
    let server = TestRedis::start();
    let config = several();
    let memory = RateLimiter::new(&config, &[], Clock::system(), Events::none()).unwrap();
    let alone = Instance::join(&patient(&server.url()), &config).await;
    let mut chance = Chance(4);
    let (mut passed, mut denied) = (0, 0);
    for turn in 0..1000 {
        let request = some_request(&mut chance);
        let view = RequestView::of(&request);
        let in_memory = told(memory.check(&view).await);
        let in_redis = told(alone.limiter.check(&view).await);
        assert_eq!(in_redis, in_memory, "{turn}: {request:?}");
        let passes = in_memory.starts_with("true");
        passed += u32::from(passes);
        denied += u32::from(!passes);
    }
    assert!(passed > 100 && denied > 100, "{passed}, {denied}");
}
