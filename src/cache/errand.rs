//! A request on its way to the service, and what is done with the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::IF_RANGE;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;

use crate::cache::body::CacheBody;
use crate::cache::conditional::{Validators, ask};
use crate::cache::deliver::{for_browsers, pass_through, say_forwarded, serve};
use crate::cache::engine::Cache;
use crate::cache::entry::Head;
use crate::cache::fetch::Fetch;
use crate::cache::fields::stored_fields;
use crate::cache::found::Found;
use crate::cache::landing::Landing;
use crate::cache::part::Part;
use crate::cache::policy::{Answer, terms};
use crate::cache::recording::{Recording, announced};
use crate::cache::say::{CacheFor, CacheTags, NoStore};
use crate::cache::status::{Fate, FwdReason, Service};
use crate::cache::tags::{subject, tags_of};
use crate::cache::terms::{Failure, Terms};
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::event::Event;
use crate::journal::{Stamp, Subject};
use crate::refusal::Refusal;
use crate::response::Uncounted;
use crate::tiers::Tiers;

/// What is remembered while the service works on a request whose answer may be stored.
#[derive(Debug)]
pub(crate) struct Errand {
    pub(crate) cache: Cache,
    pub(crate) fetch: Fetch,
    /// The request's fields as the client sent them, for `Vary`.
    pub(crate) fields: HeaderMap,
    pub(crate) validators: Validators,
    /// Where the journal stood before the service was asked: a change made meanwhile is younger.
    pub(crate) born: Stamp,
    pub(crate) sent: Moment,
}

impl Errand {
    /// An errand that is still to be prepared.
    pub(crate) fn begin(cache: &Cache, fetch: Fetch) -> Box<Self> {
        Box::new(Self {
            cache: cache.clone(),
            fetch,
            fields: HeaderMap::new(),
            validators: Validators::default(),
            born: Stamp::default(),
            sent: Moment::default(),
        })
    }

    /// Where to look before the service is asked, if others wait for the answer and there is such a place.
    pub(crate) fn looks_behind(&self) -> Option<&Tiers> {
        let leads = self.fetch.pilot.is_some() && !self.fetch.credentials;
        self.cache
            .tiers()
            .filter(|_| leads && self.fetch.writing.is_none())
    }

    /// Prepares `request` for the way: the client's own conditions come off, and where something
    /// stale is stored the service is asked whether it still holds.
    pub(crate) fn prepare<B>(mut self: Box<Self>, request: &mut Request<B>) -> Box<Self> {
        let (cache, fetch) = (&self.cache, &mut self.fetch);
        self.fields = request.headers().clone();
        (self.born, self.sent) = (cache.position(&fetch.key), cache.clock().now());
        // What was invalidated since the look must not be confirmed by a validator that is too coarse
        // to tell (a Last-Modified of the same second).
        fetch.stale = fetch
            .stale
            .take()
            .filter(|stale| stale.verdict(cache.journal(), self.sent).holds());
        // Where likely nothing will be stored, the client's conditions are the service's to judge.
        let storable = fetch.pilot.is_some() && !fetch.credentials;
        if fetch.wishes.conditions && (storable || fetch.stale.is_some()) {
            self.validators = Validators::take(request.headers_mut());
        }
        if let Some(stale) = &fetch.stale {
            ask(request.headers_mut(), &stale.headers);
        }
        self
    }

    /// As [`prepare`](Self::prepare), for somebody who waits for the answer.
    pub(crate) fn set_out<B>(self: Box<Self>, request: &mut Request<B>) -> Box<Self> {
        self.cache.tell_forwarded(self.fetch.reason);
        self.prepare(request)
    }

