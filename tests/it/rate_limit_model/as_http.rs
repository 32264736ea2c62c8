//! The reference's words as HTTP has them: rules, requests, and what is answered.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::oneshot;
use tower::Service;
use tower_keep::identity::{ApiKey, Caller, PeerAddr, RequestView};
use tower_keep::rate_limit::{Cost, Count, Decision, RequestCost, Rule, Scope};

use crate::rate_limit_reference::{Against, Amount, Counted, Price, Ruled, Said, Visit};

pub fn rule_of(ruled: &Ruled) -> Rule {
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

pub fn request_of(visit: &Visit) -> Request<()> {
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

pub fn said(decision: Option<Decision>) -> Option<Said> {
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
pub fn secs(time: Duration) -> u64 {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    whole.max(1)
}

/// The value of `RateLimit`.
pub fn field(said: &Said) -> String {
    let (remaining, time) = match said.remaining {
        0 => (0, said.retry_after),
        some => (some.min(said.limit), said.reset_after),
    };
    format!("\"{}\";r={remaining};t={}", said.rule, secs(time))
}

pub type Frames = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

type Answer = Pin<Box<dyn Future<Output = Result<Response<Frames>, Infallible>> + Send>>;

/// Where the answer to a request goes in.
pub type Gate = oneshot::Sender<Response<Frames>>;

/// A service that leaves a gate for each request that reaches it, and answers what comes through.
#[derive(Clone, Default)]
pub struct Gated(pub Arc<Mutex<Option<Gate>>>);

impl Service<Request<()>> for Gated {
    type Response = Response<Frames>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Answer {
        let (gate, behind) = oneshot::channel();
        *self.0.lock().unwrap() = Some(gate);
        Box::pin(async move { Ok(behind.await.unwrap()) })
    }
}

/// An answer whose body comes in frames of so many bytes.
pub fn answer_of(failed: bool, told: Option<u32>, frames: Vec<u8>) -> Response<Frames> {
    let frame = |bytes: u8| Ok(Frame::data(Bytes::from(vec![0; bytes.into()])));
    let frames: Vec<_> = frames.into_iter().map(frame).collect();
    let mut answer = Response::new(StreamBody::new(stream::iter(frames)));
    if failed {
        *answer.status_mut() = StatusCode::UNAUTHORIZED;
    }
    if let Some(told) = told {
        answer.extensions_mut().insert(Cost(told));
    }
    answer
}
