//! Requests by route template and method.
//!
//! Neither label is the client's to choose: the template is one that axum matched or the
//! configuration lists, else `unmatched`; the method is one of the nine that HTTP knows, else
//! `_OTHER`. The bound is on templates, not on pairs, because the pairs of a template are ten at most
//! and a client that tries all methods must not use up the places of other routes.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use http::Method;

use crate::identity::RequestView;
use crate::metrics::figures::read;
use crate::metrics::histogram::Histogram;
use crate::metrics::named::Named;
use crate::metrics::shared::Shared;

/// The route of requests that no template matches.
pub(crate) const UNMATCHED: &str = "unmatched";

/// The methods that are told apart; the last stands for all others, as in OpenTelemetry.
const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER",
];

/// The status classes 1xx to 5xx.
pub(crate) const CLASSES: usize = 5;

/// How many counts a route has.
pub(crate) const ROUTE_COUNTS: usize = CLASSES + 7;

/// The figures of one route and method.
#[derive(Debug)]
pub(crate) struct RouteStats {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) method: u8,
    /// Answers delivered, by status class.
    pub(crate) answered: [AtomicU64; CLASSES],
    /// Requests whose answer was not delivered to its end.
    pub(crate) cancelled: AtomicU64,
    /// Those of them whose answer's head had not come.
    pub(crate) unanswered: AtomicU64,
    /// Answers whose head took longer than the configured threshold, and those unanswered for as long.
    pub(crate) slow: AtomicU64,
    /// Bytes of the requests' bodies.
    pub(crate) received: AtomicU64,
    /// Bytes of the answers' bodies.
    pub(crate) sent: AtomicU64,
    /// Answers by the cache.
    pub(crate) cached: AtomicU64,
    /// Answers that it might have given.
    pub(crate) uncached: AtomicU64,
    /// Requests begun; those that are neither answered nor cancelled are in flight.
    pub(crate) begun: AtomicU64,
    /// Time to the answer's head.
    pub(crate) latency: Histogram,
}

impl RouteStats {
    fn new(shared: Arc<Shared>, route: Arc<str>, method: u8) -> Self {
        Self {
            shared,
            route,
            method,
            answered: Default::default(),
            cancelled: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            slow: AtomicU64::default(),
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            cached: AtomicU64::default(),
            uncached: AtomicU64::default(),
            begun: AtomicU64::default(),
            latency: Histogram::new(),
        }
    }

    /// All counts: the status classes, cancelled, slow, bytes received and sent, cached and uncached, unanswered.
    pub(crate) fn counts(&self) -> [u64; ROUTE_COUNTS] {
        let [c1, c2, c3, c4, c5] = self.answered.each_ref().map(read);
        let rest = [
            &self.cancelled,
            &self.slow,
            &self.received,
            &self.sent,
            &self.cached,
            &self.uncached,
            &self.unanswered,
        ];
        let [
            cancelled,
            slow,
            received,
            sent,
            cached,
            uncached,
            unanswered,
        ] = rest.map(read);
        [
            c1, c2, c3, c4, c5, cancelled, slow, received, sent, cached, uncached, unanswered,
        ]
    }

    /// How many have begun that are not over by these counts, which were read before.
    pub(crate) fn in_flight(&self, counts: &[u64; ROUTE_COUNTS]) -> u64 {
        let [c1, c2, c3, c4, c5, cancelled, ..] = counts;
        read(&self.begun).saturating_sub(c1 + c2 + c3 + c4 + c5 + cancelled)
    }
}

/// A template's figures, for each method that was used with it.
#[derive(Debug, Default)]
pub(crate) struct Row {
    methods: [OnceLock<Arc<RouteStats>>; METHODS.len()],
}

/// The figures of all routes.
#[derive(Debug)]
pub(crate) struct Routes {
    shared: Arc<Shared>,
    known: Named<Row>,
    /// The configured templates, for services without axum.
    own: matchit::Router<(Arc<str>, Arc<Row>)>,
    unmatched: Row,
}

