//! What a request says to the rules that speak of it, kept until its answer is there.
//!
//! The request itself is gone by then, into the inner service. Of one that no rule speaks of nothing is
//! kept.

use http::Request;

use crate::identity::{RequestView, ResponseView};
use crate::invalidation::plan::{Answered, Match, Plan};
use crate::invalidation::target::Target;
use crate::invalidation::variables::{Supplier, Variables};

/// A request under way, as rules see it.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    matches: Vec<Match>,
    /// For the closure, if there is one. Boxed, because most requests have none.
    request: Option<Box<Request<()>>>,
}

impl Begun {
    /// Asks every plan. Allocates nothing if none speaks of `request`.
    pub(crate) fn new(
        plans: &[Plan],
        request: &RequestView<'_>,
        supplier: Option<&Supplier>,
    ) -> Self {
        let plans = plans.iter().enumerate();
        let matches: Vec<_> = plans
            .filter_map(|(at, plan)| plan.matched(at, request))
            .collect();
        let is_asked = supplier.is_some() && !matches.is_empty();
        Self {
            matches,
            request: is_asked.then(|| Box::new(kept(request))),
        }
    }

    /// Whether no rule speaks of it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// What the rules name now that the request is over, `response` being its answer if it has one.
    /// Each warning that is called for goes to `warn`.
    pub(crate) fn targets(
        &self,
        plans: &[Plan],
        supplier: Option<&Supplier>,
        response: Option<&ResponseView<'_>>,
        mut warn: impl FnMut(&str),
    ) -> Vec<Target> {
        let supplied = match (supplier, self.request.as_deref(), response) {
            (Some(supplier), Some(request), Some(response)) => supplier.supply(request, response),
            _ => Variables::new(),
        };
        let answered = response.map(|response| Answered {
            told: response.extensions.get::<Variables>(),
            supplied: &supplied,
        });
        let mut targets = Vec::new();
        for matched in &self.matches {
            if let Some(plan) = plans.get(matched.plan)
                && let Some(text) = plan.name(matched, answered.as_ref(), &mut targets)
            {
                warn(&text);
            }
        }
        targets
    }
}

/// The request without its body.
fn kept(request: &RequestView<'_>) -> Request<()> {
    let mut kept = Request::new(());
    kept.method_mut().clone_from(request.method);
    kept.uri_mut().clone_from(request.uri);
    kept.headers_mut().clone_from(request.headers);
    kept.extensions_mut().clone_from(request.extensions);
    kept
}
