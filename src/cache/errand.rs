//! A request on its way to the service, and what is done with the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AGE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;

use crate::cache::body::CacheBody;
use crate::cache::conditional::{Validators, ask};
use crate::cache::deliver::{deliver, label, pass_through, serve};
use crate::cache::engine::Cache;
use crate::cache::entry::{freshened_fields, may_update, stored_fields};
use crate::cache::flight::Landing;
use crate::cache::key::path;
use crate::cache::look::Fetch;
use crate::cache::policy::{Answer, Terms, has_credentials, terms};
use crate::cache::recording::{Head, Recording, announced};
use crate::cache::say::{CacheFor, CacheTags, NoStore};
use crate::cache::status::{CACHE_STATUS, Fate, FwdReason, Service};
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::event::Event;
use crate::journal::{Stamp, Subject};
use crate::target::normal_form;

/// What is remembered while the service works on a request whose answer may be stored.
#[derive(Debug)]
pub(crate) struct Errand {
    cache: Cache,
    fetch: Fetch,
    /// The request's fields as the client sent them, for `Vary`.
    fields: HeaderMap,
    validators: Validators,
    /// Where the journal stood before the service was asked: a change made meanwhile is younger.
    born: Stamp,
    sent: Moment,
}

impl Errand {
    /// Prepares `request` for the way: the client's own conditions come off, and where something
    /// stale is stored the service is asked whether it still holds.
    pub(crate) fn new<B>(cache: &Cache, mut fetch: Fetch, request: &mut Request<B>) -> Self {
        let fields = request.headers().clone();
        let (born, sent) = (cache.journal().position(), cache.clock().now());
        // What was invalidated since the look must not be confirmed by a validator that is too coarse
        // to tell (a Last-Modified of the same second).
        fetch.stale = fetch.stale.filter(|stale| stale.holds(cache.journal()));
        // Where likely nothing will be stored, the client's conditions are the service's to judge.
        let storable = fetch.pilot.is_some() && !has_credentials(&fields, cache.rules());
        let validators = if storable || fetch.stale.is_some() {
            Validators::take(request.headers_mut())
        } else {
            Validators::default()
        };
        if let Some(stale) = &fetch.stale {
            ask(request.headers_mut(), &stale.headers);
        }
        cache.emit(Event::CacheForwarded {
            reason: fetch.reason.as_str(),
        });
        Self {
            cache: cache.clone(),
            fetch,
            fields,
            validators,
            born,
            sent,
        }
    }

    /// The head of the answer is here: decides what becomes of it.
    pub(crate) fn arrive<B>(mut self: Box<Self>, response: Response<B>) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes>,
    {
        let now = self.cache.clock().now();
        if let Some(stale) = self.fetch.stale.take() {
            if response.status() == StatusCode::NOT_MODIFIED {
                return self.freshen(&stale, &response, now);
            }
            if matches!(response.status().as_u16(), 500 | 502..=504) {
                self.fetch.stale = Some(stale);
                match self.instead_of_error(now) {
                    Some(instead) => return instead,
                    None => self.fetch.stale = None,
                }
            }
        }
        match self.judge(&response, now) {
            Ok(terms) => self.record(response, terms, now),
            Err(worth_remembering) => self.let_through(response, worth_remembering, now),
        }
    }

    /// The service failed without an answer: what is stored may stand in for it.
    pub(crate) fn stand_in<B>(mut self: Box<Self>) -> Option<Response<CacheBody<B>>> {
        let now = self.cache.clock().now();
        self.instead_of_error(now)
    }

    /// RFC 5861 §4: "an error is any situation that would result in a 500, 502, 503, or 504".
    fn instead_of_error<B>(&mut self, now: Moment) -> Option<Response<CacheBody<B>>> {
        let stale = self.fetch.stale.as_ref()?;
        let covered = stale
            .terms
            .covers_error(stale.age(now), &self.fetch.control)
            && stale.holds(self.cache.journal());
        let instead =
            covered.then(|| serve(&self.cache, stale, &self.fields, now, Service::IfError));
        if covered {
            self.land(Landing::Unusable);
        }
        instead
    }

    /// Whether, and on which terms, the answer may be stored. The error says whether the next answer
    /// will likely be of the same kind.
    fn judge<B: Body>(&self, response: &Response<B>, now: Moment) -> Result<Terms, bool> {
        let extensions = response.extensions();
        if extensions.get::<NoStore>().is_some() {
            return Err(true);
        }
        let delay = now.since(self.sent);
        let answer = Answer {
            status: response.status(),
            headers: response.headers(),
            ttl: extensions.get::<CacheFor>().map(|CacheFor(ttl)| *ttl),
            credentials: has_credentials(&self.fields, self.cache.rules()),
            arrived: self.cache.clock().wall(),
            delay,
        };
        // An error passes; that its URL cannot be cached would be remembered too long. And a 304, to a
        // client that asked by itself, says nothing of what others would be sent.
        // Nor does the answer to somebody who is signed in.
        let lasting = !response.status().is_server_error()
            && response.status() != StatusCode::NOT_MODIFIED
            && !answer.credentials;
        let terms = terms(&answer, self.cache.rules()).map_err(|_| lasting)?;
        let limit = self.cache.config().body_bytes_max;
        let at_least = announced(response.headers()).unwrap_or(response.body().size_hint().lower());
        if at_least > limit {
            Err(true)
        } else {
            Ok(terms)
        }
    }

