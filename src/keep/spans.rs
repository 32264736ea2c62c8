//! The layer that tells requests to `tracing`, from the stack's settings.

use crate::keep::parts::Keep;
use crate::metrics::{RequestSpanLayer, RequestSpans};

impl Keep {
    /// A layer that opens a `tracing` span for the share `metrics.trace_sample` of all requests, and tells every 5xx
    /// and every slow one as an event; see [`RequestSpans`]. It is no part of [`layer`](Self::layer): put it around
    /// that, `router.layer(keep.layer()).layer(keep.span_layer())`. What is made by one call samples together.
    #[must_use]
    pub fn span_layer(&self) -> RequestSpanLayer {
        let spans = RequestSpans::new(&self.config().metrics, self.clock().clone());
        RequestSpanLayer::new(spans)
    }
}
