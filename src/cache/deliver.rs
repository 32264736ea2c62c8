//! From a stored answer to a response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, EXPIRES,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::cache::body::CacheBody;
use crate::cache::conditional::{not_modified, strip_content_fields};
use crate::cache::content::Content;
use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::found::{Found, Wishes};
use crate::cache::multipart::multipart;
use crate::cache::range::{Span, Wanted};
use crate::cache::status::{
    CACHE_STATUS, Fate, FwdReason, ONLY_IF_CACHED, STATUS_PLACE, Service, StatusDetail, detailed,
};
use crate::event::Event;
use crate::response::{Uncounted, decimal};

/// What of a stored answer is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Whole,
    /// 304: the client has it.
    Unchanged,
    /// 206, in one piece or several.
    Spans(Vec<Span>),
    /// 416: it is not as long as that.
    BeyondTheEnd,
    /// The fields alone, for HEAD.
    Fields,
}

/// The response from a stored answer to a request of these fields.
#[inline]
pub(crate) fn serve<B>(
    cache: &Cache,
    found: &Found,
    request: &HeaderMap,
) -> Response<CacheBody<B>> {
    let entry = &*found.entry;
    match found.service {
        Service::Collapsed(_) => cache.emit(Event::CacheCollapsed),
        // It was told that the service was asked, and whoever asked has waited for that.
        Service::IfError => {}
        _ => cache.emit(Event::CacheHit {
            stale: found.service.is_stale(),
        }),
    }
    entry.count_hit();
    let shape = if found.wishes.are_plain() {
        Shape::Whole
    } else {
        shape(entry, request, found.wishes)
    };
    deliver(cache, entry, &shape, (entry.age(found.now), found.service))
}

/// RFC 9110 §13.2.2: conditions first, then ranges.
fn shape(entry: &Entry, request: &HeaderMap, wishes: Wishes) -> Shape {
    // §13.2.1: conditions are only evaluated where the answer would be a success.
    if wishes.conditions && entry.status.is_success() && not_modified(request, &entry.headers) {
        return Shape::Unchanged;
    }
    if wishes.head {
        return Shape::Fields;
    }
    shape_of_range(entry, request, wishes)
}

/// What a client that may want a part is sent, its conditions aside.
pub(crate) fn shape_of_range(entry: &Entry, request: &HeaderMap, wishes: Wishes) -> Shape {
    if !wishes.range {
        return Shape::Whole;
    }
    match entry.wanted(request) {
        Some(Wanted::Spans(spans)) => Shape::Spans(spans),
        Some(Wanted::Nothing) => Shape::BeyondTheEnd,
        Some(Wanted::Whole) | None => Shape::Whole,
    }
}

/// The response of this shape, with `Age` and `Cache-Status`.
#[inline]
pub(crate) fn deliver<B>(
    cache: &Cache,
    entry: &Entry,
    shape: &Shape,
    (age, service): (Duration, Service),
) -> Response<CacheBody<B>> {
    let mut headers = entry.headers.clone();
    let status = status_field(cache, entry, age, service);
    // RFC 9111 §5.1: "Age .. in seconds"; §4: a cache MUST generate it for what it serves from store.
    fill_places(&mut headers, decimal(age.as_secs()), status);
    if !entry.is_plain
        && let Some(browser) = &entry.browser
    {
        for_browsers(&mut headers, browser);
    }
    let mut code = entry.status;
    let bytes = match shape {
        Shape::Whole => entry.content.bytes(),
        Shape::Fields => Bytes::new(),
        Shape::Unchanged => {
            strip_content_fields(&mut headers);
            code = StatusCode::NOT_MODIFIED;
            Bytes::new()
        }
        Shape::Spans(spans) => {
            code = StatusCode::PARTIAL_CONTENT;
            cut(entry, spans, &mut headers)
        }
        Shape::BeyondTheEnd => {
            code = StatusCode::RANGE_NOT_SATISFIABLE;
            headers = beyond_the_end(entry, &headers);
            Bytes::new()
        }
    };
    let mut response = Response::new(CacheBody::stored(bytes));
    *response.status_mut() = code;
    *response.headers_mut() = headers;
    response
}

/// What a route's clients are told of the answer's life, in place of what the service said.
pub(crate) fn for_browsers(headers: &mut HeaderMap, said: &HeaderValue) {
    headers.remove(EXPIRES);
    headers.insert(CACHE_CONTROL, said.clone());
}

