//! The settings of the metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::metrics::names::MetricNames;
use crate::route::Route;

/// What is measured, and in how much detail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Whether anything is counted at all. If not, the layer passes requests on untouched.
    pub enabled: bool,
    /// A request whose answer's head took longer counts as slow, and so does one that was given up after more. 1 ms
    /// to 1 h.
    #[serde(rename = "slow_request_ms", with = "crate::config_time::millis")]
    pub slow_request: Duration,
    /// How many of the slow requests that were seen last are kept to be looked at; about 150 bytes each. 0 to
    /// 10,000.
    pub slow_requests_kept: usize,
    /// How many route templates are told apart; requests of further ones count under `other`. Each
    /// takes about 3.7 KiB for every method that is used with it, and 0.4 KiB more for each of the three windows
    /// if it is used all the time. 1 to 10,000.
    pub routes_max: usize,
    /// Whether answers carry `Server-Timing: app;dur=<ms>`: the time until the answer's head. It
    /// shows strangers how long the service works on what, hence off by default.
    pub server_timing: bool,
    /// Whether answers carry `X-Response-Time: <ms>ms`, the same time for clients that do not know the other
    /// field. Off by default for the same reason.
    pub response_time: bool,
    /// Path templates for services without axum, such as `/contacts/{id}`. Where axum has matched a
    /// route its template is used instead. A request that matches none counts under `unmatched`.
    pub routes: Vec<String>,
    /// Under which names the figures about requests go out: `keep` or `open_telemetry`. The latter does not
    /// conform in all points: see [`MetricNames`].
    pub names: MetricNames,
    /// The share of requests that [`Keep::span_layer`](crate::Keep::span_layer) opens a `tracing` span for, 0 to 1.
    /// At 0 it does nothing at all; above that it also tells every 5xx and every slow request as an event.
    pub trace_sample: f64,
    /// Whether all figures are handed to the recorder of the `metrics` crate every 10 s. Needs the feature
    /// `metrics-facade`.
    pub facade: bool,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            slow_request: Duration::from_secs(1),
            slow_requests_kept: 100,
            // More than a service of this size has; the cap is there for routers built from data.
            routes_max: 512,
            server_timing: false,
            response_time: false,
            routes: Vec::new(),
            names: MetricNames::Keep,
            trace_sample: 0.0,
            facade: false,
        }
    }
}

impl MetricsConfig {
    /// Notes every value that cannot be meant; fields are named `{room}.field`.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        faults.within_time(
            format!("{room}.slow_request_ms"),
            self.slow_request,
            Duration::from_millis(1)..=Duration::from_secs(3600),
        );
        faults.within(
            format!("{room}.routes_max"),
            self.routes_max,
            1..=10_000,
            "routes",
        );
        faults.within(
            format!("{room}.slow_requests_kept"),
            self.slow_requests_kept,
            0..=10_000,
            "requests",
        );
        let sample = (format!("{room}.trace_sample"), self.trace_sample);
        faults.within(sample.0, sample.1, 0.0..=1.0, "");
        if self.facade && cfg!(not(feature = "metrics-facade")) {
            let allowed = "needs the feature `metrics-facade`";
            faults.add(format!("{room}.facade"), self.facade, allowed);
        }
        if self.routes.len() > self.routes_max {
            let allowed = format!("must be at most routes_max = {}", self.routes_max);
            let met = format!("{} routes", self.routes.len());
            faults.add(format!("{room}.routes"), met, allowed);
        }
        let mut seen = BTreeSet::new();
        let mut together = matchit::Router::new();
        for (index, template) in self.routes.iter().enumerate() {
            let field = format!("{room}.routes[{index}]");
            if let Err(why) = Route::new(template, &[]) {
                faults.add(field, template, why);
            } else if !seen.insert(template) {
                faults.add(field, template, "is there twice");
            } else if let Err(why) = together.insert(template, ()) {
                faults.add(field, template, format!("cannot be told apart: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(config: &MetricsConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("metrics", &mut faults);
        match faults.into_result() {
            Ok(()) => Vec::new(),
            Err(error) => error.faults().iter().map(|f| f.field.clone()).collect(),
        }
    }

    #[test]
    fn the_default_has_no_fault() {
        assert!(faults_of(&MetricsConfig::default()).is_empty());
    }

    #[test]
    fn every_absurd_value_is_a_fault_of_its_own() {
        let config = MetricsConfig {
            slow_request: Duration::ZERO,
            slow_requests_kept: 10_001,
            routes_max: 0,
            routes: vec!["contacts".to_owned()],
            trace_sample: f64::NAN,
            ..MetricsConfig::default()
        };
        assert_eq!(
            faults_of(&config),
            [
                "metrics.slow_request_ms",
                "metrics.routes_max",
                "metrics.slow_requests_kept",
                "metrics.trace_sample",
                "metrics.routes",
                "metrics.routes[0]"
            ]
        );
    }

    #[test]
    fn templates_that_mean_the_same_paths_are_a_fault() {
        let routes = ["/a/{id}", "/a/{id}", "/a/{name}", "/a/new"];
        let config = MetricsConfig {
            routes: routes.map(str::to_owned).to_vec(),
            ..MetricsConfig::default()
        };
        assert_eq!(
            faults_of(&config),
            ["metrics.routes[1]", "metrics.routes[2]"]
        );
    }

    #[test]
    fn a_share_is_at_most_the_whole() {
        for (trace_sample, right) in [
            (0.0, true),
            (0.25, true),
            (1.0, true),
            (1.5, false),
            (-0.1, false),
        ] {
            let config = MetricsConfig {
                trace_sample,
                ..MetricsConfig::default()
            };
            assert_eq!(faults_of(&config).is_empty(), right, "{trace_sample}");
        }
    }

    #[test]
    fn the_configuration_reads_and_writes_milliseconds() {
        let text = "slow_request_ms = 250\nnames = \"open_telemetry\"\ntrace_sample = 0.01";
        let config: MetricsConfig = toml::from_str(text).unwrap();
        assert_eq!(config.slow_request, Duration::from_millis(250));
        assert_eq!(config.names, MetricNames::OpenTelemetry);
        let back: MetricsConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(back, config);
        assert!(toml::from_str::<MetricsConfig>("slow_requests = 1").is_err());
    }
}
