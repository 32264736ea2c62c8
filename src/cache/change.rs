//! An unsafe request on its way to the service, and what it makes old (RFC 9111 §4.4).

use std::sync::Arc;

use http::header::{CONTENT_LOCATION, LOCATION};
use http::{Request, Response};

use crate::cache::body::CacheBody;
use crate::cache::deliver::pass_through;
use crate::cache::engine::Cache;
use crate::cache::status::FwdReason;
use crate::event::Event;
use crate::identity::RequestView;
use crate::journal::Marker;
use crate::response::may_have_changed;
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
}

impl Change {
    pub(crate) fn new<B>(cache: &Cache, request: &Request<B>) -> Self {
        cache.emit(Event::CacheForwarded {
            reason: FwdReason::Method.as_str(),
        });
        let view = RequestView::of(request);
        let host = view.headers.get(http::header::HOST);
        let authority = view.uri.authority().map(http::uri::Authority::as_str);
        let authority = authority.or_else(|| host?.to_str().ok()).map(Box::from);
        Self {
            cache: cache.clone(),
            path: Some(normal_form(view.uri.path()).into()),
            authority,
        }
    }

    /// "A cache MUST invalidate the target URI .. when it receives a non-error status code" (RFC 9111
    /// §4.4). What else counts, [`may_have_changed`] says.
    pub(crate) fn arrive<B>(mut self, response: Response<B>) -> Response<CacheBody<B>> {
        let path = self.path.take();
        if may_have_changed(response.status())
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
                markers.extend(local.map(|path| Marker::tag(&normal_form(path))));
            }
            self.cache.journal().append(&markers);
        }
        pass_through(&self.cache, response, FwdReason::Method)
    }

    /// The path of a reference if it is one of this origin.
    fn local_path<'t>(&self, target: &'t str) -> Option<&'t str> {
        let rest = if let Some(network) = target.strip_prefix("//") {
            self.local(network)?
        } else if target.starts_with('/') {
            target
        } else {
            self.local(target.split_once("://")?.1)?
        };
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        Some(&rest[..end])
    }

    /// What follows the authority in a reference, if the authority is this origin's.
    fn local<'t>(&self, rest: &'t str) -> Option<&'t str> {
        let (authority, path) = rest.split_at(rest.find('/')?);
        let own = self.authority.as_deref()?;
        own.eq_ignore_ascii_case(authority).then_some(path)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.cache.journal().append(&[Marker::tag(&path)]);
        }
    }
}
