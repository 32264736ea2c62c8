//! The first stop of every request: what does memory say?
//!
//! Synchronous and free of allocation wherever something stored can be served.

use std::sync::Arc;

use http::{HeaderMap, Method, Request};
use quick_cache::Equivalent;

use crate::cache::asked::Asked;
use crate::cache::control::CacheControl;
use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::errand::Errand;
use crate::cache::fetch::{Fetch, Inquiry};
use crate::cache::found::{Found, Wishes};
use crate::cache::hot::Slot;
use crate::cache::key::{CacheKey, KeyView};
use crate::cache::landing::{Boarding, Landing, Pilot};
use crate::cache::status::{FwdReason, Service};
use crate::cache::stop::Stop;
use crate::cache::terms::Freshness;
use crate::clock::Moment;
use crate::identity::RequestView;
use crate::journal::Verdict;

/// Whether a request may wait for another one's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// It may lead or follow.
    Shared,
    /// It goes alone.
    Alone,
}

/// A request on this stop, with what has been found out about it.
struct Looking<'a> {
    cache: &'a Cache,
    key: KeyView<'a>,
    headers: &'a HeaderMap,
    path: &'a str,
    slot: Option<Slot>,
    now: Moment,
    credentials: bool,
    directives: bool,
    wishes: Wishes,
    company: Company,
    /// Whether it may wait until it is known whether what is stored still holds.
    may_verify: bool,
    /// Whether what it was brought is its own, so that nobody need be asked whether it holds.
    is_its_own: bool,
}

/// What is stored for a request.
enum Selected {
    /// This, fresh or expired.
    Holds(Arc<Entry>, Verdict),
    /// Something of which nobody knows whether it still holds.
    Unverified(FwdReason),
    Nothing(FwdReason),
}

/// Decides where `request` goes.
#[inline]
pub(crate) fn look<B>(cache: &Cache, request: &Request<B>) -> Stop {
    look_at(cache, request, (Company::Shared, true), |key, _| {
        (cache.slot(key), false)
    })
}

/// An answer that a flight has landed with, the key that it was fetched for, and whether the service was asked
/// for it after the request had come.
pub(crate) type Brought = (Arc<Entry>, CacheKey, bool);

/// The same for a request that has waited: it goes alone now, or has been brought an answer, which need not
/// be stored any more.
pub(crate) fn look_again<B>(
    cache: &Cache,
    request: &Request<B>,
    company: Company,
    brought: Option<Brought>,
) -> Stop {
    look_at(cache, request, (company, false), |key, headers| {
        // Flights go by hashes; what they bring is compared in full.
        let fits = |(entry, of, _): &Brought| key.equivalent(of) && entry.selector.fits(headers);
        match brought.filter(fits) {
            Some((entry, _, is_its_own)) => (Some(Slot::One(entry)), is_its_own),
            None => (cache.slot(key), false),
        }
    })
}

