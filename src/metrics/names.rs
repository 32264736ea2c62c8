//! Under which names the figures about requests go out.

use serde::{Deserialize, Serialize};

/// The names and labels of the figures about HTTP requests. All other figures have one name only.
///
/// # What `open_telemetry` is and is not
///
/// The names follow the semantic conventions for HTTP of OpenTelemetry, version 1.45 (those that are stable are
/// so since 1.23), as its Prometheus exporters write them:
///
/// - `http_server_request_duration_seconds{http_route, http_request_method}`, the required and stable
///   `http.server.request.duration`, with exactly the bucket limits that the conventions advise. A request
///   that matched no template has no `http_route`, and an invented method is `_OTHER`, as they ask for.
/// - `http_server_active_requests{http_request_method}`, in development there.
/// - The counters `keep_http_requests_total`, `.._cancelled_total`, `.._unanswered_total` and `.._slow_total` keep
///   their names, because the conventions have none for them, and get the conventions' labels.
///
/// It does **not** conform in these points. Durations are kept by route and method and not by status, so the
/// histogram has neither `http_response_status_code` nor `error_type`; the counter has both, but the class (`2xx`,
/// and `5xx` as the error) in the place of the code. `url_scheme`, which they require, is missing: behind a proxy
/// it is not known here. Templates beyond `routes_max` share the `http_route` `other`. Time is taken to the answer's
/// head. Sizes of bodies are not measured as histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricNames {
    /// `keep_http_requests_total{route, method, status}` and the like.
    #[default]
    Keep,
    /// Those of OpenTelemetry.
    OpenTelemetry,
}
