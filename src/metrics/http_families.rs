//! The families about HTTP requests, under either set of names.

use crate::metrics::edges::{EDGES, OPEN_TELEMETRY_EDGES};
use crate::metrics::names::MetricNames;
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
    /// One row after the other.
    Row(fn(&LiveRow, &mut dyn Visitor)),
    /// All rows at once, summed up.
    All(fn(&[LiveRow], &mut dyn Visitor)),
}

/// The families that go by `names`.
pub(crate) fn http_families(names: MetricNames) -> &'static [HttpFamily] {
    match names {
        MetricNames::Keep => &KEEP,
        MetricNames::OpenTelemetry => &OPEN_TELEMETRY,
    }
}

const REQUESTS: Family = Family {
    name: "keep_http_requests_total",
    help: "Requests answered to the end of the body, by status class.",
    kind: Kind::Counter,
};
const CANCELLED: Family = Family {
    name: "keep_http_requests_cancelled_total",
    help: "Requests whose client left, or whose body failed, before the answer's end.",
    kind: Kind::Counter,
};
const UNANSWERED: Family = Family {
    name: "keep_http_requests_unanswered_total",
    help: "Requests that were given up before the answer's head.",
    kind: Kind::Counter,
};
const SLOW: Family = Family {
    name: "keep_http_requests_slow_total",
    help: "Answers whose head took longer than metrics.slow_request_ms.",
    kind: Kind::Counter,
};
const RECEIVED: Family = Family {
    name: "keep_http_request_body_bytes_total",
    help: "Bytes of the requests' bodies, as far as they were announced.",
    kind: Kind::Counter,
};
const SENT: Family = Family {
    name: "keep_http_response_body_bytes_total",
    help: "Bytes of the answers' bodies that were handed to connections.",
    kind: Kind::Counter,
};
const BY_CACHE: Family = Family {
    name: "keep_http_requests_cacheable_total",
    help: "Answers that the cache gave, or might have given.",
    kind: Kind::Counter,
};
const DURATION_HELP: &str = "Time from the request's head to the answer's head.";
const IN_FLIGHT_HELP: &str = "Requests begun whose answer's body has not ended.";

static KEEP: [HttpFamily; 9] = [
    HttpFamily {
        family: REQUESTS,
        tell: Tell::Row(|row, visitor| {
            let [route, method] = keep_labels(row);
            for (class, count) in row.answered() {
                if is_told(class, count) {
                    visitor.count(&[route, method, ("status", class)], count);
                }
            }
        }),
    },
    HttpFamily {
        family: CANCELLED,
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.cancelled())),
    },
    HttpFamily {
        family: UNANSWERED,
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.unanswered())),
    },
    HttpFamily {
        family: SLOW,
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.slow())),
    },
    HttpFamily {
        family: Family {
            name: "keep_http_requests_in_flight",
            help: IN_FLIGHT_HELP,
            kind: Kind::Gauge,
        },
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.in_flight())),
    },
    HttpFamily {
        family: Family {
            name: "keep_http_request_duration_seconds",
            help: DURATION_HELP,
            kind: Kind::Histogram(EDGES),
        },
        tell: Tell::Row(|row, visitor| visitor.times(&keep_labels(row), &row.latency())),
    },
    HttpFamily {
        family: RECEIVED,
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.received())),
    },
    HttpFamily {
        family: SENT,
        tell: Tell::Row(|row, visitor| visitor.count(&keep_labels(row), row.sent())),
    },
    HttpFamily {
        family: BY_CACHE,
        tell: Tell::Row(|row, visitor| {
            let [route, method] = keep_labels(row);
            for (outcome, count) in told_by_cache(row) {
                visitor.count(&[route, method, ("outcome", outcome)], count);
            }
        }),
    },
];

static OPEN_TELEMETRY: [HttpFamily; 9] = [
    HttpFamily {
        family: Family {
            name: "http_server_request_duration_seconds",
            help: DURATION_HELP,
            kind: Kind::Histogram(OPEN_TELEMETRY_EDGES),
        },
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.times(labels, &row.latency()));
        }),
    },
    HttpFamily {
        family: Family {
            name: "http_server_active_requests",
            help: IN_FLIGHT_HELP,
            kind: Kind::Gauge,
        },
        tell: Tell::All(active_by_method),
    },
    HttpFamily {
        family: REQUESTS,
        tell: Tell::Row(|row, visitor| {
            for (class, count) in row.answered() {
                if is_told(class, count) {
                    let failed = class == FAILED;
                    with_labels(row, |labels| {
                        count_class(visitor, labels, class, failed, count)
                    });
                }
            }
        }),
    },
    HttpFamily {
        family: CANCELLED,
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.count(labels, row.cancelled()));
        }),
    },
    HttpFamily {
        family: UNANSWERED,
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.count(labels, row.unanswered()));
        }),
    },
    HttpFamily {
        family: SLOW,
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.count(labels, row.slow()))
        }),
    },
    HttpFamily {
        family: RECEIVED,
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.count(labels, row.received()));
        }),
    },
    HttpFamily {
        family: SENT,
        tell: Tell::Row(|row, visitor| {
            with_labels(row, |labels| visitor.count(labels, row.sent()));
        }),
    },
    HttpFamily {
        family: BY_CACHE,
        tell: Tell::Row(|row, visitor| {
            for (outcome, count) in told_by_cache(row) {
                with_labels(row, |labels| {
                    visitor.count(&[labels, &[("outcome", outcome)]].concat(), count);
                });
            }
        }),
    },
];

/// The class of answers that are the service's fault.
const FAILED: &str = "5xx";

/// Whether a class is a series: most routes only ever use two. Failures are one from the beginning, because what begins
/// at its first value has not risen for `rate`, and a route's first failure would go unseen.
fn is_told(class: &str, count: u64) -> bool {
    count > 0 || class == FAILED
}

/// Hits and misses where the cache has anything to do with the row. Always both: a ratio has no value where one of
/// them is no series.
fn told_by_cache(row: &LiveRow) -> impl Iterator<Item = (&'static str, u64)> {
    let outcomes = row.by_cache();
    let any = outcomes.iter().any(|(_, count)| *count > 0);
    outcomes.into_iter().filter(move |_| any)
}

fn keep_labels(row: &LiveRow) -> [Label<'_>; 2] {
    [("route", &row.route), ("method", row.method)]
}

const METHOD: &str = "http_request_method";
const STATUS: &str = "http_response_status_code";

/// Hands on the row's labels: without a route where none was matched. No template is spelled `unmatched`,
/// since all begin with a slash.
fn with_labels(row: &LiveRow, tell: impl FnOnce(&[Label<'_>])) {
    if &*row.route == "unmatched" {
        tell(&[(METHOD, row.method)]);
    } else {
        tell(&[("http_route", &row.route), (METHOD, row.method)]);
    }
}

/// An answer's class, which is the error as well if it is the service's fault.
fn count_class(
    visitor: &mut dyn Visitor,
    labels: &[Label<'_>],
    class: &'static str,
    failed: bool,
    count: u64,
) {
    let more = [(STATUS, class), ("error_type", class)];
    let more = if failed { &more[..] } else { &more[..1] };
    visitor.count(&[labels, more].concat(), count);
}

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
