//! Which requests are told to `tracing`, and what is told of them.
//!
//! A sampled request gets a span, `http.request` of the target `tower_keep::http` and the level `INFO`, with `method`,
//! `route` (the template), `trace_id`, `status` and `duration_ms`; the last is there when the answer's body has ended.
//! What the handler logs lies within it. Every 5xx is an event of the level `ERROR` and every slow request one of the
//! level `WARN`, sampled or not, at most a hundred a second together: a host that sheds thousands of requests must not
//! write thousands of lines. An error of the service is told as a 500, and so is a panic that nobody inside has caught;
//! a client that left before the answer's head is told as a 499, if it had waited for so long that this is slow.
//!
//! Who is sampled: a request whose `traceparent` says that its caller has recorded the trace; the same share of all
//! other traces in every service of the same share, since the trace's id decides; and the share of requests without a
//! trace, evenly spread. A stranger can set that flag. A service that faces strangers takes `traceparent` off at its
//! edge, as the specification asks for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode};
use tracing::field::{Empty, display};
use tracing::level_filters::LevelFilter;
use tracing::{Span, error, info_span, warn};

use crate::clock::{Clock, Moment};
use crate::identity::RequestView;
use crate::metrics::config::MetricsConfig;
use crate::metrics::routes::{method_index, method_named};
use crate::metrics::trace_parent::{TraceField, TraceParent};

/// How many requests are told as events within a second.
const EVENTS_MAX: u32 = 100;

/// Tells requests to `tracing`. Cheap to clone; all clones sample together. Its layer is
/// [`RequestSpanLayer`](crate::metrics::RequestSpanLayer).
#[derive(Clone, Debug)]
pub struct RequestSpans {
    /// None where nothing is told.
    inner: Option<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    share: Share,
    slow: Duration,
    clock: Clock,
    /// For services without axum.
    templates: matchit::Router<Arc<str>>,
    /// Where the sequence stands that stands in for the ids of traces.
    turn: AtomicU64,
    ration: Mutex<Ration>,
}

/// A share of all 64-bit numbers.
#[derive(Clone, Copy, Debug)]
enum Share {
    All,
    Below(u64),
}

/// How many events this second has had.
#[derive(Debug, Default)]
struct Ration {
    second: u64,
    told: u32,
    left_out: u64,
}

impl RequestSpans {
    /// Samples the share that the settings say. A share that [`MetricsConfig::check`] would refuse is none.
    #[must_use]
    pub fn new(config: &MetricsConfig, clock: Clock) -> Self {
        let share = Some(config.trace_sample).filter(|share| config.enabled && *share > 0.0);
        let inner = share.map(|share| {
            let mut templates = matchit::Router::new();
            for template in &config.routes {
                // The configuration's check has refused what could fail here.
                let _ = templates.insert(template.as_str(), template.as_str().into());
            }
            Arc::new(Inner {
                share: Share::of(share),
                slow: config.slow_request,
                clock,
                templates,
                turn: AtomicU64::default(),
                ration: Mutex::default(),
            })
        });
        Self { inner }
    }

    /// A request begins. Nothing where nobody listens, not even to errors.
    #[inline]
    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Option<Box<Telling>> {
        let inner = self.inner.as_ref()?;
        if LevelFilter::current() < LevelFilter::ERROR {
            return None;
        }
        Some(Box::new(Telling::begin(inner, &RequestView::of(request))))
    }
}

impl Share {
    fn of(share: f64) -> Self {
        if share >= 1.0 {
            Self::All
        } else {
            // 2^64; the cast saturates.
            Self::Below((share * 18_446_744_073_709_551_616.0) as u64)
        }
    }

    const fn has(self, number: u64) -> bool {
        match self {
            Self::All => true,
            Self::Below(end) => number < end,
        }
    }
}

