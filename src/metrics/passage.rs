//! A request on its way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::clock::Moment;
use crate::metrics::routes::{CLASSES, RouteStats, method_named};
use crate::metrics::slow::SlowRequest;
use crate::metrics::trace_parent::TraceField;

/// A request on its way: in flight while this lives, counted when it is dropped.
///
/// Whoever drops it without [`Passage::delivered`] has been cancelled, or is unwinding.
#[derive(Debug)]
pub(crate) struct Passage {
    stats: Arc<RouteStats>,
    begun: Moment,
    // In a box, because most requests have none and all move this about.
    trace: Option<Box<TraceField>>,
    /// Bytes of the answer's body so far.
    sent: u64,
    progress: Progress,
}

/// How far the answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Awaited,
    Begun,
    Delivered(StatusCode),
}

impl Passage {
    /// A request with these fields begins now.
    #[inline]
    pub(crate) fn begin(stats: Arc<RouteStats>, headers: &HeaderMap) -> Self {
        stats.begun.fetch_add(1, Ordering::Relaxed);
        Self {
            begun: stats.shared.clock.now(),
            stats,
            trace: TraceField::of(headers).map(Box::new),
            sent: 0,
            progress: Progress::Awaited,
        }
    }

    /// The figures it counts under.
    pub(crate) fn stats(&self) -> &RouteStats {
        &self.stats
    }

    /// The answer's head is there. Returns how long it took.
    #[inline]
    pub(crate) fn head(&mut self, status: StatusCode) -> Duration {
        let took = self.stats.shared.clock.now().since(self.begun);
        self.progress = Progress::Begun;
        self.stats.latency.record(took);
        if took > self.stats.shared.slow_request {
            self.note_slow(took, status.as_u16());
        }
        took
    }

    /// So many bytes of the answer's body were handed on.
    #[inline]
    pub(crate) const fn sent(&mut self, bytes: u64) {
        self.sent += bytes;
    }

    /// The request ends with an answer that was delivered to its end.
    pub(crate) fn delivered(mut self, status: StatusCode) {
        self.progress = Progress::Delivered(status);
    }

    #[cold]
    fn note_slow(&self, took: Duration, status: u16) {
        let stats = &self.stats;
        let trace = self.trace.as_deref().copied().and_then(TraceField::parse);
        stats.slow.fetch_add(1, Ordering::Relaxed);
        stats.shared.slow.add(SlowRequest {
            at: stats.shared.clock.wall(),
            route: Arc::clone(&stats.route),
            method: method_named(stats.method),
            status,
            took,
            trace_id: trace.map(|trace| format!("{:032x}", trace.trace_id).into()),
        });
    }

    /// A client that left before the head, maybe because it took so long.
    #[cold]
    fn note_left(&self) {
        let took = self.stats.shared.clock.now().since(self.begun);
        self.stats.unanswered.fetch_add(1, Ordering::Relaxed);
        if took > self.stats.shared.slow_request {
            self.note_slow(took, CLIENT_LEFT);
        }
    }
}

/// What `poll` returns. If it panics, what `counted` holds is dropped while the thread still unwinds, and so counts as
/// a failure: whoever catches the panic further out may drop the rest long afterwards.
#[inline]
pub(crate) fn counting_panics<T, R>(counted: &mut Option<T>, poll: impl FnOnce() -> R) -> R {
    let mut unwound = Unwound(Some(counted));
    let polled = poll();
    unwound.0 = None;
    polled
}

struct Unwound<'a, T>(Option<&'a mut Option<T>>);

impl<T> Drop for Unwound<'_, T> {
    fn drop(&mut self) {
        if let Some(counted) = self.0.take() {
            *counted = None;
        }
    }
}

/// What nginx writes for a client that closed the connection before it was answered.
const CLIENT_LEFT: u16 = 499;

impl Drop for Passage {
    fn drop(&mut self) {
        let status = match self.progress {
            Progress::Delivered(status) => Some(status),
            // A panic is the service's fault and not the client's change of mind.
            _ if std::thread::panicking() => Some(StatusCode::INTERNAL_SERVER_ERROR),
            Progress::Awaited => {
                self.note_left();
                None
            }
            Progress::Begun => None,
        };
        if self.sent > 0 {
            self.stats.sent.fetch_add(self.sent, Ordering::Relaxed);
        }
        let count = status.and_then(|status| self.stats.answered.get(class_index(status)));
        count
            .unwrap_or(&self.stats.cancelled)
            .fetch_add(1, Ordering::Relaxed);
    }
}

/// 1xx is 0, 5xx is 4. The codes from 600 on mean nothing, which a client treats as 5xx
/// (RFC 9110 §15).
fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::clock::Clock;
    use crate::identity::RequestView;
    use crate::metrics::config::MetricsConfig;
    use crate::metrics::routes::Routes;
    use crate::metrics::shared::Shared;

    fn stats() -> Arc<RouteStats> {
        let shared = Shared::new(&MetricsConfig::default(), Clock::manual().0);
        let routes = Routes::new(&[], 8, Arc::new(shared));
        let request = http::Request::builder()
            .method(Method::GET)
            .body(())
            .unwrap();
        routes.of(&RequestView::of(&request))
    }

    fn begin(stats: &Arc<RouteStats>) -> Passage {
        Passage::begin(Arc::clone(stats), &HeaderMap::new())
    }

    #[test]
    fn a_passage_is_counted_once_and_under_its_class() {
        let stats = stats();
        let counts = || stats.answered.each_ref().map(|c| c.load(Ordering::Relaxed));
        for status in [101, 200, 204, 304, 404, 500, 599, 600, 999] {
            begin(&stats).delivered(StatusCode::from_u16(status).unwrap());
        }
        assert_eq!(counts(), [1, 2, 1, 1, 4]);
        drop(begin(&stats));
        assert_eq!(stats.cancelled.load(Ordering::Relaxed), 1);
        let twin = Arc::clone(&stats);
        let panicked = std::thread::spawn(move || {
            let _passage = begin(&twin);
            panic!("the handler's");
        });
        assert!(panicked.join().is_err());
        assert_eq!(counts(), [1, 2, 1, 1, 5]);
        assert_eq!(stats.cancelled.load(Ordering::Relaxed), 1);
        assert_eq!(stats.in_flight(&stats.counts()), 0);
    }
}