    /// Lets the answer through while it is recorded.
    fn record<B>(
        self: Box<Self>,
        response: Response<B>,
        terms: Terms,
        now: Moment,
    ) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes>,
    {
        let Self {
            cache,
            mut fetch,
            fields,
            born,
            ..
        } = *self;
        if !terms.serves_others()
            && let Some(pilot) = fetch.pilot.take()
        {
            pilot.land(Landing::Unusable);
        }
        let headers = stored_fields(response.headers(), cache.clock().wall());
        let tags = response.extensions().get::<CacheTags>();
        let head = Head {
            status: response.status(),
            // The fields as they came, lest `Connection: vary` make one answer of many.
            selector: Selector::of(response.headers(), &fields),
            subject: subject(fetch.key.view().target(), tags),
            headers,
            terms,
            arrived: now,
            born,
        };
        let field = fetch.reason.field(Fate::Stored);
        let recording = Recording::new(cache.clone(), fetch.key, head, fetch.pilot);
        let mut response = response.map(|body| CacheBody::recorded(body, Box::new(recording)));
        if cache.config().status_header {
            response.headers_mut().append(CACHE_STATUS, field);
        }
        response
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

    /// RFC 9111 §4.3.4: the stored answer holds; its fields are updated and its life begins anew.
    fn freshen<B>(
        mut self: Box<Self>,
        stale: &crate::cache::entry::Entry,
        response: &Response<B>,
        now: Moment,
    ) -> Response<CacheBody<B>> {
        let arrived = self.cache.clock().wall();
        let update = response.headers();
        let mut headers = if may_update(&stale.headers, update) {
            freshened_fields(&stale.headers, update, arrived)
        } else {
            stale.headers.clone()
        };
        let extensions = response.extensions();
        // A 304 need not repeat what the handler said in code; that of the stored answer goes on.
        let said = extensions.get::<CacheFor>().map(|CacheFor(ttl)| *ttl);
        let answer = Answer {
            status: stale.status,
            headers: &headers,
            ttl: said.or(stale.terms.ttl),
            credentials: false,
            arrived,
            delay: now.since(self.sent),
        };
        // Where the update forbids storing, what is stored is served this once.
        let terms = terms(&answer, self.cache.rules());
        let forbidden = terms.is_err()
            || extensions.get::<NoStore>().is_some()
            || !may_update(&stale.headers, update);
        let terms = terms.unwrap_or_else(|_| stale.terms.clone());
        headers.insert(AGE, HeaderValue::from_static("0"));
        let tags = extensions.get::<CacheTags>();
        let target = self.fetch.key.view().target().to_owned();
        let head = Head {
            status: stale.status,
            selector: Selector::of(&headers, &self.fields),
            subject: tags.map_or_else(
                || stale.subject.clone(),
                |tags| subject(&target, Some(tags)),
            ),
            headers,
            terms,
            arrived: now,
            born: self.born,
        };
        let entry = head.with_body(stale.body.clone());
        let unchanged = self.validators.satisfied_by(&entry.headers);
        let mut fresh = deliver(&entry, unchanged, entry.age(now));
        // A cookie in the 304 is this client's.
        for cookie in update.get_all(SET_COOKIE) {
            fresh.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        let worth_waiting = !forbidden && entry.terms.serves_others();
        if !forbidden {
            self.cache.put(self.fetch.key.clone(), entry);
        }
        self.land(if worth_waiting {
            Landing::Stored
        } else {
            Landing::Unusable
        });
        label(&self.cache, fresh, Service::Validated(self.fetch.reason))
    }

    fn land(&mut self, landing: Landing) {
        if let Some(pilot) = self.fetch.pilot.take() {
            pilot.land(landing);
        }
    }
}

/// What an answer can be invalidated by: its target, its path, and the handler's tags.
fn subject(target: &str, tags: Option<&CacheTags>) -> Subject {
    let target = normal_form(target);
    let mut all: Vec<Arc<str>> = vec![path(&target).into()];
    all.extend(tags.iter().flat_map(|tags| tags.tags()).cloned());
    Subject::of(&*target, &all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::IF_NONE_MATCH;
    use http_body_util::Empty;

    use super::*;
    use crate::cache::config::CacheConfig;
    use crate::cache::engine::CacheParts;
    use crate::cache::look::{Company, Stop, look};
    use crate::clock::Clock;
    use crate::event::Events;
    use crate::journal::Marker;
    use crate::journal::{Journal, JournalConfig};

    fn request() -> Request<()> {
        Request::get("/a").body(()).unwrap()
    }

    fn fetch(cache: &Cache) -> Fetch {
        match look(cache, &request(), Company::Shared) {
            Stop::Fetch(fetch) => fetch,
            other => panic!("nothing fresh is stored: {other:?}"),
        }
    }

    /// Between the look and the question a change may be acknowledged. A validator that is too coarse to
    /// tell, a date of the same second, must not bring the old answer back under a new stamp.
    #[test]
    fn what_was_invalidated_since_the_look_is_not_asked_about() {
        let (clock, hand) = Clock::manual();
        let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
        let events = Events::none();
        let spawner = None;
        let parts = CacheParts {
            journal,
            clock,
            events,
            spawner,
        };
        let cache = Cache::new(&CacheConfig::default(), parts).unwrap();
        let answer = Response::builder()
            .header("etag", "\"a\"")
            .header("cache-control", "max-age=1");
        let errand = Errand::new(&cache, fetch(&cache), &mut request());
        drop(Box::new(errand).arrive(answer.body(Empty::<Bytes>::new()).unwrap()));
        assert_eq!(cache.len(), 1);
        hand.advance(Duration::from_secs(2));
        for invalidated in [false, true] {
            let (fetch, mut request) = (fetch(&cache), request());
            assert!(fetch.stale.is_some());
            if invalidated {
                cache.journal().append(&[Marker::tag("/a")]);
            }
            let _errand = Errand::new(&cache, fetch, &mut request);
            assert_eq!(request.headers().contains_key(IF_NONE_MATCH), !invalidated);
        }
    }
}
