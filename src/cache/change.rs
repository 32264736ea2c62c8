//! An unsafe request on its way to the service, and what it makes old (RFC 9111 §4.4).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LOCATION, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;

use crate::cache::asked::Asked;
use crate::cache::body::CacheBody;
use crate::cache::control::CacheControl;
use crate::cache::deliver::{pass_through, say_forwarded};
use crate::cache::engine::Cache;
use crate::cache::entry::Head;
use crate::cache::fields::stored_fields;
use crate::cache::key::{CacheKey, path as path_of};
use crate::cache::plan::RoutePlan;
use crate::cache::policy::{Answer, says_its_lifetime, terms};
use crate::cache::recording::Recording;
use crate::cache::say::{CacheFor, NoStore};
use crate::cache::status::{Fate, FwdReason};
use crate::cache::tags::{subject, tags_of};
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::event::Event;
use crate::identity::RequestView;
use crate::journal::{Appending, Marker, Pending, Receipt, Stamp};
use crate::refusal::Refusal;
use crate::response::{NotCalled, may_have_changed};
use crate::target::normal_form;

/// A request that may change what is stored under its path (RFC 9111 §4.4).
///
/// Dropping it before the answer has come counts as a change: the client left or a timeout struck, and
/// the handler may have committed before that.
#[derive(Debug)]
pub(crate) struct Change {
    cache: Cache,
    path: Option<Arc<str>>,
    authority: Option<Box<str>>,
    post: Option<Post>,
    not_called: NotCalled,
}

/// A POST, whose answer may be what a GET would be sent (RFC 9110 §9.3.3).
#[derive(Debug)]
struct Post {
    key: CacheKey,
    target: Box<str>,
    fields: HeaderMap,
    credentials: bool,
    route: Option<Arc<RoutePlan>>,
    /// Where the journal stood before the service was asked.
    before: Stamp,
    sent: Moment,
}

impl Change {
    pub(crate) fn new<B>(cache: &Cache, request: &mut Request<B>) -> Self {
        let not_called = NotCalled::within(request.extensions_mut());
        cache.emit(Event::CacheForwarded {
            reason: FwdReason::Method.as_str(),
        });
        let view = RequestView::of(request);
        let host = view.headers.get(HOST);
        let authority = view.uri.authority().map(http::uri::Authority::as_str);
        let authority = authority.or_else(|| host?.to_str().ok()).map(Box::from);
        Self {
            cache: cache.clone(),
            path: Some(normal_form(view.uri.path()).into()),
            authority,
            post: Post::of(cache, &view),
            not_called,
        }
    }

    /// "A cache MUST invalidate the target URI .. when it receives a non-error status code" (RFC 9111
    /// §4.4). What else counts, the operator says: see `error_invalidates`. Nothing is invalidated where
    /// nothing was changed.
    pub(crate) fn arrive<B>(&mut self, response: &Response<B>) -> Option<Appending> {
        let status = response.status();
        let counts = if self.cache.config().error_invalidates {
            may_have_changed(status)
        } else {
            !status.is_client_error() && !status.is_server_error()
        };
        let counts = counts && !self.not_called.excuses(status);
        let path = self.path.take().filter(|_| counts)?;
        let mut markers = vec![Marker::tag(&path)];
        // "A cache MAY also invalidate .. the URIs in the Location and Content-Location": those of
        // the same origin, or one service could empty another one's cache.
        for name in [LOCATION, CONTENT_LOCATION] {
            let local = self.local(response.headers().get(name), &path);
            markers.extend(local.map(|target| Marker::tag(&normal_form(path_of(&target)))));
        }
        Some(self.cache.journal().append(markers))
    }

