//! One decision of the engine.
//!
//! Everybody keeps a bucket per key and has the same quota: one that always lets through and still has
//! something to write (`allow`), one of which nothing is left (`deny`), or one so fast that every bucket
//! is full again when it is asked for (`lapsed`). In the first two every bucket is in use whenever it is
//! asked for; our table is half full of them. The keys are addresses, and texts (`text`) where there are
//! peers that have no others.
//!
//! `tower_keep` says yes or no, as governor does; `tower_keep_decision` also how the caller stands, as
//! governor does where it is asked for its state (`governor_state`).
//!
//! `floor` is no limiter: a hash, a look at the clock, and one compare-and-swap in a table that is asked
//! for nothing else, with neither tags nor room for collisions.

use std::future::Future;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use foldhash::fast::FixedState;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::rate_limit::{Quota, RateLimitConfig, RateLimiter, Rule, Scope};
use trypema::local::LocalRateLimiterProvider;
use trypema::{BucketSize, RateLimit, RateLimiterBuilder, WindowSize};

use super::goal;
use super::keys::Spread;
use super::turns::{Engine, Ratios, run as take_turns};
use crate::Failure;
use crate::measure::Bench;

/// `ours / governor` at every number of keys.
const GOAL: f64 = 0.65;

pub(crate) fn run(_: &Bench) -> Result<(), Failure> {
    for threads in [1, 2] {
        for spread in Spread::ALL {
            allow(spread, threads)?;
            deny(spread, threads)?;
        }
    }
    for spread in [Spread::TenThousand, Spread::Million, Spread::MillionZipf] {
        lapsed(spread)?;
    }
    for spread in [Spread::TenThousand, Spread::Million] {
        by_text(spread)?;
    }
    Ok(())
}

fn allow(spread: Spread, threads: usize) -> Result<(), Failure> {
    let case = format!("rate_limit/decision_allow_{}_t{threads}", spread.name());
    let informed = governor::RateLimiter::keyed(Rate::endless(spread).governor()?)
        .with_middleware::<governor::middleware::StateInformationMiddleware>();
    let whole = tower_keep(Rate::endless(spread), spread.keys(), Scope::Ip)?;
    let whole = whole.rule(RULE).ok_or("no rule")?;
    let floor = Floor::new(spread.keys());
    let addresses = spread.turn();
    let others = [
        Engine::new("tower_keep_decision", &addresses, |key| {
            let decision = at_once(whole.check_ip(*key, 1)).flatten();
            decision.is_some_and(|decision| decision.is_allow())
        }),
        Engine::new("governor_state", &addresses, |key| {
            informed.check_key(key).is_ok()
        }),
        Engine::new("floor", &addresses, |key| floor.charge(key)),
    ];
    by_address(
        (&case, 1.0),
        threads,
        (spread, Rate::endless(spread)),
        others,
    )
}

fn deny(spread: Spread, threads: usize) -> Result<(), Failure> {
    let case = format!("rate_limit/decision_deny_{}_t{threads}", spread.name());
    by_address((&case, 0.0), threads, (spread, Rate::SPENT), [])
}

/// Buckets that are full again whenever they are asked for, as those of most clients are.
fn lapsed(spread: Spread) -> Result<(), Failure> {
    let case = format!("rate_limit/decision_lapsed_{}_t1", spread.name());
    by_address((&case, 1.0), 1, (spread, Rate::FULL_AGAIN), [])
}

