//! Random lives of a limiter against the reference, request by request and to the microsecond.
//!
//! Rules, callers and leaps of the clock come as they like. Every decision, the rule that speaks, what remains, for
//! how long, and every event must be the reference's; and whatever moment one begins to count at, no more may
//! have passed than a burst, what has grown back since and what was given back.

mod as_http;
mod lives;
mod passed;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRunner};
use tower::{Layer, Service};
use tower_keep::clock::{Clock, ManualClock};
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::identity::RequestView;
use tower_keep::rate_limit::{
    RateLimitBody, RateLimitConfig, RateLimitLayer, RateLimitService, RateLimiter,
};

use crate::rate_limit_reference::{Against, Amount, Charge, Reference, Ruled, Said, Visit};
use as_http::{Frames, Gate, Gated, answer_of, field, request_of, rule_of, said, secs};
use lives::{How, Step};
use passed::Passed;

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Recorder for Heard {
    fn record(&self, event: &Event<'_>) {
        let text = match event {
            Event::RateLimitAllowed { rule } => format!("allowed {rule}"),
            Event::RateLimitDenied { rule, shadow } => match shadow {
                false => format!("denied {rule}"),
                true => format!("would be denied {rule}"),
            },
            _ => return,
        };
        self.0.lock().unwrap().push(text);
    }
}

type Answered = Result<Response<RateLimitBody<Frames>>, Infallible>;

/// A request that was let through the layer.
enum UnderWay {
    Waiting {
        future: Pin<Box<dyn Future<Output = Answered>>>,
        gate: Gate,
        said: Option<Said>,
        charged: Vec<Charge>,
    },
    Sending {
        body: RateLimitBody<Frames>,
        sent: u32,
        metered: Vec<Charge>,
    },
}

/// What lives must show, or they would prove nothing.
const DEEDS: [&str; 8] = [
    "passed",
    "refused",
    "refused by a quota of the calendar",
    "spoken of by no rule",
    "would be refused",
    "given back",
    "charged by the body",
    "read",
];

/// How often something happened.
type Seen = BTreeMap<&'static str, usize>;

