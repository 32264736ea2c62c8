//! All figures as a body that is written while it is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response};
use http_body::{Body, Frame};

use crate::metrics::accept::format_for;
use crate::metrics::engine::Metrics;
use crate::metrics::exposition::{Exposition, Format};
use crate::metrics::walk::Walk;

/// A piece is handed out once it has as many bytes..
const PIECE_BYTES: usize = 32 << 10;
/// .. or has taken so long to write. One step more than that it takes, of which the longest takes some 10 µs.
const PIECE_TIME: Duration = Duration::from_micros(250);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// An answer to somebody who scrapes: what it is, and its text, which is yet to be written.
///
/// ```
/// # use http_body_util::BodyExt;
/// # use tower_keep::clock::Clock;
/// # use tower_keep::metrics::{Metrics, MetricsConfig};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let metrics = Metrics::new(&MetricsConfig::default(), Clock::system())?;
/// let accept = http::HeaderValue::from_static("application/openmetrics-text; version=1.0.0");
/// let answer = metrics.scrape(Some(&accept)).into_response();
/// let content_type = answer.headers()["content-type"].to_str()?;
/// assert!(content_type.starts_with("application/openmetrics-text"));
/// let text = answer.into_body().collect().await?.to_bytes();
/// assert!(text.ends_with(b"# EOF\n"));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use]
pub struct Scrape {
    content_type: HeaderValue,
    body: ScrapeBody,
}

/// The text of a [`Scrape`], of unknown length.
///
/// Each piece has some 32 KiB, is written when it is asked for, and takes no longer than about 0.3 ms. Between
/// two pieces the body says once that it is not ready, so that other tasks of the same thread have their turn. It
/// holds one piece and which routes there are (some 40 bytes each), whatever the text's length. Each line is
/// as old as its piece; the lines of one histogram belong together. Dropping it midway costs nothing.
#[derive(Debug)]
pub struct ScrapeBody {
    walk: Walk,
    text: Exposition,
    next: Next,
}

/// What the body does when it is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Write,
    LetOthersRun,
    Nothing,
}

impl Metrics {
    /// All figures for whoever sent this `Accept` field: OpenMetrics 1.0 for those who name it and want nothing else
    /// more, as Prometheus does, and the text format 0.0.4 for everybody else, whatever the field says.
    ///
    /// Takes about 0.05 µs per route and method here, and 0.7 µs while the body is sent (500 routes with one and a half
    /// methods each are 1.7 MiB in 0.5 ms); see [`ScrapeBody`].
    pub fn scrape(&self, accept: Option<&HeaderValue>) -> Scrape {
        let format = format_for(accept);
        Scrape {
            content_type: match format {
                Format::Text => TEXT,
                Format::OpenMetrics => OPEN_METRICS,
            },
            body: ScrapeBody {
                walk: Walk::new(self),
                text: Exposition::new(format),
                next: Next::Write,
            },
        }
    }
}

impl Scrape {
    /// The media type of the text.
    #[must_use]
    pub const fn content_type(&self) -> &HeaderValue {
        &self.content_type
    }

    /// The text.
    pub fn into_body(self) -> ScrapeBody {
        self.body
    }

    /// A 200 with it, that no cache may keep.
    pub fn into_response(self) -> Response<ScrapeBody> {
        let mut response = Response::new(self.body);
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, self.content_type);
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        fields.insert(VARY, HeaderValue::from_static("accept"));
        response
    }
}

impl ScrapeBody {
    fn piece(&mut self) -> Bytes {
        let clock = self.walk.clock();
        let begun = clock.now();
        self.next = Next::LetOthersRun;
        loop {
            if !self.walk.step(&mut self.text) {
                self.text.end();
                self.next = Next::Nothing;
                break;
            }
            if self.text.len() >= PIECE_BYTES || clock.now().since(begun) >= PIECE_TIME {
                break;
            }
        }
        Bytes::from(self.text.take())
    }
}

impl Body for ScrapeBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.next {
            Next::Write => Poll::Ready(Some(Ok(Frame::data(self.piece())))),
            Next::LetOthersRun => {
                self.next = Next::Write;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Next::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next == Next::Nothing
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::clock::Clock;
    use crate::metrics::config::MetricsConfig;

    fn with_gauges(
        count: usize,
        clock: Clock,
        read: impl Fn() + Copy + Send + Sync + 'static,
    ) -> Metrics {
        let metrics = Metrics::new(&MetricsConfig::default(), clock).unwrap();
        for index in 0..count {
            let name: &'static str = Box::leak(format!("gauge_{index}").into_boxed_str());
            let help = "A gauge with a help that is long enough to fill a piece before long.";
            let read = move || {
                read();
                1.0
            };
            metrics.gauge(name, help, read).unwrap();
        }
        metrics
    }

    /// The pieces, and how often the body said that it was not ready.
    fn pieces(mut body: ScrapeBody) -> (Vec<Bytes>, usize) {
        let (mut pieces, mut pauses) = (Vec::new(), 0);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Pending => pauses += 1,
                Poll::Ready(Some(Ok(frame))) => pieces.push(frame.into_data().unwrap()),
                Poll::Ready(Some(Err(never))) => match never {},
                Poll::Ready(None) => return (pieces, pauses),
            }
        }
    }

    #[test]
    fn pieces_are_bounded_and_others_run_between_them() {
        let metrics = with_gauges(2_000, Clock::manual().0, || {});
        let (pieces, pauses) = pieces(metrics.scrape(None).into_body());
        assert!(pieces.len() > 5);
        assert_eq!(pauses, pieces.len() - 1);
        assert!(pieces.iter().all(|piece| piece.len() < PIECE_BYTES + 4_096));
        assert_eq!(pieces.concat(), metrics.prometheus().as_bytes());
    }

    #[test]
    fn slow_gauges_end_a_piece_early() {
        let (clock, hand) = Clock::manual();
        let hand: &'static _ = Box::leak(Box::new(hand));
        let metrics = with_gauges(10, clock, || hand.advance(Duration::from_micros(100)));
        let (pieces, _) = pieces(metrics.scrape(None).into_body());
        assert_eq!(
            pieces.len(),
            4,
            "3 gauges of 100 µs in each, and the last one"
        );
    }

    #[test]
    fn a_waiting_reader_is_woken() {
        let metrics = with_gauges(1_000, Clock::manual().0, || {});
        let mut body = metrics.scrape(None).into_body();
        let (waker, woken) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_pending());
        assert_eq!(woken.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
    }

    fn counting_waker() -> (Waker, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(Arc<AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::<AtomicUsize>::default();
        (Waker::from(Arc::new(Count(Arc::clone(&count)))), count)
    }
}
