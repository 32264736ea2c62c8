//! A request on its way to the service, and what is done with the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LOCATION, LOCATION};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;

use crate::cache::body::CacheBody;
use crate::cache::conditional::{Validators, ask};
use crate::cache::deliver::{deliver, serve};
use crate::cache::engine::Cache;
use crate::cache::entry::{freshened_fields, stored_fields};
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
use crate::journal::{Marker, Stamp, Subject};

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
    pub(crate) fn new<B>(cache: &Cache, fetch: Fetch, request: &mut Request<B>) -> Self {
        let fields = request.headers().clone();
        let validators = Validators::take(request.headers_mut());
        if let Some(stale) = &fetch.stale {
            ask(request.headers_mut(), &stale.headers);
        }
        cache.emit(Event::CacheForwarded {
            reason: fetch.reason.as_str(),
        });
        let (born, sent) = (cache.journal().position(), cache.clock().now());
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
            // RFC 5861 §4: "an error is any situation that would result in a 500, 502, 503, or 504".
            if matches!(response.status().as_u16(), 500 | 502..=504)
                && stale
                    .terms
                    .covers_error(stale.age(now), &self.fetch.control)
                && stale.holds(self.cache.journal())
            {
                self.land(Landing::Unusable);
                return serve(&self.cache, &stale, &self.fields, now, Service::IfError);
            }
        }
        match self.judge(&response, now) {
            Ok(terms) => self.record(response, terms, now),
            Err(worth_remembering) => self.let_through(response, worth_remembering, now),
        }
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
        // An error passes; that its URL cannot be cached would be remembered too long.
        let lasting = !response.status().is_server_error();
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
            fetch,
            fields,
            born,
            ..
        } = *self;
        let headers = stored_fields(response.headers(), cache.clock().wall());
        let tags = response.extensions().get::<CacheTags>();
        let head = Head {
            status: response.status(),
            selector: Selector::of(&headers, &fields),
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
        let headers = freshened_fields(&stale.headers, response.headers());
        let answer = Answer {
            status: stale.status,
            headers: &headers,
            ttl: response
                .extensions()
                .get::<CacheFor>()
                .map(|CacheFor(ttl)| *ttl),
            credentials: false,
            arrived: self.cache.clock().wall(),
            delay: now.since(self.sent),
        };
        // Where the update forbids storing, what is stored is served this once.
        let terms = terms(&answer, self.cache.rules());
        let forbidden = terms.is_err();
        let terms = terms.unwrap_or_else(|_| stale.terms.clone());
        let tags = response.extensions().get::<CacheTags>();
        let target = self.fetch.key.view().target().to_owned();
        let head = Head {
            status: stale.status,
            selector: Selector::of(&headers, &self.fields),
            // A 304 need not repeat the tags; those of the stored answer go on.
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
        let response = deliver(
            &entry,
            self.validators.satisfied_by(&entry.headers),
            Duration::ZERO,
        );
        if forbidden {
            self.land(Landing::Unusable);
        } else {
            self.cache.put(self.fetch.key.clone(), entry);
            self.land(Landing::Stored);
        }
        crate::cache::deliver::label(&self.cache, response, Service::Validated)
    }

    fn land(&mut self, landing: Landing) {
        if let Some(pilot) = self.fetch.pilot.take() {
            pilot.land(landing);
        }
    }
}

/// An answer that is only passed on.
pub(crate) fn pass_through<B>(
    cache: &Cache,
    response: Response<B>,
    reason: FwdReason,
) -> Response<CacheBody<B>> {
    let mut response = response.map(CacheBody::through);
    if cache.config().status_header {
        response
            .headers_mut()
            .append(CACHE_STATUS, reason.field(Fate::Passed));
    }
    response
}

/// A request that may change what is stored under its path (RFC 9111 §4.4).
///
/// Dropping it before the answer has come counts as a change: the client left or a timeout struck, and
/// the handler may have committed before that.
#[derive(Debug)]
pub(crate) struct Change {
    cache: Cache,
    path: Option<Arc<str>>,
    authority: Option<Box<str>>,
}

impl Change {
    pub(crate) fn new<B>(cache: &Cache, request: &Request<B>) -> Self {
        cache.emit(Event::CacheForwarded {
            reason: FwdReason::Method.as_str(),
        });
        let host = request.headers().get(http::header::HOST);
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let authority = authority.or_else(|| host?.to_str().ok()).map(Box::from);
        Self {
            cache: cache.clone(),
            path: Some(request.uri().path().into()),
            authority,
        }
    }

    /// "A cache MUST invalidate the target URI .. when it receives a non-error status code" (RFC 9111
    /// §4.4). A 5xx counts too, because the handler may have committed before it failed; a 4xx does
    /// not, or anybody could empty the cache with bad requests.
    pub(crate) fn arrive<B>(mut self, response: Response<B>) -> Response<CacheBody<B>> {
        let path = self.path.take();
        if !response.status().is_client_error()
            && let Some(path) = path
        {
            let mut markers = vec![Marker::tag(&path)];
            // "A cache MAY also invalidate .. the URIs in the Location and Content-Location": those of
            // the same origin, or one service could empty another one's cache.
            for name in [LOCATION, CONTENT_LOCATION] {
                let target = response
                    .headers()
                    .get(name)
                    .and_then(|value| value.to_str().ok());
                let local = target.and_then(|target| self.local_path(target));
                markers.extend(local.map(Marker::tag));
            }
            self.cache.journal().append(&markers);
        }
        pass_through(&self.cache, response, FwdReason::Method)
    }

    /// The path of a reference if it is one of this origin.
    fn local_path<'t>(&self, target: &'t str) -> Option<&'t str> {
        let rest = match target.split_once("://") {
            None if target.starts_with("//") => return None,
            None => target,
            Some((_, rest)) => {
                let slash = rest.find('/')?;
                let same = self.authority.as_deref() == Some(&rest[..slash]);
                &rest[if same { slash } else { return None }..]
            }
        };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        rest.starts_with('/').then_some(&rest[..end])
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.cache.journal().append(&[Marker::tag(&path)]);
        }
    }
}

/// What an answer can be invalidated by: its target, its path, and the handler's tags.
fn subject(target: &str, tags: Option<&CacheTags>) -> Subject {
    let mut all: Vec<Arc<str>> = vec![path(target).into()];
    all.extend(tags.iter().flat_map(|tags| tags.tags()).cloned());
    Subject::of(target, &all)
}
