//! Which requests count, told by their answers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::ResponseView;

/// Which of the requests that a rule let through stay counted.
///
/// Every request is counted before it goes on, so that no number of them at once can slip through; it is
/// given back when its answer says that it does not count. One without an answer, because its client went
/// away or the service failed, stays counted.
///
/// In files: `all`, `failures` or `successes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Count {
    /// All of them.
    #[default]
    All,
    /// Those whose answer has a status of 400 or more. For logins: whoever types the right password is
    /// never kept waiting, provided that a wrong one is answered with such a status, not with a page.
    Failures,
    /// Those whose answer has a status below 400.
    Successes,
    /// Those that a closure picks; see [`Count::when`].
    Custom(CustomCount),
}

type Counts = dyn Fn(&ResponseView<'_>) -> bool + Send + Sync;

/// A closure that says which answers count; see [`Count::when`].
#[derive(Clone)]
pub struct CustomCount {
    counts: Arc<Counts>,
}

impl Count {
    /// Counts the requests for whose answers `counts` says so. It runs when the answer's head is there, and
    /// must not block.
    ///
    /// ```
    /// use tower_keep::rate_limit::Count;
    ///
    /// // A wrong password counts; a database that is down does not.
    /// let count = Count::when(|response| response.status == 401);
    /// # let _ = count;
    /// ```
    #[must_use]
    pub fn when(counts: impl Fn(&ResponseView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self::Custom(CustomCount {
            counts: Arc::new(counts),
        })
    }

    /// Whether a request with this answer stays counted.
    pub(crate) fn counts(&self, response: &ResponseView<'_>) -> bool {
        let failed = response.status.as_u16() >= 400;
        match self {
            Self::All => true,
            Self::Failures => failed,
            Self::Successes => !failed,
            Self::Custom(custom) => (custom.counts)(response),
        }
    }

    /// What it is called in files.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Failures => "failures",
            Self::Successes => "successes",
            // Written for whoever looks at a configuration; it does not read back.
            Self::Custom(_) => "custom",
        }
    }
}

impl PartialEq for CustomCount {
    /// Two are the same if they hold the same closure.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counts, &other.counts)
    }
}

impl fmt::Debug for CustomCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomCount").finish_non_exhaustive()
    }
}

impl From<Count> for String {
    fn from(count: Count) -> Self {
        count.name().to_owned()
    }
}

impl TryFrom<String> for Count {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "all" => Ok(Self::All),
            "failures" => Ok(Self::Failures),
            "successes" => Ok(Self::Successes),
            _ => Err(format!(
                "unknown count {text:?}: must be all, failures or successes"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{Response, StatusCode};

    use super::*;

    #[test]
    fn a_failure_is_a_status_of_400_or_more() {
        let not_found = Count::when(|response| response.status == StatusCode::NOT_FOUND);
        for (status, counted) in [
            (101, [true, false, true, false]),
            (200, [true, false, true, false]),
            (304, [true, false, true, false]),
            (399, [true, false, true, false]),
            (400, [true, true, false, false]),
            (404, [true, true, false, true]),
            (503, [true, true, false, false]),
        ] {
            let response = Response::builder().status(status).body(()).unwrap();
            let view = ResponseView::of(&response);
            let counts = [&Count::All, &Count::Failures, &Count::Successes, &not_found];
            assert_eq!(counts.map(|count| count.counts(&view)), counted, "{status}");
        }
    }

    #[test]
    fn a_closure_sees_fields_and_extensions() {
        let marked = Count::when(|response| {
            response.headers.contains_key("x-failed") || response.extensions.get::<u8>().is_some()
        });
        let mut response = Response::new(());
        assert!(!marked.counts(&ResponseView::of(&response)));
        response.extensions_mut().insert(1_u8);
        assert!(marked.counts(&ResponseView::of(&response)));
        let mut response = Response::new(());
        response
            .headers_mut()
            .insert("x-failed", http::HeaderValue::from_static("1"));
        assert!(marked.counts(&ResponseView::of(&response)));
    }

    #[test]
    fn files_name_all_but_closures() {
        for (text, count) in [
            ("\"all\"", Count::All),
            ("\"failures\"", Count::Failures),
            ("\"successes\"", Count::Successes),
        ] {
            assert_eq!(serde_json::from_str::<Count>(text).unwrap(), count);
            assert_eq!(serde_json::to_string(&count).unwrap(), text);
        }
        for text in ["\"custom\"", "\"ALL\"", "\"\"", "true"] {
            assert!(serde_json::from_str::<Count>(text).is_err(), "{text}");
        }
    }
}
