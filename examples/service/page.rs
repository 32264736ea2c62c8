//! An answer that the cache may keep: how long, under which tags, in which version.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use tower_keep::cache::CacheTags;

use crate::problem::Problem;

/// A JSON document for everybody: it depends on its address and on nothing about the caller.
#[derive(Debug)]
pub(crate) struct Page<T> {
    body: T,
    max_age_secs: u32,
    tags: Vec<String>,
    version: Option<String>,
}

impl<T> Page<T> {
    /// A page that may be kept for `max_age_secs` seconds.
    pub(crate) const fn new(body: T, max_age_secs: u32) -> Self {
        Self {
            body,
            max_age_secs,
            tags: Vec::new(),
            version: None,
        }
    }

    /// Purging this tag makes the cache forget the page.
    pub(crate) fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Makes `kind`, `id` and the row's version the strong validator of the page (RFC 9110 §8.8.3),
    /// such as `"c7-v3"`. The cache answers `If-None-Match` from it.
    pub(crate) fn version(mut self, kind: char, id: i64, version: i64) -> Self {
        self.version = Some(format!("\"{kind}{id}-v{version}\""));
        self
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        let max_age = format!("public, max-age={}", self.max_age_secs);
        let fields = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, Some(max_age)),
            (header::ETAG, self.version),
        ] {
            if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
                fields.insert(name, value);
            }
        }
        (Extension(CacheTags::new(self.tags)), response).into_response()
    }
}

/// The tag of everything that shows something of an organization.
pub(crate) fn organization_tag(id: i64) -> String {
    format!("organization:{id}")
}

/// The tag of everything that shows something of a contact beside the contact's own page.
pub(crate) fn contact_tag(id: i64) -> String {
    format!("contact:{id}")
}

/// A page, or the problem in its place.
pub(crate) type PageResult<T> = Result<Page<T>, Problem>;
