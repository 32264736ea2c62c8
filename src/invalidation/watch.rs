//! Watches over one request: however it ends, what it may have made old is purged.
//!
//! The record is appended by the drop, so that there is one place for it and no ending is
//! forgotten: an answer only corrects what is to be purged, an error, a panic or a client that left
//! purge what the rules could tell from the request at the start.

use http::{Request, Response};

use crate::identity::{RequestView, ResponseView};
use crate::invalidation::begun::Begun;
use crate::invalidation::invalidate::Invalidate;
use crate::invalidation::invalidator::Invalidator;
use crate::journal::{Appending, Marker};
use crate::response::{NotCalled, may_have_changed};

/// A request under way. Its drop appends what it names.
#[derive(Debug)]
pub(crate) struct Watch {
    invalidator: Invalidator,
    /// What is to be named yet.
    begun: Begun,
    /// What was named by the answer.
    markers: Vec<Marker>,
    not_called: Option<NotCalled>,
}

impl Watch {
    /// Notes what `request` says to the rules; `None` where the layer is off. Must be made before
    /// the inner service is called, which may already begin to work then.
    pub(crate) fn begin<B>(invalidator: &Invalidator, request: &mut Request<B>) -> Option<Self> {
        if !invalidator.is_enabled() {
            return None;
        }
        let (begun, not_called) = if request.method().is_safe() {
            (Begun::default(), None)
        } else {
            let begun = invalidator.begin(&RequestView::of(request));
            // Nothing is allocated where no rule speaks of it.
            let extensions = request.extensions_mut();
            let not_called = (!begun.is_empty()).then(|| NotCalled::within(extensions));
            (begun, not_called)
        };
        Some(Self {
            invalidator: invalidator.clone(),
            begun,
            markers: Vec::new(),
            not_called,
        })
    }

    /// The head is there. What the handler said is taken out of it; its variables stay, for another
    /// layer with rules of its own.
    pub(crate) fn answered<B>(mut self, response: &mut Response<B>) -> Appending {
        // Most responses carry no extensions at all, and then this costs one comparison.
        if !response.extensions().is_empty()
            && let Some(said) = response.extensions_mut().remove::<Invalidate>()
        {
            self.markers = self.invalidator.said(said);
        }
        let status = response.status();
        let excused = self.not_called.as_ref();
        let excused = excused.is_some_and(|not_called| not_called.excuses(status));
        if !may_have_changed(status) || excused {
            self.begun = Begun::default();
        } else if !self.begun.is_empty() {
            // An application's closure may panic in here. Then `begun` still stands, and the drop names
            // what the request alone can tell.
            let view = ResponseView::of(response);
            let named = self.invalidator.named_by(&self.begun, Some(&view));
            self.begun = Begun::default();
            self.markers.extend(named);
        }
        let markers = std::mem::take(&mut self.markers);
        self.invalidator.append(&markers)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let named = self.invalidator.named_by(&self.begun, None);
        self.markers.extend(named);
        // Nobody is left who would wait for it.
        drop(self.invalidator.append(&self.markers));
    }
}
