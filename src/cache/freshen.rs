//! A stored answer is confirmed: by a 304 (RFC 9111 §4.3.4), or by the answer to a HEAD (§4.3.5).

use std::sync::Arc;

use http::header::{SET_COOKIE, VARY};
use http::{Response, StatusCode};

use crate::cache::body::CacheBody;
use crate::cache::deliver::{Shape, deliver, pass_through, shape_of_range};
use crate::cache::engine::Cache;
use crate::cache::entry::{Entry, Head};
use crate::cache::errand::Errand;
use crate::cache::fetch::Inquiry;
use crate::cache::fields::{head_matches, may_update, updated_fields};
use crate::cache::landing::Landing;
use crate::cache::list::listed_names;
use crate::cache::policy::{Answer, control_of, terms};
use crate::cache::say::{CacheFor, CacheTags, NoStore};
use crate::cache::status::Service;
use crate::cache::tags::{lists_tags, subject, tags_of};
use crate::cache::terms::Terms;
use crate::cache::vary::Selector;
use crate::clock::Moment;
use crate::journal::{Marker, Record};
use crate::refusal::Refusal;
use crate::response::Uncounted;

impl Errand {
    /// The origin says that what is stored holds: its fields are updated, and its life begins anew.
    pub(crate) fn freshen<B>(
        mut self: Box<Self>,
        stale: &Arc<Entry>,
        response: &Response<B>,
        now: Moment,
    ) -> Response<CacheBody<B>> {
        let (update, extensions) = (response.headers(), response.extensions());
        let wall = self.cache.clock().wall();
        let speaks_of_it = may_update(&stale.headers, update);
        let headers = if speaks_of_it {
            updated_fields(&stale.headers, update, self.cache.field_rules(), wall)
        } else {
            stale.headers.clone()
        };
        let mut answer = self.answer(stale.status, &headers, extensions, now);
        // A 304 need not repeat what the handler said in code; that of the stored answer goes on.
        answer.ttl = answer.ttl.or(stale.terms.ttl);
        answer.credentials = false;
        let judged = terms(&answer, self.cache.rules());
        let tags = tags_again(&self.cache, stale, response);
        // Where the update forbids storing, what is stored is served this once. The fields of an answer to
        // somebody who is signed in are stored only if it says itself that they are for everyone (§3.5),
        // and those of one that sets a cookie are of one visitor, like the cookie.
        let stores = speaks_of_it
            && judged.is_ok()
            && tags.are_complete()
            && extensions.get::<NoStore>().is_none()
            && (self.cache.rules().set_cookie_shared || !update.contains_key(SET_COOKIE))
            && (!self.fetch.credentials
                || control_of(update, self.cache.rules()).0.is_for_everyone());
        let subject = subject(&self.fetch.key, &tags);
        let stores = stores && self.cache.journal().has_settled(self.sent, &subject);
        let head = Head {
            status: stale.status,
            // What is stored may have lost its Vary to a `Connection: vary`.
            selector: if update.contains_key(VARY) {
                Selector::of(&headers, &self.fields, self.cache.vary_rules())
            } else {
                stale.selector.clone()
            },
            subject,
            terms: judged.unwrap_or_else(|_| stale.terms.clone()),
            headers,
            arrived: now,
            born: self.born,
            began: self.sent,
            tags,
            browser: stale.browser.clone(),
        };
        let entry = Arc::new(head.with_content(stale.content.clone(), None));
        let service = if stores {
            Service::Validated(self.fetch.reason)
        } else {
            Service::Confirmed(self.fetch.reason)
        };
        let shape = self.shape(&entry);
        let mut fresh = deliver(&self.cache, &entry, &shape, (entry.age(now), service));
        if !self.tell_missed(&entry.terms) {
            fresh.extensions_mut().insert(Uncounted::AlwaysAsked);
        }
        // A cookie in the 304 is this client's.
        for cookie in update.get_all(SET_COOKIE) {
            fresh.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        let landing = if stores && entry.terms.serves_others() {
            Landing::Stored(Arc::clone(&entry), Some(self.fetch.key.clone()))
        } else {
            Landing::Unusable
        };
        if stores {
            let key = self.fetch.key.clone();
            if let Some(writing) = self.fetch.writing.take() {
                self.cache.write_behind(&key, &entry, writing);
            }
            self.cache.replace(key, stale, entry);
        }
        self.land(landing);
        fresh
    }

    /// What of the confirmed answer this client is sent: its conditions were taken off the request.
    fn shape(&self, entry: &Entry) -> Shape {
        if entry.status.is_success() && self.validators.satisfied_by(&entry.headers) {
            return Shape::Unchanged;
        }
        shape_of_range(entry, &self.fields, self.fetch.wishes)
    }
}

/// The tags after an update: its own if it has any, else those of the stored answer.
fn tags_again<B>(cache: &Cache, stored: &Entry, update: &Response<B>) -> CacheTags {
    if lists_tags(cache, update.headers()) || update.extensions().get::<CacheTags>().is_some() {
        // The stored ones first, those of the route among them.
        let new = tags_of(cache, update.extensions(), update.headers(), None);
        return stored.tags.and(&new);
    }
    stored.tags.clone()
}

/// A HEAD on its way, and what is stored for it.
#[derive(Debug)]
pub(crate) struct Asking {
    cache: Cache,
    inquiry: Box<Inquiry>,
    sent: Moment,
}

impl Asking {
    pub(crate) fn new(cache: &Cache, inquiry: Box<Inquiry>) -> Self {
        cache.tell_forwarded(inquiry.reason);
        Self {
            sent: cache.clock().now(),
            cache: cache.clone(),
            inquiry,
        }
    }

