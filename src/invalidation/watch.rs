//! Watches over one request: however it ends, what it may have made old is purged.
//!
//! The record is appended by the drop, so that there is one place for it and no ending is
//! forgotten: an answer only corrects what is to be purged, an error, a panic or a client that left
//! purge what the rules said at the start.

use http::StatusCode;

use crate::identity::RequestView;
use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::invalidator::Invalidator;
use crate::journal::{Appending, Marker};
use crate::response::may_have_changed;

/// A request under way. Its drop appends what it holds.
#[derive(Debug)]
pub(crate) struct Watch {
    invalidator: Invalidator,
    markers: Vec<Marker>,
}

impl Watch {
    /// Notes what the rules say about `request`; `None` where the layer is off. Must be made before
    /// the inner service is called, which may already begin to work then.
    pub(crate) fn begin(invalidator: &Invalidator, request: &RequestView<'_>) -> Option<Self> {
        if !invalidator.is_enabled() {
            return None;
        }
        let markers = if request.method.is_safe() {
            Vec::new()
        } else {
            invalidator.named_by(request)
        };
        Some(Self {
            invalidator: invalidator.clone(),
            markers,
        })
    }

    /// The head is there: `status`, and what the handler `said`.
    pub(crate) fn answered(mut self, status: StatusCode, said: Option<Invalidate>) -> Appending {
        if !may_have_changed(status) {
            self.markers.clear();
        }
        if let Some(said) = said {
            self.markers.extend(self.invalidator.said(said));
        }
        let markers = std::mem::take(&mut self.markers);
        self.invalidator.append(&markers)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.invalidator.append(&self.markers));
    }
}
