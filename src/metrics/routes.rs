//! Requests by route template and method.
//!
//! Neither label is the client's to choose: the template is one that axum matched or the
//! configuration lists, else `unmatched`; the method is one of the nine that HTTP knows, else
//! `_OTHER`. The bound is on templates, not on pairs, because the pairs of a template are ten at most
//! and a client that tries all methods must not use up the places of other routes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::identity::RequestView;
use crate::metrics::histogram::Histogram;
use crate::metrics::named::Named;

/// The route of requests that no template matches.
const UNMATCHED: &str = "unmatched";

/// The methods that are told apart; the last stands for all others, as in OpenTelemetry.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER",
];

/// The status classes 1xx to 5xx.
pub(crate) const CLASSES: usize = 5;

/// The figures of one route and method.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    /// Answers delivered, by status class.
    pub(crate) answered: [AtomicU64; CLASSES],
    /// Requests whose answer was not delivered to its end.
    pub(crate) cancelled: AtomicU64,
    /// Answers whose head took longer than the configured threshold.
    pub(crate) slow: AtomicU64,
    /// Requests begun and neither answered nor cancelled.
    pub(crate) in_flight: AtomicU64,
    /// Time to the answer's head.
    pub(crate) latency: Histogram,
}

impl RouteStats {
    /// An answer's head is there after `took`.
    #[inline]
    pub(crate) fn count_head(&self, took: Duration, slow_from: Duration) {
        self.latency.record(took);
        if took > slow_from {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A template's figures, for each method that was used with it.
#[derive(Debug, Default)]
struct Row {
    methods: [OnceLock<Arc<RouteStats>>; METHODS.len()],
}

/// The figures of all routes.
#[derive(Debug)]
pub(crate) struct Routes {
    known: Named<Row>,
    /// The configured templates, for services without axum.
    own: matchit::Router<Arc<Row>>,
    unmatched: Row,
}

impl Routes {
    /// No requests yet. `own` are templates that were checked to go together.
    pub(crate) fn new(own: &[String], routes_max: usize) -> Self {
        let known = Named::new(routes_max);
        let mut matcher = matchit::Router::new();
        for template in own {
            // The configuration's check has refused what could fail here.
            let _ = matcher.insert(template.as_str(), known.add(template));
        }
        Self {
            known,
            own: matcher,
            unmatched: Row::default(),
        }
    }

    /// The figures that `request` counts under.
    #[inline]
    pub(crate) fn of(&self, request: &RequestView<'_>) -> Arc<RouteStats> {
        let method = method_index(request.method);
        if let Some(template) = request.matched_template() {
            return self.known.with(template, |row| row.stats(method));
        }
        match self.own.at(request.uri.path()) {
            Ok(found) => found.value.stats(method),
            Err(_) => self.unmatched.stats(method),
        }
    }

    /// All figures with their template and method: templates by name, `unmatched` last.
    pub(crate) fn rows(&self) -> Vec<(Arc<str>, &'static str, Arc<RouteStats>)> {
        let mut rows = Vec::new();
        for (template, row) in self.known.rows() {
            row.append_to(&mut rows, &template);
        }
        self.unmatched.append_to(&mut rows, &UNMATCHED.into());
        rows
    }
}

impl Row {
    fn stats(&self, method: usize) -> Arc<RouteStats> {
        match self.methods.get(method) {
            Some(stats) => Arc::clone(stats.get_or_init(Arc::default)),
            None => Arc::default(),
        }
    }

    fn append_to(
        &self,
        rows: &mut Vec<(Arc<str>, &'static str, Arc<RouteStats>)>,
        template: &Arc<str>,
    ) {
        for (method, stats) in METHODS.iter().zip(&self.methods) {
            if let Some(stats) = stats.get() {
                rows.push((Arc::clone(template), method, Arc::clone(stats)));
            }
        }
    }
}

/// The place of a method in [`METHODS`].
fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => METHODS.len() - 1,
    }
}

/// A request on its way: in flight while this lives, counted when it is dropped.
///
/// Whoever drops it without [`Passage::delivered`] has been cancelled, or is unwinding.
#[derive(Debug)]
pub(crate) struct Passage {
    stats: Arc<RouteStats>,
    delivered: Option<StatusCode>,
}

impl Passage {
    /// A request begins.
    pub(crate) fn begin(stats: Arc<RouteStats>) -> Self {
        stats.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            stats,
            delivered: None,
        }
    }

    /// The figures it counts under.
    pub(crate) fn stats(&self) -> &RouteStats {
        &self.stats
    }

    /// The request ends with an answer that was delivered to its end.
    pub(crate) fn delivered(mut self, status: StatusCode) {
        self.delivered = Some(status);
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let status = match self.delivered {
            // A panic is the service's fault and not the client's change of mind.
            None if std::thread::panicking() => Some(StatusCode::INTERNAL_SERVER_ERROR),
            delivered => delivered,
        };
        let count = status.and_then(|status| self.stats.answered.get(class_index(status)));
        count
            .unwrap_or(&self.stats.cancelled)
            .fetch_add(1, Ordering::Relaxed);
        // Release: whoever sees the request out of flight sees it counted.
        self.stats.in_flight.fetch_sub(1, Ordering::Release);
    }
}

/// 1xx is 0, 5xx is 4. The codes from 600 on mean nothing, which a client treats as 5xx
/// (RFC 9110 §15).
fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str) -> http::Request<()> {
        let request = http::Request::builder().method(method).uri(path);
        request.body(()).unwrap()
    }

    fn labels(routes: &Routes) -> Vec<String> {
        let rows = routes.rows();
        let label = |(route, method, _): &(Arc<str>, &str, _)| format!("{method} {route}");
        rows.iter().map(label).collect()
    }

    #[test]
    fn requests_are_known_by_template_and_method() {
        let own = ["/contacts/{id}", "/contacts/new", "/never"].map(str::to_owned);
        let routes = Routes::new(&own, 512);
        for (method, path) in [
            ("GET", "/contacts/1"),
            ("GET", "/contacts/2?x=3"),
            ("PUT", "/contacts/2"),
            ("GET", "/contacts/new"),
            ("GET", "/elsewhere"),
        ] {
            routes.of(&RequestView::of(&request(method, path)));
        }
        assert_eq!(
            labels(&routes),
            [
                "GET /contacts/new",
                "GET /contacts/{id}",
                "PUT /contacts/{id}",
                "GET unmatched"
            ]
        );
    }

    #[test]
    fn invented_paths_and_methods_make_no_series() {
        let routes = Routes::new(&["/a".to_owned()], 512);
        for number in 0..1_000 {
            let hostile = request(&format!("M{number}"), &format!("/{number}"));
            routes.of(&RequestView::of(&hostile));
        }
        routes.of(&RequestView::of(&request("get", "/a")));
        assert_eq!(labels(&routes), ["_OTHER /a", "_OTHER unmatched"]);
    }

    #[test]
    fn all_methods_have_their_own_label() {
        let routes = Routes::new(&["/a".to_owned()], 512);
        for method in METHODS {
            routes.of(&RequestView::of(&request(method, "/a")));
        }
        assert_eq!(
            labels(&routes),
            METHODS.map(|method| format!("{method} /a"))
        );
        for (index, method) in METHODS.iter().enumerate() {
            assert_eq!(method_index(&method.parse().unwrap()), index, "{method}");
        }
    }

    #[test]
    fn a_passage_is_counted_once_and_under_its_class() {
        let stats = Arc::<RouteStats>::default();
        let counts = || stats.answered.each_ref().map(|c| c.load(Ordering::Relaxed));
        for status in [101, 200, 204, 304, 404, 500, 599, 600, 999] {
            Passage::begin(Arc::clone(&stats)).delivered(StatusCode::from_u16(status).unwrap());
        }
        assert_eq!(counts(), [1, 2, 1, 1, 4]);
        drop(Passage::begin(Arc::clone(&stats)));
        assert_eq!(stats.cancelled.load(Ordering::Relaxed), 1);
        let twin = Arc::clone(&stats);
        let panicked = std::thread::spawn(move || {
            let _passage = Passage::begin(twin);
            panic!("the handler's");
        });
        assert!(panicked.join().is_err());
        assert_eq!(counts(), [1, 2, 1, 1, 5]);
        assert_eq!(stats.cancelled.load(Ordering::Relaxed), 1);
        assert_eq!(stats.in_flight.load(Ordering::Relaxed), 0);
    }
}
