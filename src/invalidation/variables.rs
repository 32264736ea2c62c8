//! Variables that the service supplies while it runs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::Request;

use crate::identity::{RequestView, ResponseView};

/// Values for the variables of rules that the path does not tell: whose contact it was, say.
///
/// Put into a response's extensions by the handler, or into a request's by whatever stands around the
/// [`InvalidateLayer`](crate::invalidation::InvalidateLayer), or returned by the closure of
/// [`Invalidator::variables`](crate::invalidation::Invalidator::variables). The response is asked first,
/// then the closure, then the request's extensions; what none of them has set is taken from the path or
/// the request's fields. The first who has set a variable decides, even if its value is empty: then it
/// names nothing.
///
/// ```
/// use tower_keep::invalidation::Variables;
///
/// let mut response = http::Response::new("saved");
/// response.extensions_mut().insert(Variables::new().set("organization_id", 3));
/// ```
///
/// With axum it is a part of the answer: `(Extension(Variables::new().set("organization_id", 3)), "saved")`.
/// A value is plain text, not percent-encoded. A response carries one of these; where two are set, the last
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    pairs: Vec<(Cow<'static, str>, String)>,
}

impl Variables {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// And `name` stands for `value`; said twice, the last counts.
    #[must_use]
    pub fn set(mut self, name: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        let (name, value) = (name.into(), value.to_string());
        match self.pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((name, value)),
        }
        self
    }

    /// What `name` stands for.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        let (_, value) = pairs.find(|(known, _)| known == name)?;
        Some(value)
    }
}

type Supply = dyn Fn(&RequestView<'_>, &ResponseView<'_>) -> Variables + Send + Sync;

/// A closure that supplies variables. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Supplier(Arc<Supply>);

impl Supplier {
    pub(crate) fn new(
        supply: impl Fn(&RequestView<'_>, &ResponseView<'_>) -> Variables + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(supply))
    }

    pub(crate) fn supply(&self, request: &Request<()>, response: &ResponseView<'_>) -> Variables {
        (self.0)(&RequestView::of(request), response)
    }
}

impl fmt::Debug for Supplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supplier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let variables = Variables::new()
            .set("id", 7)
            .set("kind", "eu")
            .set("id", "8");
        assert_eq!(variables.value("id"), Some("8"));
        assert_eq!(variables.value("kind"), Some("eu"));
        assert_eq!(variables.value("i"), None);
    }

    #[test]
    fn it_fits_into_extensions() {
        fn fits<T: Clone + Send + Sync + 'static>() {}
        fits::<Variables>();
    }
}