    /// What was changed is invalidated, as far as that is known: the answer goes on its way, and may be
    /// stored if it is what a GET would be sent now.
    pub(crate) fn settle<B>(
        mut self,
        response: Response<B>,
        outcome: Option<Result<Receipt, Pending>>,
    ) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        match (self.post.take(), outcome) {
            (Some(post), Some(Ok(Receipt(at)))) => self.record(post, response, at),
            _ => pass_through(&self.cache, response, FwdReason::Method),
        }
    }

    /// "Responses to POST requests are only cacheable when they include explicit freshness information
    /// .. and a Content-Location header field that has the same value as the POST's target URI" (RFC 9110
    /// §9.3.3).
    fn record<B>(&self, post: Post, response: Response<B>, now: Stamp) -> Response<CacheBody<B>>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        let located = self.local(response.headers().get(CONTENT_LOCATION), &post.target);
        let is_the_target =
            located.is_some_and(|located| normal_form(&located) == normal_form(&post.target));
        // Something else was invalidated while the service worked: the answer may be older than that.
        let alone = now.inc == post.before.inc && now.seq == post.before.seq + 1;
        if !(is_the_target && alone && response.status() == StatusCode::OK) {
            return pass_through(&self.cache, response, FwdReason::Method);
        }
        let (cache, route) = (&self.cache, post.route.as_deref());
        let (extensions, arrived) = (response.extensions(), cache.clock().now());
        let answer = Answer {
            status: response.status(),
            headers: response.headers(),
            ttl: extensions.get::<CacheFor>().map(|CacheFor(ttl)| *ttl),
            forced: false,
            credentials: post.credentials,
            arrived: cache.clock().wall(),
            delay: arrived.since(post.sent),
        };
        // What a layer answers in the service's stead is no page of its.
        let refused = extensions.get::<NoStore>().is_some()
            || extensions.get::<Refusal>().is_some()
            || !says_its_lifetime(&answer, cache.rules())
            || route.is_some_and(|route| route.is_never_stored());
        let terms = terms(&answer, cache.rules()).ok().filter(|_| !refused);
        let Some(terms) = terms else {
            return pass_through(cache, response, FwdReason::Method);
        };
        let tags = tags_of(cache, extensions, response.headers(), route);
        if !tags.are_complete() {
            return pass_through(cache, response, FwdReason::Method);
        }
        let head = Head {
            status: response.status(),
            selector: Selector::of(response.headers(), &post.fields, cache.vary_rules()),
            subject: subject(&post.key, &tags),
            headers: stored_fields(response.headers(), cache.field_rules(), answer.arrived),
            terms,
            arrived,
            // After its own change, and nothing else was changed meanwhile.
            born: now,
            began: cache.clock().now(),
            tags,
            browser: route
                .and_then(|route| route.browser(StatusCode::OK))
                .cloned(),
        };
        let recording = Recording::new(cache.clone(), post.key, (head, None), (None, None));
        let mut response = response.map(|body| CacheBody::recorded(body, Box::new(recording)));
        say_forwarded(
            cache,
            response.headers_mut(),
            FwdReason::Method,
            Fate::Stored,
        );
        response
    }

    /// What a reference leads to if it is of this origin: path and query. `base` is the path that a
    /// relative one is relative to.
    fn local(&self, value: Option<&HeaderValue>, base: &str) -> Option<String> {
        let target = value?.to_str().ok()?.split('#').next().unwrap_or_default();
        if let Some(network) = target.strip_prefix("//") {
            return self.of_this_authority(network).map(str::to_owned);
        }
        if let Some((scheme, rest)) = target.split_once("://")
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return self.of_this_authority(rest).map(str::to_owned);
        }
        if target.starts_with('/') {
            return Some(target.to_owned());
        }
        // RFC 3986 §5.2.3: beside the last segment of the base. Dots are left alone: a reference that
        // climbs names nothing that is stored.
        let folder = path_of(base)
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        (!target.is_empty()).then(|| format!("{folder}/{target}"))
    }

    /// What follows the authority in a reference, if the authority is this origin's.
    fn of_this_authority<'t>(&self, rest: &'t str) -> Option<&'t str> {
        let (authority, path) = rest.split_at(rest.find('/')?);
        let own = self.authority.as_deref()?;
        own.eq_ignore_ascii_case(authority).then_some(path)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        // `error_invalidates` speaks of this as well: whoever hangs up early could purge at will.
        if self.cache.config().error_invalidates
            && let Some(path) = self.path.take()
        {
            // Nobody is left who would wait for it.
            drop(self.cache.journal().append([Marker::tag(&path)]));
        }
    }
}

impl Post {
    fn of(cache: &Cache, view: &RequestView<'_>) -> Option<Self> {
        if *view.method != Method::POST {
            return None;
        }
        let asked = Asked::by(view.headers, cache.credentials());
        // RFC 9111 §5.2.1.5: "a cache MUST NOT store any part of .. any response to it". And a method that is
        // said in a field is not POST.
        if asked.overridden || CacheControl::of_request(view.headers).no_store {
            return None;
        }
        let key = cache.key(view, &asked)?.to_owned();
        Some(Self {
            before: cache.position(&key),
            key,
            target: view.uri.path_and_query()?.as_str().into(),
            fields: view.headers.clone(),
            credentials: asked.credentials,
            route: cache.route(view.uri.path()).cloned(),
            sent: cache.clock().now(),
        })
    }
}
