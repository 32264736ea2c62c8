//! What came of a call.

use std::fmt;
use std::sync::Arc;

use http::Response;

use crate::identity::ResponseView;
use crate::refusal::Refusal;

/// What came of a call, in the words of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// What was called does its work, whatever it answered.
    Succeeded,
    /// It does not.
    Failed,
    /// The call says nothing about that: it counts for neither, and a probe's place is free again.
    Ignored,
}

type Judge = dyn Fn(&ResponseView<'_>) -> Outcome + Send + Sync;

/// Tells by a response's head what came of the call.
#[derive(Clone, Default)]
pub(crate) struct Classifier {
    judge: Option<Arc<Judge>>,
}

impl Classifier {
    pub(crate) fn by(judge: impl Fn(&ResponseView<'_>) -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            judge: Some(Arc::new(judge)),
        }
    }

    /// What a layer of our own has refused further inside says nothing about what it protects: it was not
    /// called. Otherwise a server error is a failure.
    pub(crate) fn outcome<B>(&self, response: &Response<B>) -> Outcome {
        if let Some(judge) = &self.judge {
            return judge(&ResponseView::of(response));
        }
        if response.extensions().get::<Refusal>().is_some() {
            return Outcome::Ignored;
        }
        match response.status().is_server_error() {
            true => Outcome::Failed,
            false => Outcome::Succeeded,
        }
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.judge {
            None => "by status",
            Some(_) => "by a closure",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn server_errors_are_failures_but_for_our_own_refusals() {
        for (status, outcome) in [
            (200, Outcome::Succeeded),
            (304, Outcome::Succeeded),
            (404, Outcome::Succeeded),
            (429, Outcome::Succeeded),
            (500, Outcome::Failed),
            (503, Outcome::Failed),
        ] {
            let response = Response::builder().status(status).body(()).unwrap();
            assert_eq!(Classifier::default().outcome(&response), outcome);
        }
        let refusal = Refusal::Overloaded {
            retry_after: Duration::from_secs(1),
        };
        let response = Response::builder().status(503).extension(refusal);
        let response = response.body(()).unwrap();
        assert_eq!(Classifier::default().outcome(&response), Outcome::Ignored);
    }

    #[test]
    fn a_closure_decides_otherwise() {
        let strict = Classifier::by(|answer| match answer.status.as_u16() {
            429 => Outcome::Failed,
            _ => Outcome::Ignored,
        });
        for (status, outcome) in [(429, Outcome::Failed), (500, Outcome::Ignored)] {
            let response = Response::builder().status(status).body(()).unwrap();
            assert_eq!(strict.outcome(&response), outcome);
        }
    }
}
