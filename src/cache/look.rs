//! The first stop of every request: what does memory say?
//!
//! Synchronous and free of allocation wherever something stored can be served.

use std::sync::Arc;

use http::{HeaderMap, Method, Request};

use crate::cache::control::CacheControl;
use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::flight::{Boarding, Passenger, Pilot};
use crate::cache::hot::Slot;
use crate::cache::key::{CacheKey, KeyView};
use crate::cache::policy::{Freshness, has_credentials};
use crate::cache::status::{FwdReason, Service};
use crate::clock::Moment;
use crate::identity::RequestView;

/// Where a request goes from here.
#[derive(Debug)]
pub(crate) enum Stop {
    /// To the client, with what is stored.
    Serve(Arc<Entry>, Moment, Service),
    /// To the client with what is stored, while it is fetched anew.
    ServeAndFetch(Arc<Entry>, Moment, Fetch),
    /// To the service, and what comes back is nobody else's.
    Pass(FwdReason),
    /// To the service, and what is stored under its path holds no longer.
    Unsafe,
    /// To the service, and what comes back may be stored.
    Fetch(Fetch),
    /// Somebody else is fetching it, for the same reason.
    Wait(Passenger, FwdReason),
    /// The client wants a stored answer or none, and there is none.
    Refuse,
}

/// A request to the service whose answer may be stored.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) key: CacheKey,
    pub(crate) reason: FwdReason,
    /// Held by whoever others wait for.
    pub(crate) pilot: Option<Pilot>,
    /// What is stored but may not be served unasked.
    pub(crate) stale: Option<Arc<Entry>>,
    pub(crate) control: CacheControl,
}

/// Whether a request may wait for another one's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// It may lead or follow.
    Shared,
    /// It goes alone.
    Alone,
}

/// How a request goes to the service.
#[derive(Clone, Copy, Debug)]
struct Way<'a> {
    method: &'a Method,
    now: Moment,
    /// The variant for which it may lead or follow; `None` if it goes alone.
    variant: Option<u64>,
}

impl<'a> Way<'a> {
    const fn alone(method: &'a Method, now: Moment) -> Self {
        let variant = None;
        Self {
            method,
            now,
            variant,
        }
    }

    const fn shared(method: &'a Method, now: Moment, variant: u64) -> Self {
        let variant = Some(variant);
        Self {
            method,
            now,
            variant,
        }
    }
}

/// Decides where `request` goes.
pub(crate) fn look<B>(cache: &Cache, request: &Request<B>, company: Company) -> Stop {
    let method = request.method();
    if *method != Method::GET && *method != Method::HEAD {
        // RFC 9110 §9.2.1: an unknown method is not known to be safe.
        return if method.is_safe() {
            Stop::Pass(FwdReason::Method)
        } else {
            Stop::Unsafe
        };
    }
    let headers = request.headers();
    let said = Said::by(headers);
    if said.stays_out {
        return Stop::Pass(FwdReason::Bypass);
    }
    let Some(key) = KeyView::of(
        RequestView::of(request).uri,
        headers,
        cache.config().key_authority,
    ) else {
        return Stop::Pass(FwdReason::Bypass);
    };
    let control = if said.directives {
        CacheControl::of_request(headers)
    } else {
        CacheControl::default()
    };
    if control.no_store {
        return Stop::Pass(FwdReason::Request);
    }
    let now = cache.clock().now();
    let slot = cache.slot(key);
    let (entry, reason) = select(cache, slot.as_deref(), headers);
    if let Some(entry) = &entry
        && !entry.terms.for_everyone
        && has_credentials(headers, cache.rules())
    {
        // What is stored may be somebody else's view; what comes back may still be for everyone.
        return fetch(
            cache,
            key,
            FwdReason::Bypass,
            (None, control),
            Way::alone(method, now),
        );
    }
    let passed = slot
        .as_ref()
        .and_then(|slot| slot.pass_until)
        .is_some_and(|until| now < until);
    // Computed only where memory has no answer.
    let way = |asked_each_time: bool| {
        if company == Company::Alone || passed || asked_each_time {
            Way::alone(method, now)
        } else {
            Way::shared(method, now, variant(slot.as_deref(), headers))
        }
    };
    let Some(entry) = entry else {
        return fetch(cache, key, reason, (None, control), way(false));
    };
    let reason = match entry.terms.freshness(entry.age(now), &control) {
        Freshness::Fresh => return Stop::Serve(entry, now, Service::Fresh),
        Freshness::StaleAccepted => return Stop::Serve(entry, now, Service::Accepted),
        Freshness::StaleWhileRevalidate => {
            return refresh(cache, key, (entry, control), way(false));
        }
        Freshness::Unwanted => FwdReason::Request,
        Freshness::Stale => FwdReason::Stale,
    };
    // What is never served unasked is not worth waiting for either: each request asks by itself. Nor is
    // the answer to somebody else's question for one that wants an answer of its own.
    let way = way(!entry.terms.serves_others() || reason == FwdReason::Request);
    fetch(cache, key, reason, (Some(entry), control), way)
}