impl Inner {
    fn samples(&self, parent: Option<TraceParent>) -> bool {
        match parent {
            Some(TraceParent { sampled: true, .. }) => true,
            // Of an id, the last seven bytes are random (Trace Context Level 2).
            Some(TraceParent { trace_id, .. }) => self.share.has((trace_id as u64) << 8),
            None => {
                // Steps of the golden ratio's part of 2^64: any run of them is spread evenly.
                let turn = self
                    .turn
                    .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                self.share.has(turn)
            }
        }
    }

    /// How many events were left out before this one, if this one may be told.
    fn ration(&self) -> Option<u64> {
        let second = self.clock.now().as_nanos() / 1_000_000_000;
        let mut ration = self.ration.lock().unwrap_or_else(PoisonError::into_inner);
        if ration.second != second {
            (ration.second, ration.told) = (second, 0);
        }
        if ration.told >= EVENTS_MAX {
            ration.left_out += 1;
            return None;
        }
        ration.told += 1;
        Some(std::mem::take(&mut ration.left_out))
    }
}

/// The route's template, held without allocating.
#[derive(Debug)]
enum Template {
    #[cfg(feature = "axum")]
    Matched(axum::extract::MatchedPath),
    Own(Arc<str>),
    Unmatched,
}

impl Template {
    fn of(request: &RequestView<'_>, own: &matchit::Router<Arc<str>>) -> Self {
        #[cfg(feature = "axum")]
        if let Some(matched) = request.extensions.get::<axum::extract::MatchedPath>() {
            return Self::Matched(matched.clone());
        }
        match own.at(request.uri.path()) {
            Ok(found) => Self::Own(Arc::clone(found.value)),
            Err(_) => Self::Unmatched,
        }
    }

    fn as_str(&self) -> &str {
        match self {
            #[cfg(feature = "axum")]
            Self::Matched(matched) => matched.as_str(),
            Self::Own(template) => template,
            Self::Unmatched => "unmatched",
        }
    }
}

/// A request on its way. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct Telling {
    spans: Arc<Inner>,
    /// Disabled where the request is not sampled.
    span: Span,
    method: &'static str,
    route: Template,
    trace_id: Option<u128>,
    begun: Moment,
    /// Whether the answer's head was there.
    answered: bool,
    /// Whether the service panicked.
    unwound: AtomicBool,
}

impl Telling {
    fn begin(spans: &Arc<Inner>, request: &RequestView<'_>) -> Self {
        let parent = TraceField::of(request.headers).and_then(TraceField::parse);
        // What a client invents is not written to logs.
        let method = method_named(method_index(request.method) as u8);
        let route = Template::of(request, &spans.templates);
        let span = if spans.samples(parent) {
            info_span!(
                target: "tower_keep::http", "http.request", method, route = route.as_str(),
                trace_id = Empty, status = Empty, duration_ms = Empty,
            )
        } else {
            Span::none()
        };
        let trace_id = parent.map(|parent| parent.trace_id);
        if let Some(id) = trace_id {
            span.record("trace_id", display(format_args!("{id:032x}")));
        }
        Self {
            spans: Arc::clone(spans),
            span,
            method,
            route,
            trace_id,
            begun: spans.clock.now(),
            answered: false,
            unwound: AtomicBool::new(false),
        }
    }

