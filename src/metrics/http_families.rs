//! The families about HTTP requests, under either set of names.

use crate::metrics::edges::{EDGES, Edge, OPEN_TELEMETRY_EDGES};
use crate::metrics::names::MetricNames;
use crate::metrics::routes::UNMATCHED;
use crate::metrics::rows::LiveRow;
use crate::metrics::visitor::{Family, Kind, Label, Visitor};

/// A family, and how a row's figures in it are told.
#[derive(Debug)]
pub(crate) struct HttpFamily {
    pub(crate) family: Family,
    pub(crate) tell: Tell,
}

/// Whether a family has figures for each row.
#[derive(Debug)]
pub(crate) enum Tell {
    /// One row after the other, each under its [labels](with_labels).
    Row(fn(&LiveRow, &[Label<'_>], &mut dyn Visitor)),
    /// All rows at once, summed up.
    All(fn(&[LiveRow], &mut dyn Visitor)),
}

/// The families that go by `names`.
pub(crate) fn http_families(names: MetricNames) -> &'static [&'static HttpFamily] {
    match names {
        MetricNames::Keep => &KEEP,
        MetricNames::OpenTelemetry => &OPEN_TELEMETRY,
    }
}

/// Hands on the row's labels under `names`. With those of OpenTelemetry without a route where none was matched: no
/// template is spelled `unmatched`, since all begin with a slash.
pub(crate) fn with_labels(names: MetricNames, row: &LiveRow, tell: impl FnOnce(&[Label<'_>])) {
    match names {
        MetricNames::Keep => tell(&[("route", &row.route), ("method", row.method)]),
        MetricNames::OpenTelemetry if &*row.route == UNMATCHED => tell(&[(METHOD, row.method)]),
        MetricNames::OpenTelemetry => tell(&[("http_route", &row.route), (METHOD, row.method)]),
    }
}

static KEEP: [&HttpFamily; 9] = [
    &REQUESTS,
    &CANCELLED,
    &UNANSWERED,
    &SLOW,
    &IN_FLIGHT,
    &DURATION,
    &RECEIVED,
    &SENT,
    &BY_CACHE,
];

static OPEN_TELEMETRY: [&HttpFamily; 9] = [
    &OTEL_DURATION,
    &OTEL_ACTIVE,
    &OTEL_REQUESTS,
    &CANCELLED,
    &UNANSWERED,
    &SLOW,
    &RECEIVED,
    &SENT,
    &BY_CACHE,
];

const fn counter(
    name: &'static str,
    help: &'static str,
    tell: fn(&LiveRow, &[Label<'_>], &mut dyn Visitor),
) -> HttpFamily {
    let kind = Kind::Counter;
    HttpFamily {
        family: Family { name, help, kind },
        tell: Tell::Row(tell),
    }
}

const REQUESTS_NAME: &str = "keep_http_requests_total";
const REQUESTS_HELP: &str = "Requests answered to the end of the body, by status class.";

static REQUESTS: HttpFamily = counter(REQUESTS_NAME, REQUESTS_HELP, |row, labels, visitor| {
    for (class, count) in told_by_class(row) {
        visitor.count(&[labels, &[("status", class)]].concat(), count);
    }
});
/// An answer's class is the error as well if it is the service's fault.
static OTEL_REQUESTS: HttpFamily = counter(REQUESTS_NAME, REQUESTS_HELP, |row, labels, visitor| {
    for (class, count) in told_by_class(row) {
        let more = [(STATUS, class), ("error_type", class)];
        let more = if class == FAILED {
            &more[..]
        } else {
            &more[..1]
        };
        visitor.count(&[labels, more].concat(), count);
    }
});
static CANCELLED: HttpFamily = counter(
    "keep_http_requests_cancelled_total",
    "Requests whose client left, or whose body failed, before the answer's end.",
    |row, labels, visitor| visitor.count(labels, row.cancelled()),
);
static UNANSWERED: HttpFamily = counter(
    "keep_http_requests_unanswered_total",
    "Requests that were given up before the answer's head.",
    |row, labels, visitor| visitor.count(labels, row.unanswered()),
);
static SLOW: HttpFamily = counter(
    "keep_http_requests_slow_total",
    "Requests that took longer than metrics.slow_request_ms to the answer's head, or until they were given up.",
    |row, labels, visitor| visitor.count(labels, row.slow()),
);
static RECEIVED: HttpFamily = counter(
    "keep_http_request_body_bytes_total",
    "Bytes of the requests' bodies, as far as they were announced.",
    |row, labels, visitor| visitor.count(labels, row.received()),
);
static SENT: HttpFamily = counter(
    "keep_http_response_body_bytes_total",
    "Bytes of the answers' bodies that were handed to connections.",
    |row, labels, visitor| visitor.count(labels, row.sent()),
);
static BY_CACHE: HttpFamily = counter(
    "keep_http_requests_cacheable_total",
    "Answers that the cache gave, or might have given.",
    |row, labels, visitor| {
        for (outcome, count) in told_by_cache(row) {
            visitor.count(&[labels, &[("outcome", outcome)]].concat(), count);
        }
    },
);

const IN_FLIGHT_HELP: &str = "Requests begun whose answer's body has not ended.";

static IN_FLIGHT: HttpFamily = HttpFamily {
    family: Family {
        name: "keep_http_requests_in_flight",
        help: IN_FLIGHT_HELP,
        kind: Kind::Gauge,
    },
    tell: Tell::Row(|row, labels, visitor| visitor.count(labels, row.in_flight())),
};
static OTEL_ACTIVE: HttpFamily = HttpFamily {
    family: Family {
        name: "http_server_active_requests",
        help: IN_FLIGHT_HELP,
        kind: Kind::Gauge,
    },
    tell: Tell::All(active_by_method),
};
static DURATION: HttpFamily = duration("keep_http_request_duration_seconds", EDGES);
static OTEL_DURATION: HttpFamily =
    duration("http_server_request_duration_seconds", OPEN_TELEMETRY_EDGES);

const fn duration(name: &'static str, edges: &'static [Edge]) -> HttpFamily {
    HttpFamily {
        family: Family {
            name,
            help: "Time from the request's head to the answer's head.",
            kind: Kind::Histogram(edges),
        },
        tell: Tell::Row(|row, labels, visitor| visitor.times(labels, &row.latency())),
    }
}

/// The class of answers that are the service's fault.
const FAILED: &str = "5xx";

/// Answers by class, where a class is a series: most routes only ever use two. Failures are one from the beginning,
/// because what begins at its first value has not risen for `rate`, and a route's first failure would go unseen.
fn told_by_class(row: &LiveRow) -> impl Iterator<Item = (&'static str, u64)> {
    let classes = row.answered().into_iter();
    classes.filter(|(class, count)| *count > 0 || *class == FAILED)
}

/// Hits and misses where the cache has anything to do with the row. Always both: a ratio has no value where one of
/// them is no series.
fn told_by_cache(row: &LiveRow) -> impl Iterator<Item = (&'static str, u64)> {
    let outcomes = row.by_cache();
    let any = outcomes.iter().any(|(_, count)| *count > 0);
    outcomes.into_iter().filter(move |_| any)
}

const METHOD: &str = "http_request_method";
const STATUS: &str = "http_response_status_code";

fn active_by_method(rows: &[LiveRow], visitor: &mut dyn Visitor) {
    let mut methods: Vec<(&'static str, u64)> = Vec::new();
    for row in rows {
        let active = row.in_flight();
        match methods.iter_mut().find(|(method, _)| *method == row.method) {
            Some((_, sum)) => *sum += active,
            None => methods.push((row.method, active)),
        }
    }
    for (method, active) in methods {
        visitor.count(&[(METHOD, method)], active);
    }
}
