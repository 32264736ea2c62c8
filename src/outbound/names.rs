//! Which remote a request goes to.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::Request;

use crate::identity::{RequestView, authority};

type Name = dyn for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync;

/// Names the remote of a request: by a closure, or by host and port.
#[derive(Clone, Default)]
pub(crate) struct RemoteNames {
    name: Option<Arc<Name>>,
}

impl RemoteNames {
    pub(crate) fn by<F>(name: F) -> Self
    where
        F: for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Self {
            name: Some(Arc::new(name)),
        }
    }

    /// `None` for a request that no quota speaks of.
    pub(crate) fn of<'a, B>(&self, request: &'a Request<B>) -> Option<Cow<'a, str>> {
        match &self.name {
            None => authority(request.uri(), request.headers()),
            Some(name) => name(&RequestView {
                method: request.method(),
                // Not the target that a router has noted in the extensions: a proxy's own client sends
                // the request on with them, to somewhere else.
                uri: request.uri(),
                headers: request.headers(),
                extensions: request.extensions(),
            }),
        }
    }
}

impl fmt::Debug for RemoteNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.name {
            None => "by host and port",
            Some(_) => "by a closure",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_named_by_host_and_port() {
        let request = Request::get("https://API.example.com:8443/v1")
            .body(())
            .unwrap();
        let name = RemoteNames::default().of(&request);
        assert_eq!(name.as_deref(), Some("api.example.com:8443"));
    }

    #[test]
    fn a_closure_names_it_otherwise_or_not_at_all() {
        let names = RemoteNames::by(|request| {
            let path = request.uri.path();
            path.starts_with("/search")
                .then_some(Cow::Borrowed("search"))
        });
        let name = |uri| {
            let request = Request::get(uri).body(()).unwrap();
            names.of(&request).map(Cow::into_owned)
        };
        assert_eq!(name("http://a.test/search?q=1").as_deref(), Some("search"));
        assert_eq!(name("http://a.test/"), None);
    }
}
