//! Random lives of a limiter against the reference, request by request and to the microsecond.
//!
//! Rules, callers and leaps of the clock come as they like. Every decision, the rule that speaks, what remains, for
//! how long, and every event must be the reference's; and whatever moment one begins to count at, no more may
//! have passed than a burst, what has grown back since and what was given back.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tokio::sync::oneshot;
use tower::{Layer, Service};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::identity::{ApiKey, Caller, PeerAddr, RequestView};
use tower_keep::rate_limit::{
    Cost, Count, Decision, Period, RateLimitBody, RateLimitConfig, RateLimitLayer,
    RateLimitService, RateLimiter, RequestCost, Rule, Scope,
};

use crate::rate_limit_reference::{
    Against, Amount, Bucket, Charge, Counted, Price, Reference, Ruled, Said, Visit, Visitor,
};

const NAMES: [&str; 4] = ["first", "second", "third", "fourth"];

#[derive(Clone, Copy, Debug)]
enum How {
    Peek,
    Check,
    /// Through the layer, whose answer comes later.
    Send,
}

#[derive(Clone, Debug)]
enum Step {
    Visit(Visit, How),
    /// Without a request: of which rule, who, and for how many tokens.
    Key(usize, usize, u32),
    /// One of those under way is answered.
    Answer {
        which: usize,
        failed: bool,
        told: Option<u32>,
        frames: Vec<u8>,
    },
    /// A part of a body is read.
    Read(usize),
    /// Somebody goes away, before the answer or while it comes.
    Leave(usize),
    Pass(Duration),
    /// Until the last one that was told how long to wait may come again, or a microsecond less.
    Obey {
        early: bool,
    },
    /// To the end of the hour, the day or the month, or a microsecond less.
    Until {
        period: Period,
        early: bool,
    },
}

fn rolling() -> impl Strategy<Value = Amount> {
    let per = prop_oneof![
        Just(10),
        Just(1000),
        Just(7000),
        Just(60_000),
        Just(3_600_000),
        Just(2_592_000_000_u64)
    ];
    (1u32..9, per, 0u32..4, 1u32..4).prop_map(|(requests, millis, burst, of)| Amount::Rolling {
        requests,
        per: Duration::from_millis(millis),
        burst: (burst > 0).then(|| (requests * burst / of).clamp(1, 2 * requests)),
    })
}

fn calendar(period: Period) -> impl Strategy<Value = Amount> {
    (1u32..12).prop_map(move |requests| Amount::Calendar { requests, period })
}