    /// Runs `work` as a part of the request.
    #[inline]
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut unwinding = Unwinding(Some(&self.unwound));
        let done = self.span.in_scope(work);
        unwinding.0 = None;
        done
    }

    /// The answer's head is there; `is_failure` if it is the service's.
    pub(crate) fn answered(&mut self, status: StatusCode, is_failure: bool) {
        self.answered = true;
        self.span.record("status", status.as_u16());
        self.tell_if_bad((status.as_u16(), is_failure), self.took());
    }

    fn tell_if_bad(&self, (status, is_failure): (u16, bool), took: Duration) {
        if is_failure || took > self.spans.slow {
            self.within(|| self.tell((status, is_failure), took));
        }
    }

    #[cold]
    fn tell(&self, (status, is_failure): (u16, bool), took: Duration) {
        let Some(left_out) = self.spans.ration() else {
            return;
        };
        let (method, route, duration_ms) = (self.method, self.route.as_str(), millis(took));
        let id = self.trace_id.map(|id| format!("{id:032x}"));
        let trace_id = id.as_deref().map(display);
        if is_failure {
            error!(
                target: "tower_keep::http", method, route, trace_id, status, duration_ms, left_out,
                "a request failed"
            );
        } else {
            warn!(
                target: "tower_keep::http", method, route, trace_id, status, duration_ms, left_out,
                "a slow request"
            );
        }
    }

    fn took(&self) -> Duration {
        self.spans.clock.now().since(self.begun)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if self.answered && self.span.is_disabled() {
            return;
        }
        let took = self.took();
        self.span.record("duration_ms", millis(took));
        if !self.answered {
            // A panic is the service's fault and not the client's change of mind. Whoever catches it directly outside
            // drops this when the thread does not unwind any more.
            let panicked = std::thread::panicking() || *self.unwound.get_mut();
            let status = if panicked { PANICKED } else { CLIENT_LEFT };
            self.tell_if_bad((status, panicked), took);
        }
    }
}

/// Sets what it holds where it is dropped with it.
struct Unwinding<'a>(Option<&'a AtomicBool>);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if let Some(unwound) = self.0 {
            unwound.store(true, Ordering::Relaxed);
        }
    }
}

/// What a panic is told as.
const PANICKED: u16 = 500;

/// What nginx writes for a client that closed the connection before it was answered.
const CLIENT_LEFT: u16 = 499;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(trace_sample: f64) -> Arc<Inner> {
        let config = MetricsConfig {
            trace_sample,
            ..MetricsConfig::default()
        };
        let spans = RequestSpans::new(&config, Clock::manual().0);
        spans.inner.unwrap()
    }

    fn parent(trace_id: u128, sampled: bool) -> Option<TraceParent> {
        Some(TraceParent { trace_id, sampled })
    }

    #[test]
    fn the_share_is_kept_without_a_trace() {
        for (share, expected) in [(0.01, 1_000), (0.25, 25_000), (1.0, 100_000)] {
            let spans = spans(share);
            let sampled = (0..100_000).filter(|_| spans.samples(None)).count();
            assert!(sampled.abs_diff(expected) <= 2, "{sampled} of {expected}");
        }
    }

    #[test]
    fn a_traces_id_decides_and_the_flag_is_honoured() {
        let (one, two) = (spans(0.1), spans(0.1));
        let mut sampled = 0;
        let mut id: u128 = 1;
        for _ in 0..10_000 {
            // The constants of Knuth's generator, to make ids that look like any.
            id = id
                .wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
                .wrapping_add(1);
            let of_id = one.samples(parent(id >> 7, false));
            assert_eq!(of_id, two.samples(parent(id >> 7, false)));
            assert!(one.samples(parent(id >> 7, true)));
            sampled += usize::from(of_id);
        }
        assert!((850..1_150).contains(&sampled), "{sampled}");
    }

    #[test]
    fn nothing_is_told_at_a_share_of_nothing() {
        for trace_sample in [0.0, -1.0, f64::NAN] {
            let config = MetricsConfig {
                trace_sample,
                ..MetricsConfig::default()
            };
            assert!(
                RequestSpans::new(&config, Clock::manual().0)
                    .inner
                    .is_none()
            );
        }
    }

    #[test]
    fn a_storm_of_errors_is_told_in_part_and_its_rest_is_counted() {
        let (clock, hand) = Clock::manual();
        let config = MetricsConfig {
            trace_sample: 0.5,
            ..MetricsConfig::default()
        };
        let spans = RequestSpans::new(&config, clock).inner.unwrap();
        let told = (0..1_000).filter(|_| spans.ration().is_some()).count();
        assert_eq!(told, EVENTS_MAX as usize);
        hand.advance(Duration::from_secs(1));
        assert_eq!(spans.ration(), Some(900));
        assert_eq!(spans.ration(), Some(0));
    }
}