    /// RFC 9111 §4.3.5: "A cache SHOULD update .. the stored response .. if the response to a HEAD [has]
    /// matching values for any received validator fields .. and, if the HEAD response has a Content-Length
    /// header field, the value of Content-Length matches"; else what is stored is out of date.
    pub(crate) fn arrive<B>(self, response: Response<B>) -> Response<CacheBody<B>> {
        let (cache, stored) = (&self.cache, &self.inquiry.entry);
        // Of another status it says nothing of the content; and what somebody who is signed in is told,
        // or a cookie, is nobody else's.
        let speaks = response.status() == StatusCode::OK
            && stored.status == StatusCode::OK
            && !self.inquiry.credentials
            && !response.headers().contains_key(SET_COOKIE)
            && response.extensions().get::<NoStore>().is_none()
            // A layer has answered in the service's stead.
            && response.extensions().get::<Refusal>().is_none();
        let len = stored.whole_len();
        let says = head_matches(&stored.headers, len, response.headers()).filter(|_| speaks);
        if let Some(matches) = says {
            let key = self.inquiry.key.clone();
            match matches.then(|| self.updated(&response)).flatten() {
                Some(entry) => cache.replace(key, stored, Arc::new(entry)),
                None => {
                    cache.take_out(key, stored);
                    // Nor is what others have found of it any better.
                    if cache.tiers().is_some() {
                        let target = Marker::key(stored.subject.key());
                        drop(cache.journal().append(Record::of([target])));
                    }
                }
            }
        }
        pass_through(&self.cache, response, self.inquiry.reason)
    }

    fn updated<B>(&self, response: &Response<B>) -> Option<Entry> {
        let (cache, stored) = (&self.cache, &self.inquiry.entry);
        let update = response.headers();
        // Which of several answers this one is, only a request can tell, and it was made for another.
        if update.contains_key(VARY) && !stored.selector.names(listed_names(update, &VARY)) {
            return None;
        }
        let headers = updated_fields(
            &stored.headers,
            update,
            cache.field_rules(),
            cache.clock().wall(),
        );
        let terms = self.judge(response, &headers)?;
        let tags = tags_again(cache, stored, response);
        if !tags.are_complete() {
            return None;
        }
        let head = Head {
            status: stored.status,
            // Of which requests it is the answer was said by the one that it came with.
            selector: stored.selector.clone(),
            subject: subject(&self.inquiry.key, &tags),
            headers,
            terms,
            arrived: cache.clock().now(),
            // Its content is as old as it was.
            born: stored.born,
            began: stored.began,
            tags,
            browser: stored.browser.clone(),
        };
        Some(head.with_content(stored.content.clone(), None))
    }

    fn judge<B>(&self, response: &Response<B>, headers: &http::HeaderMap) -> Option<Terms> {
        let (cache, stored) = (&self.cache, &self.inquiry.entry);
        let said = response
            .extensions()
            .get::<CacheFor>()
            .map(|CacheFor(ttl)| *ttl);
        let route = self.inquiry.route.as_deref();
        let answer = Answer {
            status: stored.status,
            headers,
            ttl: said.or_else(|| route?.ttl()).or(stored.terms.ttl),
            forced: route.is_some_and(|route| route.is_forced()),
            credentials: false,
            arrived: cache.clock().wall(),
            delay: cache.clock().now().since(self.sent),
        };
        terms(&answer, cache.rules()).ok()
    }
}
