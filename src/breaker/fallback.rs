//! What is answered in place of a call that is not made.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::identity::RequestView;
use crate::refusal::Refusal;
use crate::response::refusal_bytes;

type Answer = dyn Fn(&Refusal, &RequestView<'_>) -> Option<Response<Bytes>> + Send + Sync;

/// The application's answer, or the refusal's own.
#[derive(Clone, Default)]
pub(crate) struct Fallback {
    answer: Option<Arc<Answer>>,
}

impl Fallback {
    pub(crate) fn new(
        answer: impl Fn(&Refusal, &RequestView<'_>) -> Option<Response<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            answer: Some(Arc::new(answer)),
        }
    }

    /// The answer to this request. It says in its extensions why it is none of the service's, whoever gave it.
    pub(crate) fn answer(&self, refusal: Refusal, request: &RequestView<'_>) -> Response<Bytes> {
        let answer = self.answer.as_ref();
        match answer.and_then(|answer| answer(&refusal, request)) {
            Some(mut response) => {
                response.extensions_mut().insert(refusal);
                response
            }
            None => refusal_bytes(refusal),
        }
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.answer {
            None => "none",
            Some(_) => "a closure",
        })
    }
}
