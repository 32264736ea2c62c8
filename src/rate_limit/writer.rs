//! How an application writes refusals in its own way.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

type Write = dyn Fn(Response<Bytes>) -> Response<Bytes> + Send + Sync;

/// What becomes of a refusal before it is sent: as it is, unless a closure says otherwise. Cheap to clone.
///
/// ```
/// use bytes::Bytes;
/// use tower_keep::rate_limit::RefusalWriter;
///
/// let writer = RefusalWriter::new(|mut refusal| {
///     refusal.headers_mut().insert("content-type", "text/plain".parse().expect("a value"));
///     *refusal.body_mut() = Bytes::from_static(b"Too many requests");
///     refusal
/// });
/// # let _ = writer;
/// ```
#[derive(Clone, Default)]
pub struct RefusalWriter {
    write: Option<Arc<Write>>,
}

impl RefusalWriter {
    /// Hands every refusal to `write`: it may change status, fields and body, or answer something else. It is
    /// given the whole answer, problem details and all, with its [`Refusal`](crate::refusal::Refusal) in the
    /// extensions. It runs on the request's thread, and must not block.
    #[must_use]
    pub fn new(write: impl Fn(Response<Bytes>) -> Response<Bytes> + Send + Sync + 'static) -> Self {
        Self {
            write: Some(Arc::new(write)),
        }
    }

    pub(crate) fn write(&self, refusal: Response<Bytes>) -> Response<Bytes> {
        match &self.write {
            Some(write) => write(refusal),
            None => refusal,
        }
    }
}

impl fmt::Debug for RefusalWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusalWriter")
            .field("closure", &self.write.is_some())
            .finish()
    }
}
