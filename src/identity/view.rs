//! A request without its body, as rules and closures see it.

use http::{Extensions, HeaderMap, Method, Request, Uri};

/// The parts of a request that decisions are made from. Borrowed, so it costs nothing to make.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's target.
    pub uri: &'a Uri,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// What outer layers left with the request.
    pub extensions: &'a Extensions,
}

impl<'a> RequestView<'a> {
    /// The view of a request.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// The path template that axum matched, where the `axum` feature is on and a route was matched.
    #[must_use]
    pub fn matched_template(&self) -> Option<&'a str> {
        #[cfg(feature = "axum")]
        return self
            .extensions
            .get::<axum::extract::MatchedPath>()
            .map(|path| path.as_str());
        #[cfg(not(feature = "axum"))]
        None
    }
}
