//! What is asked of the metrics: all figures so far, those of a window, who was slow.

use crate::metrics::engine::Metrics;
use crate::metrics::slow::SlowRequest;
use crate::metrics::snapshot::Snapshot;
use crate::metrics::window::{Window, WindowFigures};

impl Metrics {
    /// All figures as they are now. Takes about 1 µs per route and method: meant for scrapes and tickers, not for
    /// requests.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.sheet())
    }

    /// The figures of the last minute, five minutes or hour, in steps that [`Window`] tells. Takes some
    /// microseconds per route and method: for people, tickers and alerts, not for requests.
    #[must_use]
    pub fn window(&self, window: Window) -> WindowFigures {
        let now = self.shared().clock.now();
        let (covers, sheet) = self.windows().window(window, now, || self.sheet());
        WindowFigures::of(window, covers, &sheet)
    }

    /// The slow requests that were seen last, the newest first; as many as `metrics.slow_requests_kept`.
    #[must_use]
    pub fn slow_requests(&self) -> Vec<SlowRequest> {
        self.shared().slow.all()
    }
}