/// The quotas of a rule: for most, for some tiers.
fn amounts() -> impl Strategy<Value = (Option<Amount>, BTreeMap<&'static str, Amount>)> {
    fn of(
        amount: impl Strategy<Value = Amount> + Clone + 'static,
    ) -> BoxedStrategy<(Option<Amount>, BTreeMap<&'static str, Amount>)> {
        let tier = || prop::option::of(amount.clone());
        let all = (amount.clone(), prop::bool::weighted(0.8), tier(), tier());
        all.prop_map(|(amount, has_base, anonymous, pro)| {
            let anonymous = if has_base {
                anonymous
            } else {
                Some(anonymous.unwrap_or(amount))
            };
            let tiers = [("anonymous", anonymous), ("pro", pro)];
            let tiers = tiers
                .into_iter()
                .filter_map(|(tier, amount)| Some((tier, amount?)));
            (has_base.then_some(amount), tiers.collect())
        })
        .boxed()
    }
    prop_oneof![
        4 => of(rolling().boxed()),
        1 => of(calendar(Period::Hour).boxed()),
        1 => of(calendar(Period::Day).boxed()),
        1 => of(calendar(Period::Month).boxed()),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Ruled>> {
    let against = prop::sample::select(vec![
        Against::Ip,
        Against::Caller,
        Against::Caller,
        Against::Tenant,
        Against::ApiKey,
        Against::Everybody,
        Against::Name,
    ]);
    let prices = prop::sample::select(vec![
        (Price::One, Counted::All),
        (Price::One, Counted::Failures),
        (Price::One, Counted::Successes),
        (Price::Weight, Counted::All),
        (Price::Weight, Counted::Failures),
        (Price::Told, Counted::All),
        (Price::Bytes, Counted::All),
    ]);
    let path = prop::sample::select(vec![None, None, Some("/a"), Some("/b")]);
    let rule = (path, against, amounts(), prices, prop::bool::weighted(0.2));
    prop::collection::vec(rule, 1..=4).prop_map(|rules| {
        let named = rules.into_iter().zip(NAMES);
        let rule = |((path, against, (amount, tiers), (price, counted), shadow), name)| Ruled {
            name,
            path,
            against,
            amount,
            tiers,
            price,
            counted,
            shadow,
        };
        named.map(rule).collect()
    })
}

fn visit() -> impl Strategy<Value = Visit> {
    let ips = vec![
        None,
        Some("203.0.113.7"),
        Some("203.0.113.8"),
        Some("2001:db8::"),
    ];
    let visitor = |id, tier, tenant| Visitor { id, tier, tenant };
    let callers = vec![
        None,
        Some(visitor("alice", "basic", None)),
        // She changes her plan now and then.
        Some(visitor("alice", "pro", None)),
        Some(visitor("bob", "pro", Some("acme"))),
        Some(visitor("carol", "basic", Some("acme"))),
    ];
    let weight = prop_oneof![6 => 0u32..4, 1 => Just(99)];
    (
        prop::sample::select(vec!["/a", "/b", "/c"]),
        prop::sample::select(ips),
        prop::sample::select(callers),
        prop::option::of(Just("k-1")),
        prop::option::of(Just("device")),
        weight,
    )
        .prop_map(|(path, ip, caller, key, name, weight)| Visit {
            path,
            ip,
            caller,
            key,
            name,
            weight,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop::sample::select(vec![
        How::Peek,
        How::Check,
        How::Check,
        How::Send,
        How::Send,
    ]);
    let period = prop::sample::select(vec![Period::Hour, Period::Day, Period::Month]);
    let micros = prop_oneof![
        2 => 0u64..5,
        3 => 0u64..20_000,
        4 => 0u64..20_000_000,
        3 => 0u64..7_200_000_000,
        1 => 0u64..3_000_000_000_000,
        1 => 0u64..20_000_000_000_000,
    ];
    let (which, told) = (0usize..8, prop::option::of(0u32..6));
    prop_oneof![
        24 => (visit(), how).prop_map(|(visit, how)| Step::Visit(visit, how)),
        2 => (0usize..4, 0usize..2, 0u32..4).prop_map(|(rule, who, cost)| Step::Key(rule, who, cost)),
        6 => (which.clone(), any::<bool>(), told, prop::collection::vec(0u8..4, 0..3)).prop_map(
            |(which, failed, told, frames)| Step::Answer { which, failed, told, frames }
        ),
        3 => which.clone().prop_map(Step::Read),
        2 => which.prop_map(Step::Leave),
        5 => micros.prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
        3 => any::<bool>().prop_map(|early| Step::Obey { early }),
        1 => (period, any::<bool>()).prop_map(|(period, early)| Step::Until { period, early }),
    ]
}

fn rule_of(ruled: &Ruled) -> Rule {
    let tiers = ruled.tiers.iter();
    let tiers = tiers.map(|(tier, amount)| (*tier, amount.quota()));
    let mut rule = Rule::by_tier(ruled.name, tiers);
    rule.quota = ruled.amount.map(Amount::quota);
    rule.route = ruled.path.map(str::to_owned);
    let weight = |request: &RequestView<'_>| {
        let weight = request.headers.get("x-weight").unwrap();
        weight.to_str().unwrap().parse().unwrap()
    };
    rule.scope(match ruled.against {
        Against::Ip => Scope::Ip,
        Against::Caller => Scope::Caller,
        Against::Tenant => Scope::Tenant,
        Against::ApiKey => Scope::ApiKey,
        Against::Everybody => Scope::Global,
        Against::Name => Scope::custom(|request| {
            let name = request.headers.get("x-name")?;
            name.to_str().ok().map(Into::into)
        }),
    })
    .cost(match ruled.price {
        Price::One => RequestCost::One,
        Price::Weight => RequestCost::by(weight),
        Price::Told => RequestCost::Told,
        Price::Bytes => RequestCost::BodyBytes,
    })
    .count(match ruled.counted {
        Counted::All => Count::All,
        Counted::Failures => Count::Failures,
        Counted::Successes => Count::Successes,
    })
    .shadow(ruled.shadow)
}

fn request_of(visit: &Visit) -> Request<()> {
    let mut request = Request::get(visit.path).body(()).unwrap();
    request
        .headers_mut()
        .insert("x-weight", visit.weight.into());
    if let Some(name) = visit.name {
        request
            .headers_mut()
            .insert("x-name", name.parse().unwrap());
    }
    let extensions = request.extensions_mut();
    if let Some(ip) = visit.ip {
        // Any address of the client's network.
        let whole = if ip.contains(':') {
            format!("{ip}{}", visit.weight)
        } else {
            ip.to_owned()
        };
        extensions.insert(PeerAddr(SocketAddr::new(whole.parse().unwrap(), 1234)));
    }
    if let Some(visitor) = visit.caller {
        let caller = Caller::new(visitor.id).tier(visitor.tier);
        extensions.insert(match visitor.tenant {
            Some(tenant) => caller.tenant(tenant),
            None => caller,
        });
    }
    if let Some(key) = visit.key {
        extensions.insert(ApiKey::new(key));
    }
    request
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event<'_>) {
        let text = match event {
            Event::RateLimitAllowed { rule } => format!("allowed {rule}"),
            Event::RateLimitDenied {
                rule,
                shadow: false,
            } => format!("denied {rule}"),
            Event::RateLimitDenied { rule, shadow: true } => format!("would be denied {rule}"),
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;
type Gate = Arc<Mutex<Option<oneshot::Receiver<Response<Frames>>>>>;
type Inner = Pin<Box<dyn Future<Output = Result<Response<Frames>, Infallible>> + Send>>;

/// Answers what comes through the gate that a request carries.
#[derive(Clone)]
struct Gated;

impl Service<Request<()>> for Gated {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Inner;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Inner {
        let gate = request.extensions().get::<Gate>().unwrap();
        let gate = gate.lock().unwrap().take().unwrap();
        Box::pin(async move { Ok(gate.await.unwrap()) })
    }
}

type Answered = Result<Response<RateLimitBody<Frames>>, Infallible>;

/// A request that was let through the layer.
enum UnderWay {
    Waiting {
        future: Pin<Box<dyn Future<Output = Answered>>>,
        gate: oneshot::Sender<Response<Frames>>,
        said: Option<Said>,
        charged: Vec<Charge>,
    },
    Sending {
        body: RateLimitBody<Frames>,
        sent: u32,
        metered: Vec<Charge>,
    },
}

/// What has passed a bucket, and what was given back: when, and what it was worth.
#[derive(Default)]
struct Passed {
    amounts: Vec<Amount>,
    taken: Vec<(i128, i128)>,
    given_back: Vec<(i128, i128)>,
}

/// How often something happened.
#[derive(Debug, Default)]
struct Seen {
    passed: u32,
    refused: u32,
    /// By a quota of the calendar.
    refused_by_window: u32,
    /// No rule spoke of it.
    by_none: u32,
    would_be_refused: u32,
    given_back: u32,
    debited: u32,
    read: u32,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        for (all, more) in [
            (&mut self.passed, other.passed),
            (&mut self.refused, other.refused),
            (&mut self.refused_by_window, other.refused_by_window),
            (&mut self.by_none, other.by_none),
            (&mut self.would_be_refused, other.would_be_refused),
            (&mut self.given_back, other.given_back),
            (&mut self.debited, other.debited),
            (&mut self.read, other.read),
        ] {
            *all += more;
        }
    }
}

struct World {
    limiter: RateLimiter,
    service: RateLimitService<Gated>,
    hand: ManualClock,
    heard: Arc<Heard>,
    reference: Reference,
    under_way: Vec<UnderWay>,
    passed: HashMap<Bucket, Passed>,
    /// How long the last one that was told so should wait.
    told_to_wait: Duration,
    seen: Seen,
}

impl World {
    fn new(rules: Vec<Ruled>) -> Self {
        let config = RateLimitConfig {
            keys_max: 1000,
            default_rule: false,
            rules: rules.iter().map(rule_of).collect(),
            ..RateLimitConfig::default()
        };
        let (clock, hand) = Clock::manual();
        let heard = Arc::new(Heard::default());
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let limiter = RateLimiter::new(&config, &[], clock, events).unwrap();
        Self {
            service: RateLimitLayer::new(limiter.clone()).layer(Gated),
            limiter,
            hand,
            heard,
            reference: Reference::new(rules),
            under_way: Vec::new(),
            passed: HashMap::new(),
            told_to_wait: Duration::ZERO,
            seen: Seen::default(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.hand.advance(time);
        self.reference.now += time.as_micros() as i128;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Visit(visit, How::Peek) => {
                let decision = self.limiter.peek(&RequestView::of(&request_of(&visit)));
                assert_eq!(said(decision), self.reference.peek(&visit), "{visit:?}");
            }
            Step::Visit(visit, How::Check) => {
                let check = self.limiter.check(&RequestView::of(&request_of(&visit)));
                let (expected, charged) = self.reference.visit(&visit);
                self.compare(
                    said(check.now_or_never().unwrap()),
                    expected.as_ref(),
                    &charged,
                );
            }
            Step::Visit(visit, How::Send) => self.send(&visit),
            Step::Key(rule, who, cost) => self.key(rule % self.reference.rules.len(), who, cost),
            Step::Answer {
                which,
                failed,
                told,
                frames,
            } => self.answer(which, (failed, told), frames),
            Step::Read(which) => self.read(which),
            Step::Leave(which) => self.leave(which),
            Step::Pass(time) => self.pass(time),
            Step::Obey { early } => {
                let early = Duration::from_micros(early.into());
                self.pass(self.told_to_wait.saturating_sub(early));
                self.told_to_wait = Duration::ZERO;
            }
            Step::Until { period, early } => {
                let one = Amount::Calendar {
                    requests: 1,
                    period,
                };
                let left = one.end(self.reference.now).unwrap() - self.reference.now;
                self.pass(Duration::from_micros(left as u64 - u64::from(early)));
            }
        }
        assert_eq!(*self.heard.0.lock().unwrap(), self.reference.events);
        let would = |event: &&String| event.starts_with("would");
        self.seen.would_be_refused += self.reference.events.iter().filter(would).count() as u32;
        self.heard.0.lock().unwrap().clear();
        self.reference.events.clear();
    }

    /// Holds a decision against the expected one, and notes what was charged.
    fn compare(&mut self, decision: Option<Said>, expected: Option<&Said>, charged: &[Charge]) {
        assert_eq!(decision.as_ref(), expected, "at {}", self.reference.now);
        match decision {
            None => self.seen.by_none += 1,
            Some(said) if said.passes => self.seen.passed += 1,
            Some(said) => {
                self.seen.refused += 1;
                let window = |rule: &Ruled| rule.name == said.rule && rule.goes_by_calendar();
                let window = self.reference.rules.iter().any(window);
                self.seen.refused_by_window += u32::from(window);
                self.told_to_wait = said.retry_after;
            }
        }
        // A refusal under a smaller quota is a change of plans as well.
        for (bucket, amount) in std::mem::take(&mut self.reference.cut) {
            let passed = self.passed.entry(bucket).or_default();
            if !passed.amounts.contains(&amount) {
                passed.amounts.push(amount);
            }
        }
        for charge in charged {
            let passed = self.passed.entry(charge.bucket.clone()).or_default();
            if !passed.amounts.contains(&charge.amount) {
                passed.amounts.push(charge.amount);
            }
            let worth = charge.amount.worth(charge.cost);
            passed.taken.push((self.reference.now, worth));
        }
    }

    fn key(&mut self, rule: usize, who: usize, cost: u32) {
        let ruled = self.reference.rules[rule].clone();
        let (key, whose) = match ruled.against {
            Against::Ip => [
                ("203.0.113.7", "ip 203.0.113.7"),
                ("2001:db8::9", "ip 2001:db8::"),
            ],
            Against::Caller => [("alice", "caller alice"), ("dave", "caller dave")],
            Against::Tenant => [("acme", "tenant acme"), ("other", "tenant other")],
            Against::ApiKey => [("k-1", "key k-1"), ("k-2", "key k-2")],
            Against::Everybody => [("", "everybody"), ("whoever", "everybody")],
            Against::Name => [("device", "name device"), ("", "name ")],
        }[who];
        let limiter = self.limiter.rule(ruled.name).unwrap();
        let check = limiter.check_key(key, cost);
        let charge = self.reference.charge_of(rule, whose.to_owned(), cost);
        let (enforced, watching) = match ruled.shadow {
            true => (vec![], vec![charge]),
            false => (vec![charge], vec![]),
        };
        let (expected, charged) = self.reference.decide(enforced, watching);
        self.compare(
            said(check.now_or_never().unwrap()),
            expected.as_ref(),
            &charged,
        );
    }

    fn send(&mut self, visit: &Visit) {
        let (gate, behind) = oneshot::channel();
        let mut request = request_of(visit);
        request
            .extensions_mut()
            .insert::<Gate>(Arc::new(Mutex::new(Some(behind))));
        let mut future = Box::pin(self.service.call(request));
        let (expected, charged) = self.reference.visit(visit);
        // What an answer tells is looked at when it is there.
        self.compare(expected.clone(), expected.as_ref(), &charged);
        match (expected, future.as_mut().now_or_never()) {
            (Some(refusal), Some(Ok(answer))) if !refusal.passes => {
                assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
                assert_eq!(
                    answer.headers()["retry-after"],
                    secs(refusal.retry_after).to_string()
                );
                assert_eq!(answer.headers()["ratelimit"], field(&refusal));
            }
            (said, None) if said.as_ref().is_none_or(|said| said.passes) => {
                let waiting = UnderWay::Waiting {
                    future,
                    gate,
                    said,
                    charged,
                };
                self.under_way.push(waiting);
            }
            (expected, answered) => panic!("{expected:?}, and {:?}", answered.is_some()),
        }
    }

    fn answer(&mut self, which: usize, (failed, told): (bool, Option<u32>), frames: Vec<u8>) {
        let waiting = |way: &UnderWay| matches!(way, UnderWay::Waiting { .. });
        let at = self.under_way.iter().skip(which).position(waiting);
        let Some(at) = at.map(|at| at + which) else {
            return;
        };
        let UnderWay::Waiting {
            mut future,
            gate,
            said,
            charged,
        } = self.under_way.remove(at)
        else {
            panic!("was looked for");
        };
        let frames: Vec<_> = frames
            .into_iter()
            .map(|bytes| Ok(Frame::data(Bytes::from(vec![0; bytes.into()]))))
            .collect();
        let mut answer = Response::new(StreamBody::new(stream::iter(frames)));
        if failed {
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
        }
        if let Some(told) = told {
            answer.extensions_mut().insert(Cost(told));
        }
        assert!(gate.send(answer).is_ok());
        let answer = future.as_mut().now_or_never().unwrap().unwrap();
        let fields = answer.headers().get("ratelimit");
        let fields = fields.map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(fields, said.as_ref().map(field));
        for charge in &charged {
            self.note_given_back(charge, failed, told);
        }
        let metered = self.reference.settle(charged, failed, told);
        self.under_way.push(UnderWay::Sending {
            body: answer.into_body(),
            sent: 0,
            metered,
        });
    }

    /// Notes as much as could be given back of a charge.
    fn note_given_back(&mut self, charge: &Charge, failed: bool, told: Option<u32>) {
        let rule = &self.reference.rules[charge.bucket.rule];
        let stays = match rule.counted {
            Counted::All => !(rule.price == Price::Told && told == Some(0)),
            Counted::Failures => failed,
            Counted::Successes => !failed,
        };
        let more = stays && rule.price == Price::Told && told.is_some_and(|all| all > 1);
        self.seen.debited += u32::from(more);
        if !stays {
            let worth = charge.amount.worth(charge.cost);
            let passed = self.passed.entry(charge.bucket.clone()).or_default();
            passed.given_back.push((self.reference.now, worth));
            self.seen.given_back += 1;
        }
    }

    fn read(&mut self, which: usize) {
        if let Some(UnderWay::Sending { body, sent, .. }) = self.under_way.get_mut(which) {
            self.seen.read += 1;
            let frame = body.frame().now_or_never().unwrap();
            *sent += frame.map_or(0, |frame| frame.unwrap().into_data().unwrap().len() as u32);
        }
    }

    fn leave(&mut self, which: usize) {
        if which >= self.under_way.len() {
            return;
        }
        // Who goes away without an answer stays counted.
        if let UnderWay::Sending {
            body,
            sent,
            metered,
        } = self.under_way.remove(which)
        {
            drop(body);
            for charge in &metered {
                self.reference.debit(charge, sent);
                self.seen.debited += u32::from(sent > 0);
            }
        }
    }

    /// Whatever moment one begins to count at.
    fn nobody_got_too_much(&self) {
        for (bucket, passed) in &self.passed {
            // Where callers change their plans there is no one number.
            let [amount] = passed.amounts[..] else {
                continue;
            };
            for (at, (from, _)) in passed.taken.iter().enumerate() {
                let mut taken = 0;
                for (until, worth) in &passed.taken[at..] {
                    taken += worth;
                    let meanwhile = passed.given_back.iter();
                    let meanwhile = meanwhile.filter(|(when, _)| (from..=until).contains(&when));
                    let back: i128 = meanwhile.map(|(_, worth)| worth).sum();
                    let grown = match amount {
                        Amount::Rolling { .. } => until - from,
                        Amount::Calendar { .. } => 0,
                    };
                    let most = amount.whole() + grown + back;
                    assert!(
                        taken <= most,
                        "{taken} of {most} from {from} to {until}: {bucket:?}"
                    );
                }
            }
        }
    }
}

fn said(decision: Option<Decision>) -> Option<Said> {
    let decision = decision?;
    let standing = decision.standing().unwrap();
    Some(Said {
        passes: decision.is_allow(),
        rule: standing.rule().to_owned(),
        limit: standing.limit(),
        remaining: standing.remaining(),
        retry_after: standing.retry_after(),
        reset_after: standing.reset_after(),
    })
}

/// Whole seconds, rounded up, and at least one.
fn secs(time: Duration) -> u64 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    whole.max(1)
}

/// The value of `RateLimit`.
fn field(said: &Said) -> String {
    let (remaining, time) = match said.remaining {
        0 => (0, said.retry_after),
        some => (some.min(said.limit), said.reset_after),
    };
    format!("\"{}\";r={remaining};t={}", said.rule, secs(time))
}

#[test]
fn every_decision_is_the_one_that_the_rules_ask_for() {
    let config = ProptestConfig {
        cases: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let lives = (rules(), prop::collection::vec(step(), 1..80));
    let seen = RefCell::new(Seen::default());
    let lived = TestRunner::new(config).run(&lives, |(rules, steps)| {
        let mut world = World::new(rules);
        for step in steps {
            world.take(step);
        }
        while !world.under_way.is_empty() {
            world.leave(0);
        }
        world.nobody_got_too_much();
        seen.borrow_mut().add(&world.seen);
        Ok(())
    });
    lived.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    println!("{seen:?}");
    // Lives in which nothing happens would prove nothing.
    for count in [
        seen.passed,
        seen.refused,
        seen.refused_by_window,
        seen.by_none,
    ] {
        assert!(count > 1000, "{seen:?}");
    }
    for count in [
        seen.given_back,
        seen.debited,
        seen.read,
        seen.would_be_refused,
    ] {
        assert!(count > 500, "{seen:?}");
    }
}