    /// The head of the answer is here: decides what becomes of it.
    pub(crate) fn arrive<B>(mut self: Box<Self>, response: Response<B>) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let now = self.cache.clock().now();
        if let Some(stale) = self.fetch.stale.take() {
            if response.status() == StatusCode::NOT_MODIFIED {
                return self.freshen(&stale, &response, now);
            }
            if matches!(response.status().as_u16(), 500 | 502..=504) {
                self.fetch.stale = Some(stale);
                match self.instead(failure_of(&response), now) {
                    Some(instead) => return instead,
                    None => self.fetch.stale = None,
                }
            }
        }
        match self.judge(&response, now) {
            Ok((terms, tags)) => {
                let subject = subject(&self.fetch.key, &tags);
                // What a lagging replica may have supplied is for this request alone.
                if !self.cache.journal().has_settled(self.sent, &subject) {
                    return self.let_through(response, false, now);
                }
                self.record(response, (terms, tags, subject), now)
            }
            Err(worth_remembering) => self.let_through(response, worth_remembering, now),
        }
    }

    /// The service failed without an answer: what is stored may stand in for it.
    pub(crate) fn stand_in<B>(mut self: Box<Self>) -> Option<Response<CacheBody<B>>> {
        let now = self.cache.clock().now();
        self.instead(Failure::Disconnected, now)
    }

    /// What may be served in place of the answer of a service that has just failed.
    pub(crate) fn spare_the_service<B>(&mut self) -> Option<Response<CacheBody<B>>> {
        let now = self.cache.clock().now();
        self.instead(Failure::Error, now)
    }

    /// RFC 5861 §4: "an error is any situation that would result in a 500, 502, 503, or 504".
    fn instead<B>(&mut self, failure: Failure, now: Moment) -> Option<Response<CacheBody<B>>> {
        let entry = Arc::clone(self.fetch.stale.as_ref()?);
        let covered = entry
            .terms
            .covers(failure, entry.age(now), self.fetch.stale_if_error)
            && entry.verdict(self.cache.journal(), now).holds();
        if !covered {
            return None;
        }
        let counts = self.tell_missed(&entry.terms);
        self.land(Landing::Failed);
        let found = Found {
            entry,
            now,
            service: Service::IfError,
            wishes: self.fetch.wishes,
        };
        let mut response = serve(&self.cache, &found, &self.fields);
        if !counts {
            response.extensions_mut().insert(Uncounted::AlwaysAsked);
        }
        Some(response)
    }

    /// Whether, and on which terms, the answer may be stored. The error says whether the next answer
    /// will likely be of the same kind.
    fn judge<B: Body>(
        &self,
        response: &Response<B>,
        now: Moment,
    ) -> Result<(Terms, CacheTags), bool> {
        let status = response.status();
        // The answer to somebody who is signed in, or a part, says nothing of what others would be sent.
        let lasting =
            tells_of_its_url(status) && !self.fetch.credentials && !self.fetch.wishes.range;
        if response.extensions().get::<NoStore>().is_some() {
            return Err(lasting);
        }
        // A layer has answered in the service's stead, a breaker's fallback say: a stopgap, whatever its status.
        if response.extensions().get::<Refusal>().is_some() {
            return Err(false);
        }
        // A part that nobody asked for is a mistake; and one for a client that has the rest already need
        // not repeat the fields of the whole (RFC 9110 §15.3.7: "If-Range").
        let in_full = self.fetch.wishes.range && !self.fields.contains_key(IF_RANGE);
        if status == StatusCode::PARTIAL_CONTENT && !in_full {
            return Err(lasting);
        }
        let answer = self.answer(status, response.headers(), response.extensions(), now);
        let terms = terms(&answer, self.cache.rules()).map_err(|_| lasting)?;
        let limit = self.cache.config().body_bytes_max;
        let at_least = announced(response.headers()).unwrap_or(response.body().size_hint().lower());
        let route = self.fetch.route.as_deref();
        let tags = tags_of(
            &self.cache,
            response.extensions(),
            response.headers(),
            route,
        );
        // What a purge by one of its tags would not reach must not be served again.
        if at_least > limit || !tags.are_complete() {
            return Err(lasting);
        }
        Ok((terms, tags))
    }

    /// What the policy is asked about.
    pub(crate) fn answer<'a>(
        &self,
        status: StatusCode,
        headers: &'a HeaderMap,
        extensions: &http::Extensions,
        now: Moment,
    ) -> Answer<'a> {
        // A rule speaks of the answers that the route is there for. An error that one odd request has
        // brought about would be everybody's for as long.
        let route = self.fetch.route.as_deref().filter(|_| may_be_ruled(status));
        let said = extensions.get::<CacheFor>().map(|CacheFor(ttl)| *ttl);
        Answer {
            status,
            headers,
            ttl: said.or_else(|| route?.ttl()),
            forced: route.is_some_and(|route| route.is_forced()),
            credentials: self.fetch.credentials,
            arrived: self.cache.clock().wall(),
            delay: now.since(self.sent),
        }
    }

    /// Lets the answer through while it is recorded.
    fn record<B>(
        self: Box<Self>,
        mut response: Response<B>,
        (terms, tags, subject): (Terms, CacheTags, Subject),
        now: Moment,
    ) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let counts = self.tell_missed(&terms);
        let Self {
            cache,
            mut fetch,
            fields,
            born,
            sent,
            ..
        } = *self;
        if !terms.serves_others()
            && let Some(pilot) = fetch.pilot.take()
        {
            pilot.land(Landing::Unusable);
        }
        let route = fetch.route.as_deref();
        let browser = route
            .and_then(|route| route.browser(response.status()))
            .cloned();
        let wall = cache.clock().wall();
        let head = Head {
            status: response.status(),
            // The fields as they came, lest `Connection: vary` make one answer of many.
            selector: Selector::of(response.headers(), &fields, cache.vary_rules()),
            subject,
            headers: stored_fields(response.headers(), cache.field_rules(), wall),
            terms,
            arrived: now,
            born,
            began: sent,
            tags,
            browser,
        };
        let part = (response.status() == StatusCode::PARTIAL_CONTENT)
            .then(|| Part::of(response.headers()))
            .flatten();
        if let Some(browser) = &head.browser {
            for_browsers(response.headers_mut(), browser);
        }
        let recording = Recording::new(
            cache.clone(),
            fetch.key,
            (head, part),
            (fetch.pilot, fetch.writing),
        );
        let mut response = response.map(|body| CacheBody::recorded(body, Box::new(recording)));
        say_forwarded(&cache, response.headers_mut(), fetch.reason, Fate::Stored);
        if !counts {
            response.extensions_mut().insert(Uncounted::AlwaysAsked);
        }
        response
    }

    /// Nothing was stored for the request, and now there is something on these terms: so it was a miss, unless it is to
    /// be asked about whenever it is used. (A request for which something stale was stored is told as it sets out, and
    /// nobody waits for what is fetched in the background.) Returns whether a cache could have served the request.
    pub(crate) fn tell_missed(&self, terms: &Terms) -> bool {
        if self.fetch.reason.is_of_nothing() {
            if !terms.serves_others() {
                return false;
            }
            self.cache.emit(Event::CacheMissed { stale: false });
        }
        self.fetch.reason != FwdReason::AlwaysAsked
    }

    fn let_through<B>(
        mut self: Box<Self>,
        response: Response<B>,
        worth_remembering: bool,
        now: Moment,
    ) -> Response<CacheBody<B>> {
        // The marker comes first: a follower that wakes up must find it.
        if worth_remembering && self.fetch.reason != FwdReason::Bypass {
            self.cache.pass(self.fetch.key.clone(), now);
        }
        self.land(Landing::Unusable);
        pass_through(&self.cache, response, self.fetch.reason)
    }

    pub(crate) fn land(&mut self, landing: Landing) {
        if let Some(pilot) = self.fetch.pilot.take() {
            pilot.land(landing);
        }
    }
}

/// How the service failed that answered so. One that was not called, because its circuit is open, has not answered.
fn failure_of<B>(response: &Response<B>) -> Failure {
    match response.extensions().get::<Refusal>() {
        Some(Refusal::CircuitOpen { .. }) => Failure::Disconnected,
        _ => Failure::Error,
    }
}

/// Whether the status says something of the URL rather than of the request or the hour: an error passes, and
/// that its URL cannot be cached would be remembered too long.
const fn tells_of_its_url(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=303 | 307 | 308 | 404 | 410)
}

/// Whether a route's rule may give an answer of this status its lifetime.
const fn may_be_ruled(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200..=206 | 300 | 301 | 308 | 404 | 410)
}
