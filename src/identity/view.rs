//! A request and a response without their bodies, as rules and closures see them.

use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode, Uri};

/// The parts of a request that decisions are made from. Borrowed, so it costs nothing to make.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The request's method.
    pub method: &'a Method,
    /// The request's target as the client sent it. Inside of a nested router axum takes the prefix off
    /// the request's own; with the `axum` feature this is still the whole, or two nested routers behind
    /// one cache would share what is stored under the same rest.
    pub uri: &'a Uri,
    /// The request's fields.
    pub headers: &'a HeaderMap,
    /// What outer layers left with the request.
    pub extensions: &'a Extensions,
}

/// A response without its body, as closures see it. Borrowed, so it costs nothing to make.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// The response's status.
    pub status: StatusCode,
    /// The response's fields.
    pub headers: &'a HeaderMap,
    /// What the handler and inner layers left with the response.
    pub extensions: &'a Extensions,
}

impl<'a> RequestView<'a> {
    /// The view of a request.
    #[must_use]
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: whole_target(request),
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

impl<'a> ResponseView<'a> {
    /// The view of a response.
    #[must_use]
    pub fn of<B>(response: &'a Response<B>) -> Self {
        Self {
            status: response.status(),
            headers: response.headers(),
            extensions: response.extensions(),
        }
    }
}

/// The target before any router has taken a prefix off it. One that something has rewritten is no rest of
/// the client's: then what it was rewritten to is what the handler answers.
fn whole_target<B>(request: &Request<B>) -> &Uri {
    let own = request.uri();
    #[cfg(feature = "axum")]
    if let Some(axum::extract::OriginalUri(whole)) = request.extensions().get()
        // The root of a nested router is `/` inside and has no such ending outside.
        && (own.path() == "/" || whole.path().ends_with(own.path()))
        && whole.query() == own.query()
    {
        return whole;
    }
    own
}

#[cfg(all(test, feature = "axum"))]
mod tests {
    use axum::extract::OriginalUri;

    use super::*;

    #[test]
    fn the_target_is_the_one_that_the_client_sent() {
        let mut request = Request::get("/7").body(()).unwrap();
        assert_eq!(RequestView::of(&request).uri, "/7");
        let whole = OriginalUri(Uri::from_static("/contacts/7"));
        request.extensions_mut().insert(whole);
        assert_eq!(RequestView::of(&request).uri, "/contacts/7");
        *request.uri_mut() = Uri::from_static("/");
        assert_eq!(
            RequestView::of(&request).uri,
            "/contacts/7",
            "a nested root"
        );
        *request.uri_mut() = Uri::from_static("/tenant-a/8");
        assert_eq!(RequestView::of(&request).uri, "/tenant-a/8", "rewritten");
    }
}