impl Routes {
    /// No requests yet. `own` are templates that were checked to go together.
    pub(crate) fn new(own: &[String], routes_max: usize, shared: Arc<Shared>) -> Self {
        let known = Named::new(routes_max);
        let mut matcher = matchit::Router::new();
        for template in own {
            // The configuration's check has refused what could fail here.
            let row = (template.as_str().into(), known.add(template));
            let _ = matcher.insert(template.as_str(), row);
        }
        Self {
            shared,
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
            let new = || self.new_stats(self.known.label(template), method);
            let stats = |row: &Row| row.stats(method, new);
            return self.known.with(template, stats);
        }
        match self.own.at(request.uri.path()) {
            Ok(found) => {
                let (template, row) = found.value;
                row.stats(method, || self.new_stats(template, method))
            }
            Err(_) => self
                .unmatched
                .stats(method, || self.new_stats(UNMATCHED, method)),
        }
    }

    #[cold]
    fn new_stats(&self, template: &str, method: usize) -> Arc<RouteStats> {
        let (shared, route) = (Arc::clone(&self.shared), template.into());
        Arc::new(RouteStats::new(shared, route, method as u8))
    }

    /// All figures with their template and their method's place: templates by name, `unmatched` last.
    pub(crate) fn rows(&self) -> Vec<(Arc<str>, u8, Arc<RouteStats>)> {
        let mut rows = Vec::new();
        for (template, row) in self.known.rows() {
            row.append_to(&mut rows, &template);
        }
        self.unmatched.append_to(&mut rows, &UNMATCHED.into());
        rows
    }
}

impl Row {
    #[inline]
    fn stats(&self, method: usize, new: impl FnOnce() -> Arc<RouteStats>) -> Arc<RouteStats> {
        match self.methods.get(method) {
            Some(stats) => Arc::clone(stats.get_or_init(new)),
            None => new(),
        }
    }

    fn append_to(&self, rows: &mut Vec<(Arc<str>, u8, Arc<RouteStats>)>, template: &Arc<str>) {
        for (method, stats) in self.methods.iter().enumerate() {
            if let Some(stats) = stats.get() {
                rows.push((Arc::clone(template), method as u8, Arc::clone(stats)));
            }
        }
    }
}

/// The method in this place of those that are told apart.
pub(crate) fn method_named(place: u8) -> &'static str {
    let [.., other] = METHODS;
    METHODS.get(usize::from(place)).copied().unwrap_or(other)
}

/// The place of a method in [`METHODS`].
pub(crate) fn method_index(method: &Method) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::config::MetricsConfig;

    fn routes(own: &[&str]) -> Routes {
        let own: Vec<_> = own.iter().map(|route| (*route).to_owned()).collect();
        let shared = Shared::new(&MetricsConfig::default(), Clock::manual().0);
        Routes::new(&own, 512, Arc::new(shared))
    }

    fn request(method: &str, path: &str) -> http::Request<()> {
        let request = http::Request::builder().method(method).uri(path);
        request.body(()).unwrap()
    }

    fn labels(routes: &Routes) -> Vec<String> {
        let rows = routes.rows();
        let label =
            |(route, method, _): &(Arc<str>, u8, _)| format!("{} {route}", method_named(*method));
        rows.iter().map(label).collect()
    }

    #[test]
    fn requests_are_known_by_template_and_method() {
        let routes = routes(&["/contacts/{id}", "/contacts/new", "/never"]);
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
        let routes = routes(&["/a"]);
        for number in 0..1_000 {
            let hostile = request(&format!("M{number}"), &format!("/{number}"));
            routes.of(&RequestView::of(&hostile));
        }
        routes.of(&RequestView::of(&request("get", "/a")));
        assert_eq!(labels(&routes), ["_OTHER /a", "_OTHER unmatched"]);
    }

    #[test]
    fn all_methods_have_their_own_label() {
        let routes = routes(&["/a"]);
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
}