/// Serves what is stale, and fetches it anew unless somebody does already.
fn refresh(
    cache: &Cache,
    key: KeyView<'_>,
    (entry, control): (Arc<Entry>, CacheControl),
    way: Way<'_>,
) -> Stop {
    // Alone: the last answer could not be stored, and asking again with each request would not help.
    let (Some(variant), true) = (way.variant, *way.method == Method::GET) else {
        return Stop::Serve(entry, way.now, Service::WhileRevalidate);
    };
    if cache.spawner().is_none() {
        return Stop::Serve(entry, way.now, Service::WhileRevalidate);
    }
    let key = key.to_owned();
    match cache.board(&key, variant, way.now) {
        Boarding::Follow(_) => Stop::Serve(entry, way.now, Service::WhileRevalidate),
        Boarding::Lead(pilot) => {
            let stale = Some(Arc::clone(&entry));
            let (pilot, reason) = (Some(pilot), FwdReason::Stale);
            Stop::ServeAndFetch(
                entry,
                way.now,
                Fetch {
                    key,
                    reason,
                    pilot,
                    stale,
                    control,
                },
            )
        }
    }
}

/// Sends a request on to the service, alone, as leader or behind one.
fn fetch(
    cache: &Cache,
    key: KeyView<'_>,
    reason: FwdReason,
    (stale, control): (Option<Arc<Entry>>, CacheControl),
    way: Way<'_>,
) -> Stop {
    if control.only_if_cached {
        return Stop::Refuse;
    }
    // The answer to a HEAD has no content to store.
    if *way.method == Method::HEAD {
        return Stop::Pass(reason);
    }
    let key = key.to_owned();
    let Some(variant) = way.variant else {
        return Stop::Fetch(Fetch {
            key,
            reason,
            pilot: None,
            stale,
            control,
        });
    };
    match cache.board(&key, variant, way.now) {
        Boarding::Follow(passenger) => Stop::Wait(passenger, reason),
        Boarding::Lead(pilot) => Stop::Fetch(Fetch {
            key,
            reason,
            pilot: Some(pilot),
            stale,
            control,
        }),
    }
}

/// The newest stored answer that fits the request and still holds, or why there is none.
fn select(
    cache: &Cache,
    slot: Option<&Slot>,
    request: &HeaderMap,
) -> (Option<Arc<Entry>>, FwdReason) {
    let Some(slot) = slot else {
        return (None, FwdReason::UriMiss);
    };
    let mut reason = FwdReason::UriMiss;
    for entry in &slot.variants {
        if !entry.holds(cache.journal()) {
            continue;
        }
        if entry.selector.fits(request) {
            return (Some(Arc::clone(entry)), reason);
        }
        reason = FwdReason::VaryMiss;
    }
    (None, reason)
}

/// By which fields the answers of this URL are known to differ, and how this request answers them, so
/// that requests for one variant do not queue behind those for another.
fn variant(slot: Option<&Slot>, request: &HeaderMap) -> u64 {
    let newest = slot.and_then(|slot| slot.variants.first());
    newest.map_or(0, |entry| entry.selector.variant(request))
}

/// What the fields of a request say to a cache, in one walk over their names: a look-up for each of them
/// would cost more than the look into the store.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The cache takes no part: parts of an answer, conditions on changing it, a change of protocol, and a
    /// GET with content, which no key could tell apart.
    stays_out: bool,
    /// There are directives to be read.
    directives: bool,
}

impl Said {
    fn by(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "range"
                | "if-range"
                | "if-match"
                | "if-unmodified-since"
                | "upgrade"
                | "transfer-encoding" => said.stays_out = true,
                "content-length" => said.stays_out |= value != "0",
                "cache-control" | "pragma" => said.directives = true,
                _ => {}
            }
        }
        said
    }
}