fn by_address<const N: usize>(
    (case, part): (&str, f64),
    threads: usize,
    (spread, rate): (Spread, Rate),
    others: [Engine<'_>; N],
) -> Result<(), Failure> {
    let addresses = spread.turn();
    let ours = tower_keep(rate, spread.keys(), Scope::Ip)?;
    let ours = ours.rule(RULE).ok_or("no rule")?;
    let plain = governor::RateLimiter::keyed(rate.governor()?);
    let mut engines = vec![
        Engine::new("tower_keep", &addresses, |key| {
            ours.check_ip(*key, 1).is_allow() == Some(true)
        }),
        Engine::new("governor", &addresses, |key| plain.check_key(key).is_ok()),
    ];
    engines.extend(others);
    let ratios = take_turns(case, threads, (addresses.len(), part), &engines)?;
    judge(case, "governor", &ratios);
    Ok(())
}

/// The same keys as text, for those that have no others.
fn by_text(spread: Spread) -> Result<(), Failure> {
    let rate = Rate::endless(spread);
    let texts = spread.turn().into_iter().map(|key| key.to_string());
    let texts: Vec<String> = texts.collect();
    let ours = tower_keep(rate, spread.keys(), Scope::Caller)?;
    let ours = ours.rule(RULE).ok_or("no rule")?;
    let plain = governor::RateLimiter::keyed(rate.governor()?);
    let memory = throttle_kit::InMemoryBackend::new();
    let throttle = throttle_kit::RateLimiter::new(rate.throttle(), memory);
    let (trypema, endless) = (trypema()?, RateLimit::max());
    let engines = [
        Engine::new("tower_keep", &texts, |key| {
            ours.check_key(key, 1).is_allow() == Some(true)
        }),
        Engine::new("governor", &texts, |key| plain.check_key(key).is_ok()),
        Engine::new("throttle_kit", &texts, |key| {
            at_once(throttle.check(key)).is_some_and(|told| told.allowed)
        }),
        Engine::new("trypema", &texts, |key| {
            let told = trypema.absolute().inc(key, &endless, 1);
            matches!(told, trypema::RateLimitDecision::Allowed)
        }),
    ];
    let case = format!("rate_limit/decision_text_{}_t1", spread.name());
    let ratios = take_turns(&case, 1, (texts.len(), 1.0), &engines)?;
    judge(&case, "governor", &ratios);
    Ok(())
}

fn judge(case: &str, peer: &str, ratios: &Ratios) {
    if let Some(ratio) = ratios.to(peer) {
        goal::at_most(case, &format!("ours/{peer}"), ratio, GOAL);
    }
    println!();
}

/// One request in `interval`, and `burst` at once.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    /// One an hour, which the first call has taken.
    pub(crate) const SPENT: Self = Self {
        interval: Duration::from_secs(3600),
        burst: 1,
    };

    /// One a microsecond, and many at once.
    const FULL_AGAIN: Self = Self {
        interval: Duration::from_micros(1),
        burst: 1_000_000,
    };

    /// So many at once that no case sees the end of them, and so slow that every bucket stays in use.
    pub(crate) const fn endless(spread: Spread) -> Self {
        match spread {
            Spread::One => Self {
                interval: Duration::from_millis(1),
                burst: u32::MAX,
            },
            // 58 days until the bucket is full again, of which the most popular key by Zipf's law uses 25.
            Spread::TenThousand | Spread::Million | Spread::MillionZipf => Self {
                interval: Duration::from_secs(1),
                burst: 5_000_000,
            },
        }
    }

    pub(crate) fn ours(self) -> Quota {
        Quota::requests(1).per(self.interval).burst(self.burst)
    }

    pub(crate) fn governor(self) -> Result<governor::Quota, Failure> {
        let quota = governor::Quota::with_period(self.interval).ok_or("a period of nothing")?;
        Ok(quota.allow_burst(NonZeroU32::new(self.burst).ok_or("a burst of none")?))
    }

    pub(crate) const fn interval(self) -> Duration {
        self.interval
    }

    pub(crate) const fn burst(self) -> u32 {
        self.burst
    }

    fn throttle(self) -> throttle_kit::Quota {
        throttle_kit::Quota::from_parts(self.interval, self.burst)
    }
}

/// The name of the rule.
pub(crate) const RULE: &str = "rule";

/// A limiter of one rule whose table is half full with `keys`.
pub(crate) fn tower_keep(rate: Rate, keys: usize, scope: Scope) -> Result<RateLimiter, Failure> {
    let rule = Rule::new(RULE, rate.ours()).scope(scope);
    let config = RateLimitConfig {
        default_rule: false,
        rules: vec![rule],
        keys_max: half_full(keys),
        ..RateLimitConfig::default()
    };
    let (clock, events) = (Clock::system(), Events::none());
    Ok(RateLimiter::new(&config, &[], clock, events)?)
}

/// How many keys a table is asked to hold so that `keys` fill half of it: it makes five slots of four.
pub(crate) const fn half_full(keys: usize) -> usize {
    let asked = keys * 8 / 5;
    if asked < 1000 { 1000 } else { asked }
}

fn trypema() -> Result<std::sync::Arc<LocalRateLimiterProvider>, Failure> {
    let provider = LocalRateLimiterProvider::builder()
        .window_size(WindowSize::seconds(60)?)
        .bucket_size(BucketSize::milliseconds(10)?)
        .cleanup_enabled(false);
    Ok(provider.build()?)
}

/// What a future says that does not wait.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(told) => Some(told),
        Poll::Pending => None,
    }
}

struct Floor {
    hasher: FixedState,
    clock: quanta::Clock,
    begun: quanta::Instant,
    slots: Box<[AtomicU64]>,
}

impl Floor {
    fn new(keys: usize) -> Self {
        let clock = quanta::Clock::new();
        Self {
            hasher: FixedState::with_seed(7),
            begun: clock.now(),
            clock,
            slots: (0..keys * 2).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    #[inline]
    fn charge(&self, key: &IpAddr) -> bool {
        let hash = self.hasher.hash_one(key);
        let at = (u128::from(hash) * self.slots.len() as u128) >> 64;
        let slot = &self.slots[at as usize];
        let now = self.clock.now().duration_since(self.begun).as_nanos() as u64;
        let seen = slot.load(Ordering::Relaxed);
        let next = seen.max(now) + 1;
        let swap = slot.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
        // On two threads it may fail; a limiter would try again.
        std::hint::black_box(swap).is_ok() || slot.fetch_add(1, Ordering::Relaxed) > 0
    }
}
