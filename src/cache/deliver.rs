//! From a stored answer to a response.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use crate::cache::body::CacheBody;
use crate::cache::conditional::{not_modified, strip_content_fields};
use crate::cache::engine::Cache;
use crate::cache::entry::Entry;
use crate::cache::status::{CACHE_STATUS, ONLY_IF_CACHED, Service};
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
    headers.insert(AGE, HeaderValue::from(age.as_secs()));
    let mut response = Response::new(CacheBody::stored(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Adds `Cache-Status`.
pub(crate) fn label<B>(
    cache: &Cache,
    mut response: Response<CacheBody<B>>,
    service: Service,
) -> Response<CacheBody<B>> {
    if cache.config().status_header {
        response.headers_mut().append(CACHE_STATUS, service.field());
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
