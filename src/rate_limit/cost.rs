//! How many tokens a request takes.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::RequestView;

/// What a request has cost after all, for the handler to leave in the response's extensions. Heeded by
/// rules of [`RequestCost::Told`].
///
/// ```
/// use tower_keep::rate_limit::Cost;
///
/// let mut response = http::Response::new("a long answer");
/// response.extensions_mut().insert(Cost(1280));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cost(
    /// In tokens; 0 gives the request back.
    pub u32,
);

/// How many tokens of the quota a request takes.
///
/// In files: `one`, `told` or `body_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum RequestCost {
    /// One.
    #[default]
    One,
    /// As many as a closure says before it goes on; see [`RequestCost::by`].
    Custom(CustomCost),
    /// One before it goes on, and after its answer as many as the handler tells with [`Cost`] in all. Where
    /// that is more than was left, the bucket is in debt for it, so that the next ones wait longer.
    Told,
    /// As many as its answer's body has bytes, counted as they are sent. The request goes on if anything
    /// is left; what is sent beyond makes the next ones wait longer.
    BodyBytes,
}

type Tokens = dyn Fn(&RequestView<'_>) -> u32 + Send + Sync;

/// A closure that says what a request costs; see [`RequestCost::by`].
#[derive(Clone)]
pub struct CustomCost {
    tokens: Arc<Tokens>,
}

impl RequestCost {
    /// As many tokens as `tokens` says. One of 0 costs nothing, but is let through only if anything is
    /// left; one of more than the quota's burst takes all of it. The closure runs before the request goes on, and
    /// must not block.
    ///
    /// ```
    /// use tower_keep::rate_limit::RequestCost;
    ///
    /// // An export is worth ten pages.
    /// let cost = RequestCost::by(|request| match request.uri.path() {
    ///     "/export" => 10,
    ///     _ => 1,
    /// });
    /// # let _ = cost;
    /// ```
    #[must_use]
    pub fn by(tokens: impl Fn(&RequestView<'_>) -> u32 + Send + Sync + 'static) -> Self {
        Self::Custom(CustomCost {
            tokens: Arc::new(tokens),
        })
    }

    /// The tokens that are taken before the request goes on.
    pub(crate) fn before(&self, request: &RequestView<'_>) -> u32 {
        match self {
            Self::One | Self::Told => 1,
            Self::Custom(custom) => (custom.tokens)(request),
            Self::BodyBytes => 0,
        }
    }

    /// Whether there is something left to count after the answer.
    pub(crate) const fn is_known_late(&self) -> bool {
        matches!(self, Self::Told | Self::BodyBytes)
    }

    /// What it is called in files.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::One => "one",
            // Written for whoever looks at a configuration; it does not read back.
            Self::Custom(_) => "custom",
            Self::Told => "told",
            Self::BodyBytes => "body_bytes",
        }
    }
}

impl PartialEq for CustomCost {
    /// Two are the same if they hold the same closure.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tokens, &other.tokens)
    }
}

impl fmt::Debug for CustomCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomCost").finish_non_exhaustive()
    }
}

impl From<RequestCost> for String {
    fn from(cost: RequestCost) -> Self {
        cost.name().to_owned()
    }
}

impl TryFrom<String> for RequestCost {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "one" => Ok(Self::One),
            "told" => Ok(Self::Told),
            "body_bytes" => Ok(Self::BodyBytes),
            _ => Err(format!(
                "unknown cost {text:?}: must be one, told or body_bytes"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_costs_before_it_goes_on() {
        let by_length = RequestCost::by(|request| request.uri.path().len().try_into().unwrap());
        let request = http::Request::get("/export").body(()).unwrap();
        for (cost, before, late) in [
            (RequestCost::One, 1, false),
            (by_length, 7, false),
            (RequestCost::Told, 1, true),
            (RequestCost::BodyBytes, 0, true),
        ] {
            assert_eq!(cost.before(&RequestView::of(&request)), before, "{cost:?}");
            assert_eq!(cost.is_known_late(), late, "{cost:?}");
        }
    }

    #[test]
    fn files_name_all_but_closures() {
        for (text, cost) in [
            ("\"one\"", RequestCost::One),
            ("\"told\"", RequestCost::Told),
            ("\"body_bytes\"", RequestCost::BodyBytes),
        ] {
            assert_eq!(serde_json::from_str::<RequestCost>(text).unwrap(), cost);
            assert_eq!(serde_json::to_string(&cost).unwrap(), text);
        }
        for text in ["\"custom\"", "\"One\"", "\"\"", "1"] {
            assert!(serde_json::from_str::<RequestCost>(text).is_err(), "{text}");
        }
    }
}
