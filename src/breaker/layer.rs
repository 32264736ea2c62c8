//! Circuit breakers as a layer.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use tower_layer::Layer;

use crate::breaker::breakers::CircuitBreakers;
use crate::breaker::engine::CircuitBreaker;
use crate::breaker::fallback::Fallback;
use crate::breaker::names::Circuits;
use crate::breaker::outcome::{Classifier, Outcome};
use crate::breaker::service::BreakerService;
use crate::identity::{RequestView, ResponseView};
use crate::refusal::Refusal;

/// Keeps requests from services that have failed too often of late; see the [module](crate::breaker) for examples.
///
/// All services made by it and its clones share their circuits.
#[derive(Clone, Debug)]
pub struct BreakerLayer {
    circuits: Circuits,
    classifier: Classifier,
    fallback: Fallback,
}

impl BreakerLayer {
    /// One circuit for all requests.
    #[must_use]
    pub fn new(breaker: CircuitBreaker) -> Self {
        Self::of(Circuits::One(breaker))
    }

    /// One for each host that requests are sent to, by their target or their field `Host`. Only before a client:
    /// a server's requests say what their senders want.
    #[must_use]
    pub fn by_host(breakers: CircuitBreakers) -> Self {
        Self::of(Circuits::ByHost(breakers))
    }

    /// One for each name; requests without a name are sent on and not counted. The closure is asked once for each
    /// request, on its thread.
    #[must_use]
    pub fn by<F>(breakers: CircuitBreakers, name: F) -> Self
    where
        F: for<'a> Fn(&RequestView<'a>) -> Option<Cow<'a, str>> + Send + Sync + 'static,
    {
        Self::of(Circuits::Named(breakers, Arc::new(name)))
    }

    fn of(circuits: Circuits) -> Self {
        Self {
            circuits,
            classifier: Classifier::default(),
            fallback: Fallback::default(),
        }
    }

    /// Says by the head of a response what came of the call. Without it, 5xx is a failure, unless it is a
    /// refusal of a layer further inside. Errors of calls are failures in any case; those of `poll_ready` are not seen.
    #[must_use]
    pub fn outcomes(
        mut self,
        judge: impl Fn(&ResponseView<'_>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.classifier = Classifier::by(judge);
        self
    }

    /// Answers requests that are refused: from what the application knows, with what it can say for the time being.
    /// `None` leaves it at the refusal. Asked on the request's thread, which it must not block.
    #[must_use]
    pub fn fallback<F>(mut self, answer: F) -> Self
    where
        F: Fn(&Refusal, &RequestView<'_>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    {
        self.fallback = Fallback::new(answer);
        self
    }
}

impl<S> Layer<S> for BreakerLayer {
    type Service = BreakerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let (circuits, classifier) = (self.circuits.clone(), self.classifier.clone());
        BreakerService::new(inner, circuits, classifier, self.fallback.clone())
    }
}
