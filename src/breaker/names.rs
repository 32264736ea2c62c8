//! Which circuit a request belongs to.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::Request;

use crate::breaker::breakers::CircuitBreakers;
use crate::breaker::engine::CircuitBreaker;
use crate::identity::{RequestView, authority};

type Name = dyn for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync;

/// Finds the circuit of a request.
#[derive(Clone)]
pub(crate) enum Circuits {
    /// All requests have the same.
    One(CircuitBreaker),
    /// Each host has its own.
    ByHost(CircuitBreakers),
    /// A closure names it.
    Named(CircuitBreakers, Arc<Name>),
}

impl Circuits {
    /// `None` for a request that no circuit speaks of.
    pub(crate) fn of<B>(&self, request: &Request<B>) -> Option<Cow<'_, CircuitBreaker>> {
        match self {
            Self::One(breaker) => Some(Cow::Borrowed(breaker)),
            Self::ByHost(breakers) => {
                let host = authority(request.uri(), request.headers())?;
                Some(Cow::Owned(breakers.of(&host)))
            }
            Self::Named(breakers, name) => {
                let name = name(&as_sent(request))?;
                Some(Cow::Owned(breakers.of(&name)))
            }
        }
    }
}

impl fmt::Debug for Circuits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(breaker) => f.debug_tuple("One").field(breaker).finish(),
            Self::ByHost(breakers) => f.debug_tuple("ByHost").field(breakers).finish(),
            Self::Named(breakers, _) => f.debug_tuple("Named").field(breakers).finish(),
        }
    }
}

/// The request as it is sent on. Its target is its own, not the one that a router has noted in the extensions: a
/// proxy's client sends the request on with them, to somewhere else.
pub(crate) fn as_sent<B>(request: &Request<B>) -> RequestView<'_> {
    RequestView {
        method: request.method(),
        uri: request.uri(),
        headers: request.headers(),
        extensions: request.extensions(),
    }
}
