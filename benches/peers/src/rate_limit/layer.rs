//! A request through the layer, above a service that does nothing.
//!
//! Every request carries four fields and its peer's address, and the baseline builds them and an empty
//! answer. What the layers add to that is compared. The quotas are those of `decision`.
//!
//! `tower_keep_quiet` says nothing about the quota in answers to those it lets through, as tower_governor does. The peers with words of their own
//! (`tower_governor_fields` three fields, axum-governor five, throttle-kit three) are beside `tower_keep`,
//! which has the two of the IETF draft.

use std::convert::Infallible;
use std::future::{Ready, ready};

use axum::body::Body;
use axum_governor::extractor::PeerIp;
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_governor::GovernorLayer;
use tower_governor::governor::GovernorConfigBuilder;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::rate_limit::{RateLimitConfig, RateLimitLayer, RateLimiter, Rule, Scope};

use super::decision::{Rate, half_full};
use super::goal;
use super::keys::Spread;
use crate::Failure;
use crate::measure::{Bench, Case, Compare, Contender, Figures, Role};
use crate::traffic::Traffic;

const REQUESTS: usize = 1 << 16;
/// Fewer, because peers take their time to refuse.
const REFUSED: usize = 1 << 13;

pub(crate) fn run(bench: &Bench) -> Result<(), Failure> {
    for (name, spread) in [
        ("rate_limit/layer_allow_1", Spread::One),
        ("rate_limit/layer_allow_10k", Spread::TenThousand),
        ("rate_limit/layer_allow_1m", Spread::Million),
        ("rate_limit/layer_allow_1m_zipf", Spread::MillionZipf),
    ] {
        allow(bench, name, spread)?;
    }
    for (name, spread) in [
        ("rate_limit/layer_deny_1", Spread::One),
        ("rate_limit/layer_deny_10k", Spread::TenThousand),
    ] {
        deny(bench, name, spread)?;
    }
    Ok(())
}

fn allow(bench: &Bench, name: &'static str, spread: Spread) -> Result<(), Failure> {
    let rate = Rate::endless(spread);
    let traffic = Traffic::from_clients(spread.peers())?;
    let ours = |fields| tower_keep(rate, spread.keys(), fields);
    let throttle = throttle_kit::Quota::from_parts(rate.interval(), rate.burst());
    let throttle =
        throttle_kit::RateLimitLayer::new(throttle, throttle_kit::InMemoryBackend::new());
    let contenders = vec![
        bench.contender("no_layer", Role::Baseline, &traffic, nothing()),
        bench.contender(
            "tower_keep",
            Role::Ours,
            &traffic,
            ours(true)?.layer(nothing()),
        ),
        bench.contender(
            "tower_keep_quiet",
            Role::Context,
            &traffic,
            ours(false)?.layer(nothing()),
        ),
        bench.contender("tower_governor", Role::Peer, &traffic, plain(rate)?),
        bench.contender(
            "tower_governor_fields",
            Role::Peer,
            &traffic,
            with_fields(rate)?,
        ),
        bench.contender("axum_governor", Role::Peer, &traffic, axum_governor(rate)?),
        bench.contender(
            "throttle_kit",
            Role::Peer,
            &traffic,
            throttle.layer(nothing()),
        ),
    ];
    let figures = compare((name, REQUESTS), spread, contenders);
    for (who, peer, goal) in [
        ("tower_keep_quiet", "tower_governor", 0.7),
        ("tower_keep", "tower_governor_fields", 0.75),
        ("tower_keep", "axum_governor", 0.35),
    ] {
        if let (Some(ours), Some(theirs)) = (figures.above(who), figures.above(peer)) {
            goal::at_most(name, &format!("{who}/{peer}"), ours / theirs, goal);
        }
    }
    println!();
    Ok(())
}

fn deny(bench: &Bench, name: &'static str, spread: Spread) -> Result<(), Failure> {
    let rate = Rate::SPENT;
    let traffic = Traffic::from_clients(spread.peers())?;
    let ours = tower_keep(rate, spread.keys(), true)?.layer(nothing());
    let contenders = vec![
        bench.contender("no_layer", Role::Baseline, &traffic, nothing()),
        bench.contender("tower_keep", Role::Ours, &traffic, ours),
        bench.contender("tower_governor", Role::Peer, &traffic, plain(rate)?),
        bench.contender(
            "tower_governor_fields",
            Role::Peer,
            &traffic,
            with_fields(rate)?,
        ),
        bench.contender("axum_governor", Role::Peer, &traffic, axum_governor(rate)?),
    ];
    let figures = compare((name, REFUSED), spread, contenders);
    if let (Some(ours), Some(theirs)) =
        (figures.above("tower_keep"), figures.above("tower_governor"))
    {
        goal::at_most(name, "ns", ours, 1000.0);
        goal::at_least(name, "tower_governor/tower_keep", theirs / ours, 25.0);
    }
    println!();
    Ok(())
}

/// Everybody has seen every key before the clock starts.
fn compare(
    (name, requests): (&'static str, usize),
    spread: Spread,
    mut contenders: Vec<Contender>,
) -> Figures {
    for contender in &mut contenders {
        contender.begin(spread.keys());
    }
    let case = Case {
        name,
        requests,
        compare: Compare::AboveBaseline,
        contenders,
    };
    case.run_in_own_words()
}

/// The service behind all of them.
fn nothing() -> impl Service<
    Request<Body>,
    Response = Response<Body>,
    Error = Infallible,
    Future = Ready<Result<Response<Body>, Infallible>>,
> + Clone
+ Send
+ 'static {
    service_fn(|_: Request<Body>| ready(Ok(Response::new(Body::empty()))))
}

/// Ours, by address.
fn tower_keep(rate: Rate, keys: usize, fields: bool) -> Result<RateLimitLayer, Failure> {
    let rule = Rule::new("default", rate.ours()).scope(Scope::Ip);
    let config = RateLimitConfig {
        default_rule: false,
        rules: vec![rule],
        keys_max: half_full(keys),
        quota_headers: fields,
        ..RateLimitConfig::default()
    };
    let limiter = RateLimiter::new(&config, &[], Clock::system(), Events::none())?;
    Ok(RateLimitLayer::new(limiter))
}

type Answered = Response<Body>;

fn plain(
    rate: Rate,
) -> Result<impl Service<Request<Body>, Response = Answered, Error = Infallible> + 'static, Failure>
{
    let mut config = GovernorConfigBuilder::default();
    let config = config
        .period(rate.interval())
        .burst_size(rate.burst())
        .finish();
    Ok(GovernorLayer::new(config.ok_or("tower_governor's settings")?).layer(nothing()))
}

fn with_fields(
    rate: Rate,
) -> Result<impl Service<Request<Body>, Response = Answered, Error = Infallible> + 'static, Failure>
{
    let mut config = GovernorConfigBuilder::default();
    let config = config.period(rate.interval()).burst_size(rate.burst());
    let config = config
        .use_headers()
        .finish()
        .ok_or("tower_governor's settings")?;
    Ok(GovernorLayer::new(config).layer(nothing()))
}

fn axum_governor(
    rate: Rate,
) -> Result<impl Service<Request<Body>, Response = Answered, Error = Infallible> + 'static, Failure>
{
    let quota = axum_governor::Quota::from(rate.governor()?);
    let config = axum_governor::GovernorConfigBuilder::default()
        .with_extractor(PeerIp::default())
        .expect_connect_info()
        .quota_default(quota)
        .gc_disable()
        .finish()?;
    Ok(axum_governor::GovernorLayer::new(config).layer(nothing()))
}