#[inline]
fn look_at<B>(
    cache: &Cache,
    request: &Request<B>,
    (company, may_verify): (Company, bool),
    find: impl FnOnce(&KeyView<'_>, &HeaderMap) -> (Option<Slot>, bool),
) -> Stop {
    let method = request.method();
    let head = *method == Method::HEAD;
    if *method != Method::GET && !head {
        // RFC 9110 §9.2.1: an unknown method is not known to be safe.
        return if method.is_safe() {
            Stop::Pass(FwdReason::Method)
        } else {
            Stop::Unsafe
        };
    }
    let view = RequestView::of(request);
    let asked = Asked::by(view.headers, cache.credentials());
    let control = if asked.directives {
        CacheControl::of_request(view.headers)
    } else {
        CacheControl::default()
    };
    if control.no_store {
        return past(FwdReason::Request, &control);
    }
    if asked.stays_out {
        return past(FwdReason::Bypass, &control);
    }
    let Some(key) = cache.key(&view, &asked) else {
        return past(FwdReason::Bypass, &control);
    };
    let (slot, is_its_own) = find(&key, view.headers);
    let looking = Looking {
        cache,
        slot,
        is_its_own,
        key,
        headers: view.headers,
        path: view.uri.path(),
        now: cache.clock().now(),
        credentials: asked.credentials,
        directives: asked.directives,
        // RFC 9110 §14.2: "A server MUST ignore a Range header field received with a request method that
        // is unrecognized or for which range handling is not defined": that is GET alone.
        wishes: Wishes {
            conditions: asked.conditions,
            range: asked.range & !head,
            head,
        },
        company,
        // The answer to a HEAD is not worth it.
        may_verify: may_verify && !head,
    };
    looking.decide(&control)
}

/// Past the cache, unless the client wants nothing but what is in it.
const fn past(reason: FwdReason, control: &CacheControl) -> Stop {
    if control.only_if_cached {
        Stop::Refuse
    } else {
        Stop::Pass(reason)
    }
}

impl Looking<'_> {
    #[inline]
    fn decide(mut self, control: &CacheControl) -> Stop {
        // Nearly all that is stored is fresh and alone, and nearly nobody has wishes.
        if let Some(Slot::One(entry)) = &self.slot
            && self.is_plainly_fresh(entry)
            && let Some(Slot::One(entry)) = self.slot.take()
        {
            return self.serve(entry, Service::Fresh);
        }
        let (found, reason) = match self.select() {
            Selected::Nothing(reason) => (None, reason),
            // In a moment it will be known, and asking the service takes longer.
            Selected::Unverified(_) if self.may_verify => return Stop::Verify(self.key.to_owned()),
            Selected::Unverified(reason) => (None, reason),
            Selected::Holds(entry, verdict) => (Some((entry, verdict)), FwdReason::UriMiss),
        };
        let Some((entry, verdict)) = found else {
            return self.fetch(reason, None, control);
        };
        if self.credentials && !entry.for_everyone {
            // What is stored may be somebody else's view; what comes back may still be for everyone.
            return self.fetch(FwdReason::Bypass, None, control);
        }
        let age = entry.age(self.now);
        // What was expired is as old as what has just reached the end of its life, at least.
        let age = match verdict {
            Verdict::Expired => age.max(entry.terms.lifetime),
            _ => age,
        };
        match entry.terms.freshness(age, control) {
            Freshness::Fresh => self.serve(entry, Service::Fresh),
            Freshness::StaleAccepted => self.serve(entry, Service::Accepted),
            Freshness::StaleWhileRevalidate => self.refresh(entry, control),
            Freshness::Unwanted => self.fetch(FwdReason::Request, Some(entry), control),
            Freshness::Stale if entry.terms.serves_others() => {
                self.fetch(FwdReason::Stale, Some(entry), control)
            }
            Freshness::Stale => self.fetch(FwdReason::AlwaysAsked, Some(entry), control),
        }
    }

    /// Whether it may be served, as all that follows would find out at more length.
    #[inline]
    fn is_plainly_fresh(&self, entry: &Entry) -> bool {
        self.now < entry.fresh_until
            && !self.directives
            && (entry.for_everyone || !self.credentials)
            && entry.is_plain
            && entry.selector.fits(self.headers)
            && self.verdict(entry) == Verdict::Fresh
    }

    /// What is to be said of something stored.
    #[inline]
    fn verdict(&self, entry: &Entry) -> Verdict {
        match self.is_its_own {
            true => Verdict::Fresh,
            false => entry.verdict(self.cache.journal(), self.now),
        }
    }

    #[inline]
    fn serve(&self, entry: Arc<Entry>, service: Service) -> Stop {
        Stop::Serve(self.found(entry, service))
    }

    #[inline]
    const fn found(&self, entry: Arc<Entry>, service: Service) -> Found {
        Found {
            entry,
            now: self.now,
            service,
            wishes: self.wishes,
        }
    }

    /// The newest stored answer that fits the request and still holds, or why there is none.
    #[inline]
    fn select(&self) -> Selected {
        let mut reason = FwdReason::UriMiss;
        let mut unverified = false;
        let Some(slot) = &self.slot else {
            return Selected::Nothing(reason);
        };
        for entry in slot.entries() {
            let verdict = self.verdict(entry);
            if !verdict.holds() {
                unverified |= verdict == Verdict::Unverified && entry.selector.fits(self.headers);
                continue;
            }
            if !entry.selector.fits(self.headers) {
                reason = FwdReason::VaryMiss;
            } else if entry.part.is_some() && !self.is_within(entry) {
                reason = FwdReason::Partial;
            } else {
                return Selected::Holds(Arc::clone(entry), verdict);
            }
        }
        match unverified {
            true => Selected::Unverified(reason),
            false => Selected::Nothing(reason),
        }
    }

    /// Whether a stored part is enough for this request.
    fn is_within(&self, part: &Entry) -> bool {
        self.wishes.range && part.wanted(self.headers).is_some()
    }

    /// Serves what is stale, and fetches it anew unless somebody does already.
    fn refresh(self, entry: Arc<Entry>, control: &CacheControl) -> Stop {
        let found = self.found(Arc::clone(&entry), Service::WhileRevalidate);
        // Who cannot fetch the whole for others in the background asks for itself.
        let cannot = self.wishes.head || self.wishes.range || entry.part.is_some();
        if cannot || self.cache.spawner().is_none() {
            return self.fetch(FwdReason::Stale, Some(entry), control);
        }
        // Marked: the last answer could not be stored, and asking again with each request would not help.
        if self.goes_alone() {
            return Stop::Serve(found);
        }
        match self.cache.board(self.flight(), self.now) {
            Boarding::Follow(_) => Stop::Serve(found),
            Boarding::Lead(pilot) => {
                let fetch = self.errand(FwdReason::Stale, Some(pilot), Some(entry), control);
                Stop::ServeAndFetch(found, fetch)
            }
        }
    }

    /// Sends a request on to the service, alone, as leader or behind one.
    fn fetch(
        mut self,
        reason: FwdReason,
        stale: Option<Arc<Entry>>,
        control: &CacheControl,
    ) -> Stop {
        // What was brought for it did not do: whatever else is found is judged.
        self.is_its_own = false;
        if control.only_if_cached {
            return Stop::Refuse;
        }
        let marked = self.slot.as_ref();
        let skip = marked.is_some_and(|slot| slot.is_not_worth_a_look(self.now));
        if self.is_never_stored() || (skip && stale.is_none()) {
            return Stop::Pass(reason);
        }
        // The answer to a HEAD has no content to store.
        if self.wishes.head {
            return self.inquire(reason, stale);
        }
        // What is never served unasked is not worth waiting for: each request asks by itself. Nor is the
        // answer to somebody else's question for one that wants an answer of its own, or a part.
        let alone = self.goes_alone()
            || self.wishes.range
            || control.no_cache
            || matches!(reason, FwdReason::Request | FwdReason::Bypass)
            || stale
                .as_ref()
                .is_some_and(|stale| !stale.terms.serves_others());
        if alone {
            return Stop::Fetch(self.errand(reason, None, stale, control));
        }
        match self.cache.board(self.flight(), self.now) {
            Boarding::Follow(passenger) => Stop::Wait(passenger, reason),
            Boarding::Lead(pilot) => match self.landed_meanwhile() {
                Some(entry) => {
                    let key = Some(self.key.to_owned());
                    pilot.land(Landing::Stored(Arc::clone(&entry), key));
                    self.serve(entry, Service::Fresh)
                }
                None => Stop::Fetch(self.errand(reason, Some(pilot), stale, control)),
            },
        }
    }

    /// What another flight has stored between the look and the boarding.
    fn landed_meanwhile(&self) -> Option<Arc<Entry>> {
        match self.cache.slot(&self.key)? {
            Slot::One(entry) => Some(entry).filter(|entry| self.is_plainly_fresh(entry)),
            Slot::Several(_) => None,
        }
    }

    fn inquire(self, reason: FwdReason, stale: Option<Arc<Entry>>) -> Stop {
        match stale.filter(|entry| entry.part.is_none()) {
            None => Stop::Pass(reason),
            Some(entry) => Stop::Inquire(Box::new(Inquiry {
                key: self.key.to_owned(),
                entry,
                reason,
                credentials: self.credentials,
                route: self.cache.route(self.path).cloned(),
            })),
        }
    }

    fn errand(
        self,
        reason: FwdReason,
        pilot: Option<Pilot>,
        stale: Option<Arc<Entry>>,
        control: &CacheControl,
    ) -> Box<Errand> {
        let fetch = Fetch {
            key: self.key.to_owned(),
            reason,
            pilot,
            // A 304 about a part would not say which.
            stale: stale.filter(|entry| entry.part.is_none()),
            stale_if_error: control.stale_if_error,
            credentials: self.credentials,
            wishes: self.wishes,
            route: self.cache.route(self.path).cloned(),
            writing: None,
        };
        Errand::begin(self.cache, fetch)
    }

    fn is_never_stored(&self) -> bool {
        let route = self.cache.route(self.path);
        route.is_some_and(|route| route.is_never_stored())
    }

    fn goes_alone(&self) -> bool {
        let marked = self
            .slot
            .as_ref()
            .is_some_and(|slot| slot.is_marked(self.now));
        marked || self.company == Company::Alone
    }

    /// By which fields the answers of this URL are known to differ, and how this request answers them, so
    /// that requests for one variant do not queue behind those for another.
    fn flight(&self) -> u64 {
        let newest = self.slot.as_ref().and_then(|slot| slot.entries().first());
        let variant = newest.map_or(0, |entry| entry.selector.variant(self.headers));
        self.key.hash_value() ^ variant
    }
}
