//! From a stored answer to a response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::cache::body::CacheBody;
use crate::cache::conditional::{not_modified, strip_content_fields};
use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::status::{CACHE_STATUS, Fate, FwdReason, ONLY_IF_CACHED, STATUS_PLACE, Service};
use crate::clock::Moment;
use crate::event::Event;

/// The response from a stored answer to a request of these fields.
pub(crate) fn serve<B>(
    cache: &Cache,
    entry: &Entry,
    request: &HeaderMap,
    now: Moment,
    service: Service,
) -> Response<CacheBody<B>> {
    let unchanged = not_modified(request, &entry.headers);
    cache.emit(Event::CacheHit {
        stale: service.is_stale(),
    });
    if matches!(service, Service::Collapsed(_)) {
        cache.emit(Event::CacheCollapsed);
    }
    label(cache, deliver(entry, unchanged, entry.age(now)), service)
}

/// The response without the cache's own remarks: the whole answer, or 304 if the client has it.
pub(crate) fn deliver<B>(entry: &Entry, unchanged: bool, age: Duration) -> Response<CacheBody<B>> {
    // RFC 9110 §13.2.1: conditions are only evaluated where the answer would be a success.
    let unchanged = unchanged && entry.status.is_success();
    let mut headers = entry.headers.clone();
    let (status, body) = if unchanged {
        strip_content_fields(&mut headers);
        (StatusCode::NOT_MODIFIED, Bytes::new())
    } else {
        (entry.status, entry.body.clone())
    };
    // RFC 9111 §5.1: "Age .. in seconds"; §4: a cache MUST generate it for what it serves from store.
    headers.insert(AGE, seconds(age));
    let mut response = Response::new(CacheBody::stored(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// `HeaderValue::from` a number would allocate twice.
fn seconds(time: Duration) -> HeaderValue {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(time.as_secs());
    // Digits are a value, but a header value must be proven text.
    HeaderValue::from_str(digits).unwrap_or(HeaderValue::from_static("0"))
}

/// Adds `Cache-Status`, in the place that is kept for it if there is one.
pub(crate) fn label<B>(
    cache: &Cache,
    mut response: Response<CacheBody<B>>,
    service: Service,
) -> Response<CacheBody<B>> {
    let headers = response.headers_mut();
    let place = headers
        .get_mut(CACHE_STATUS)
        .filter(|value| **value == STATUS_PLACE);
    match (place, cache.config().status_header) {
        (Some(place), true) => *place = service.field(),
        (Some(_), false) => drop(headers.remove(CACHE_STATUS)),
        (None, true) => drop(headers.append(CACHE_STATUS, service.field())),
        (None, false) => {}
    }
    response
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

/// Takes the content off, for HEAD. The fields stay, `Content-Length` among them (RFC 9110 §9.3.2).
pub(crate) fn without_content<B>(response: Response<CacheBody<B>>) -> Response<CacheBody<B>> {
    response.map(|_| CacheBody::stored(Bytes::new()))
}

/// RFC 9111 §5.2.1.7: "if it cannot .. respond with a 504 (Gateway Timeout) status code".
pub(crate) fn nothing_stored<B>(cache: &Cache) -> Response<CacheBody<B>> {
    let mut response = Response::new(CacheBody::stored(Bytes::from_static(NOTHING_STORED)));
    *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if cache.config().status_header {
        headers.insert(CACHE_STATUS, ONLY_IF_CACHED);
    }
    response
}

const NOTHING_STORED: &[u8] = br#"{"title":"Nothing is stored for this request","status":504,"detail":"The request said only-if-cached."}"#;