struct World {
    limiter: RateLimiter,
    service: RateLimitService<Gated>,
    reached: Gated,
    hand: ManualClock,
    heard: Arc<Heard>,
    reference: Reference,
    under_way: Vec<UnderWay>,
    passed: Passed,
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
        let reached = Gated::default();
        Self {
            service: RateLimitLayer::new(limiter.clone()).layer(reached.clone()),
            limiter,
            reached,
            hand,
            heard,
            reference: Reference::new(rules),
            under_way: Vec::new(),
            passed: Passed::default(),
            told_to_wait: Duration::ZERO,
            seen: Seen::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Visit(visit, How::Peek) => {
                let decision = self.limiter.peek(&RequestView::of(&request_of(&visit)));
                assert_eq!(said(decision), self.reference.peek(&visit), "{visit:?}");
            }
            Step::Visit(visit, How::Check) => {
                let check = self.limiter.check(&RequestView::of(&request_of(&visit)));
                let (expected, _) = self.expect(self.reference.charges(&visit));
                assert_eq!(said(check.now_or_never().unwrap()), expected, "{visit:?}");
            }
            Step::Visit(visit, How::Send) => self.send(&visit),
            Step::Key(rule, who, cost) => self.key(rule % self.reference.rules.len(), who, cost),
            Step::Answer(which, failed, told, frames) => self.answer(which, failed, told, frames),
            Step::Read(which) => self.read(which),
            Step::Leave(which) => self.leave(which),
            Step::Pass(time) => self.pass(time),
            Step::Obey(early) => {
                let wait = std::mem::take(&mut self.told_to_wait);
                self.pass(wait.saturating_sub(Duration::from_micros(early)));
            }
            Step::Until(period, early) => {
                let window = Amount::Calendar {
                    requests: 1,
                    period,
                };
                let left = window.end(self.reference.now).unwrap() - self.reference.now;
                self.pass(Duration::from_micros(left as u64 - early));
            }
        }
        let expected = std::mem::take(&mut self.reference.events);
        assert_eq!(std::mem::take(&mut *self.heard.0.lock().unwrap()), expected);
        let would = expected.iter().filter(|event| event.starts_with("would"));
        self.saw("would be refused", would.count());
    }

    fn pass(&mut self, time: Duration) {
        self.hand.advance(time);
        self.reference.now += time.as_micros() as i128;
    }

    fn saw(&mut self, deed: &'static str, times: usize) {
        *self.seen.entry(deed).or_default() += times;
    }

    /// What is to be said of a request by the rules that are enforced and those that watch, and what it is
    /// charged.
    fn expect(
        &mut self,
        (enforced, watching): (Vec<Charge>, Vec<Charge>),
    ) -> (Option<Said>, Vec<Charge>) {
        self.passed.held_against(&enforced);
        self.passed.held_against(&watching);
        let (said, charged) = self.reference.decide(enforced, watching);
        self.passed.take(self.reference.now, &charged);
        match &said {
            None => self.saw("spoken of by no rule", 1),
            Some(said) if said.passes => self.saw("passed", 1),
            Some(said) => {
                self.told_to_wait = said.retry_after;
                let by = |rule: &&Ruled| rule.name == said.rule && rule.goes_by_calendar();
                let by_calendar = self.reference.rules.iter().filter(by).count();
                self.saw("refused", 1);
                self.saw("refused by a quota of the calendar", by_calendar);
            }
        }
        (said, charged)
    }

    /// Asks without a request.
    fn key(&mut self, rule: usize, who: usize, cost: u32) {
        let ruled = &self.reference.rules[rule];
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
        let (expected, _) = self.expect(match ruled.shadow {
            true => (vec![], vec![charge]),
            false => (vec![charge], vec![]),
        });
        assert_eq!(said(check.now_or_never().unwrap()), expected, "{key}");
    }

    fn send(&mut self, visit: &Visit) {
        let mut future = Box::pin(self.service.call(request_of(visit)));
        let gate = self.reached.0.lock().unwrap().take();
        let (said, charged) = self.expect(self.reference.charges(visit));
        let answer = future.as_mut().now_or_never();
        match (&said, answer, gate) {
            (Some(refusal), Some(Ok(answer)), None) if !refusal.passes => {
                let wait = secs(refusal.retry_after).to_string();
                assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
                assert_eq!(answer.headers()["retry-after"], wait);
                assert_eq!(answer.headers()["ratelimit"], field(refusal));
            }
            (None | Some(Said { passes: true, .. }), None, Some(gate)) => {
                self.under_way.push(UnderWay::Waiting {
                    future,
                    gate,
                    said,
                    charged,
                });
            }
            (_, answer, gate) => panic!(
                "{said:?}, but answered: {}, reached: {}",
                answer.is_some(),
                gate.is_some()
            ),
        }
    }

    /// Takes out one of those under way that are wanted, if there is one.
    fn pick(&mut self, which: usize, wanted: fn(&UnderWay) -> bool) -> Option<UnderWay> {
        let ways = self.under_way.iter().enumerate();
        let wanted: Vec<_> = ways.filter(|(_, way)| wanted(way)).collect();
        let (at, _) = wanted.get(which.checked_rem(wanted.len())?)?;
        Some(self.under_way.remove(*at))
    }

    fn answer(&mut self, which: usize, failed: bool, told: Option<u32>, frames: Vec<u8>) {
        let Some(UnderWay::Waiting {
            mut future,
            gate,
            said,
            charged,
        }) = self.pick(which, |way| matches!(way, UnderWay::Waiting { .. }))
        else {
            return;
        };
        assert!(gate.send(answer_of(failed, told, frames)).is_ok());
        let answer = future.as_mut().now_or_never().unwrap().unwrap();
        let fields = answer.headers().get("ratelimit");
        let fields = fields.map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(fields, said.as_ref().map(field));
        let settled = self.reference.settle(charged, failed, told);
        self.passed
            .give_back(self.reference.now, &settled.given_back);
        self.saw("given back", settled.given_back.len());
        self.under_way.push(UnderWay::Sending {
            body: answer.into_body(),
            sent: 0,
            metered: settled.metered,
        });
    }

    fn read(&mut self, which: usize) {
        let mut way = self.pick(which, |way| matches!(way, UnderWay::Sending { .. }));
        if let Some(UnderWay::Sending { body, sent, .. }) = &mut way {
            let frame = body.frame().now_or_never().unwrap();
            *sent += frame.map_or(0, |frame| frame.unwrap().into_data().unwrap().len() as u32);
            self.saw("read", 1);
        }
        self.under_way.extend(way);
    }

    fn leave(&mut self, which: usize) {
        // Who goes away without an answer stays counted.
        if let Some(UnderWay::Sending {
            body,
            sent,
            metered,
        }) = self.pick(which, |_| true)
        {
            drop(body);
            for charge in &metered {
                self.reference.debit(charge, sent);
            }
            let charged = metered.iter().filter(|_| sent > 0).count();
            self.saw("charged by the body", charged);
        }
    }
}

#[test]
fn every_decision_is_the_one_that_the_rules_ask_for() {
    let config = ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        // Without optimisation the usual one takes longer than the lives themselves.
        rng_algorithm: RngAlgorithm::XorShift,
        ..ProptestConfig::default()
    };
    let lives = (lives::rules(), prop::collection::vec(lives::step(), 1..80));
    let seen = RefCell::new(Seen::new());
    let lived = TestRunner::new(config).run(&lives, |(rules, steps)| {
        let mut world = World::new(rules);
        for step in steps {
            world.take(step);
        }
        while !world.under_way.is_empty() {
            world.leave(0);
        }
        world.passed.nobody_got_too_much();
        for (deed, times) in world.seen {
            *seen.borrow_mut().entry(deed).or_default() += times;
        }
        Ok(())
    });
    lived.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    println!("{seen:?}");
    for deed in DEEDS {
        assert!(seen[deed] > 500, "{deed}: {seen:?}");
    }
}