/// `Age` and `Cache-Status` stand first in a stored answer, so that they are filled in without a look-up;
/// where something else stands there, in the ordinary way.
#[inline]
fn fill_places(headers: &mut HeaderMap, age: HeaderValue, status: Option<HeaderValue>) {
    let (mut age, mut status) = (Some(age), status);
    let mut places = headers.iter_mut();
    if let Some((name, value)) = places.next()
        && *name == AGE
        && let Some(age) = age.take()
    {
        *value = age;
    }
    if let Some((name, value)) = places.next()
        && *name == CACHE_STATUS
        && *value == STATUS_PLACE
        && let Some(status) = status.take()
    {
        *value = status;
    }
    if let Some(age) = age {
        headers.insert(AGE, age);
    }
    if let Some(status) = status {
        headers.append(CACHE_STATUS, status);
    }
}

#[inline]
fn status_field(
    cache: &Cache,
    entry: &Entry,
    age: Duration,
    service: Service,
) -> Option<HeaderValue> {
    let field = service.field();
    match cache.config().cache_status {
        StatusDetail::Off => None,
        StatusDetail::Outcome => Some(field),
        detail => {
            let times = (entry.terms.fresh_until(), age);
            Some(detailed(field, detail, times, entry.subject.key()))
        }
    }
}

/// The bytes of a 206 and its fields (RFC 9110 §15.3.7).
fn cut(entry: &Entry, spans: &[Span], headers: &mut HeaderMap) -> Bytes {
    let (bytes, complete) = (entry.content.bytes(), entry.whole_len());
    let base = entry.part.map_or(0, |part| part.span.first);
    let slice = |span: &Span| {
        let place = |at: u64| usize::try_from(at.saturating_sub(base)).unwrap_or(usize::MAX);
        let (from, to) = (place(span.first), place(span.last).saturating_add(1));
        // Within, because the spans were made from this length.
        let part = bytes.slice(from.min(bytes.len())..to.min(bytes.len()));
        match &entry.content {
            Content::Plain(_) => part,
            // Or a byte of it would hold all that was unpacked for it.
            Content::Squeezed { .. } => Bytes::copy_from_slice(&part),
        }
    };
    let content = match spans {
        [only] => {
            headers.insert(CONTENT_RANGE, content_range(only, complete));
            slice(only)
        }
        several => {
            let (kind, content) = multipart(several, complete, headers.get(CONTENT_TYPE), slice);
            headers.remove(CONTENT_RANGE);
            headers.insert(CONTENT_TYPE, kind);
            content
        }
    };
    headers.insert(CONTENT_LENGTH, decimal(content.len() as u64));
    content
}

fn content_range(span: &Span, complete: u64) -> HeaderValue {
    let text = format!("bytes {}-{}/{complete}", span.first, span.last);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("bytes */*"))
}

/// The fields of a 416 (RFC 9110 §15.5.17): none of the answer's own but what is said of the whole.
fn beyond_the_end(entry: &Entry, headers: &HeaderMap) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for name in [DATE, CACHE_STATUS] {
        for value in headers.get_all(&name) {
            fields.append(&name, value.clone());
        }
    }
    let text = format!("bytes */{}", entry.whole_len());
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(CONTENT_RANGE, value);
    }
    fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    fields
}

/// An answer that is only passed on.
pub(crate) fn pass_through<B>(
    cache: &Cache,
    response: Response<B>,
    reason: FwdReason,
) -> Response<CacheBody<B>> {
    let mut response = response.map(CacheBody::through);
    say_forwarded(cache, response.headers_mut(), reason, Fate::Passed);
    if reason == FwdReason::AlwaysAsked {
        response.extensions_mut().insert(Uncounted::AlwaysAsked);
    }
    response
}

/// Says why a request went on, and takes off what is for this cache only.
pub(crate) fn say_forwarded(cache: &Cache, headers: &mut HeaderMap, reason: FwdReason, fate: Fate) {
    for name in &cache.field_rules().stripped {
        headers.remove(name);
    }
    if cache.config().cache_status != StatusDetail::Off {
        headers.append(CACHE_STATUS, reason.field(fate));
    }
}

/// RFC 9111 §5.2.1.7: "if it cannot .. respond with a 504 (Gateway Timeout) status code".
pub(crate) fn nothing_stored<B>(cache: &Cache) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::stored(Bytes::from_static(NOTHING_STORED)));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    response.extensions_mut().insert(Uncounted::OnlyIfCached);
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if cache.config().cache_status != StatusDetail::Off {
        headers.insert(CACHE_STATUS, ONLY_IF_CACHED);
    }
    response
}

const NOTHING_STORED: &[u8] = br#"{"title":"Nothing is stored for this request","status":504,"detail":"The request said only-if-cached."}"#;
