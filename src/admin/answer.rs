//! How the endpoints answer: in text, in JSON, and in problem details (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::admin::body::AdminBody;
use crate::response::{PROBLEM_JSON, decimal};

/// An answer of an endpoint.
pub(crate) type Answer = Response<AdminBody>;

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer that no cache may keep, because all of these are about now, and that no browser takes for
/// something else than it is.
pub(crate) fn answer(status: StatusCode, content_type: HeaderValue, body: AdminBody) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(status, TEXT, AdminBody::whole(text.into()))
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(status, JSON, AdminBody::whole(bytes.into())),
        // Figures and words of ours always make JSON; if they ever do not, the code still tells.
        Err(_) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "not to be put into words",
        ),
    }
}

/// What is wrong, in one sentence.
pub(crate) fn problem(status: StatusCode, title: impl AsRef<str>) -> Answer {
    let title = title.as_ref();
    let bytes = json!({"title": title, "status": status.as_u16()}).to_string();
    answer(status, PROBLEM_JSON, AdminBody::whole(bytes.into()))
}

pub(crate) fn not_found() -> Answer {
    problem(StatusCode::NOT_FOUND, "there is no such endpoint")
}

pub(crate) fn not_allowed(allow: &'static str) -> Answer {
    let mut response = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "this endpoint does not know that method",
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// Whoever is not let in reads the same, whatever was wrong.
fn unauthorised(status: StatusCode) -> Answer {
    const BODY: Bytes = Bytes::from_static(br#"{"title":"not authorised"}"#);
    answer(status, PROBLEM_JSON, AdminBody::whole(BODY))
}

/// 401, with what to bring along (RFC 6750 §3).
pub(crate) fn challenge() -> Answer {
    let mut response = unauthorised(StatusCode::UNAUTHORIZED);
    let bearer = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    response
}

pub(crate) fn denied() -> Answer {
    unauthorised(StatusCode::FORBIDDEN)
}

pub(crate) fn wait(time: Duration) -> Answer {
    busy(unauthorised(StatusCode::TOO_MANY_REQUESTS), time)
}

/// No place for another stream: figures are to be had by asking.
pub(crate) fn crowded() -> Answer {
    let words = "as many streams are open as there may be";
    let response = problem(StatusCode::SERVICE_UNAVAILABLE, words);
    busy(response, Duration::from_secs(10))
}

fn busy(mut response: Answer, time: Duration) -> Answer {
    let secs = time.as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, decimal(secs));
    response
}
