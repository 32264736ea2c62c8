//! Watches over one request: however it ends, what it may have made old is purged.
//!
//! The record is appended by the drop, so that there is one place for it and no ending is
//! forgotten: an answer only corrects what is to be purged, an error, a panic or a client that left
//! purge what the rules said at the start.

use http::StatusCode;

use crate::identity::RequestView;
use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::invalidator::Invalidator;
use crate::journal::Marker;

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
    pub(crate) fn answered(mut self, status: StatusCode, said: Option<Invalidate>) {
        if !may_have_changed(status) {
            self.markers.clear();
        }
        if let Some(said) = said {
            self.markers.extend(self.invalidator.said(said));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.invalidator.append(&self.markers);
    }
}

/// Whether a request that was answered so may have changed something. A client error says that it
/// was not carried out (RFC 9110 §15.5), but for 408: that is what a timeout below answers for a
/// handler that it has dropped midway.
fn may_have_changed(status: StatusCode) -> bool {
    !status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_client_errors_change_nothing_and_a_timeout_is_none() {
        for (status, changed) in [
            (101, true),
            (200, true),
            (204, true),
            (303, true),
            (400, false),
            (404, false),
            (408, true),
            (409, false),
            (429, false),
            (499, false),
            (500, true),
            (503, true),
            (599, true),
            (777, true),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(may_have_changed(status), changed, "{status}");
        }
    }
}
