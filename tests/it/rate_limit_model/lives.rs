//! Lives of a limiter as they may come: its rules, who visits it, and what happens meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tower_keep::rate_limit::Period;

use crate::rate_limit_reference::{Against, Amount, Counted, Price, Ruled, Visit, Visitor};

const NAMES: [&str; 4] = ["first", "second", "third", "fourth"];

#[derive(Clone, Copy, Debug)]
pub enum How {
    Peek,
    Check,
    /// Through the layer, whose answer comes later.
    Send,
}

/// How much too early, in microseconds.
pub type Early = u64;

#[derive(Clone, Debug)]
pub enum Step {
    Visit(Visit, How),
    /// Without a request: of which rule, who, and for how many tokens.
    Key(usize, usize, u32),
    /// One of those under way is answered: failed or not, what the handler tells, the frames of its body.
    Answer(usize, bool, Option<u32>, Vec<u8>),
    /// A part of a body is read.
    Read(usize),
    /// Somebody goes away, before the answer or while it comes.
    Leave(usize),
    Pass(Duration),
    /// Until the last one that was told how long to wait may come again, or a microsecond less.
    Obey(Early),
    /// To the end of the hour, the day or the month, or a microsecond less.
    Until(Period, Early),
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

pub fn rules() -> impl Strategy<Value = Vec<Ruled>> {
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
        (Price::Bytes, Counted::All),
    ]);
    let path = prop::sample::select(vec![None, None, None, Some("/a"), Some("/b")]);
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
        prop::sample::select(vec!["/a", "/a", "/b", "/c"]),
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

pub fn step() -> impl Strategy<Value = Step> {
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
    let (which, told, early) = (0usize..8, prop::option::of(0u32..6), 0u64..2);
    let frames = prop::collection::vec(0u8..4, 0..4);
    prop_oneof![
        24 => (visit(), how).prop_map(|(visit, how)| Step::Visit(visit, how)),
        2 => (0usize..4, 0usize..2, 0u32..4).prop_map(|(rule, who, cost)| Step::Key(rule, who, cost)),
        7 => (which.clone(), any::<bool>(), told, frames)
            .prop_map(|(which, failed, told, frames)| Step::Answer(which, failed, told, frames)),
        5 => which.clone().prop_map(Step::Read),
        2 => which.prop_map(Step::Leave),
        5 => micros.prop_map(|micros| Step::Pass(Duration::from_micros(micros))),
        3 => early.clone().prop_map(Step::Obey),
        1 => (period, early).prop_map(|(period, early)| Step::Until(period, early)),
    ]
}
