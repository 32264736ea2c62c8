//! All figures as one text, and the gauges that others add to them.

use std::sync::Arc;

use crate::error::ConfigError;
use crate::metrics::engine::Metrics;
use crate::metrics::exposition::{Exposition, Format, base_name};
use crate::metrics::families::FAMILIES;
use crate::metrics::gauges::Gauge;
use crate::metrics::http_families::http_families;
use crate::metrics::names::MetricNames;
use crate::metrics::walk::Walk;

impl Metrics {
    /// All figures in the text format of Prometheus, version 0.0.4, to be served as
    /// `text/plain; version=0.0.4; charset=utf-8`.
    ///
    /// Takes some 0.7 µs per route and method on the caller's thread, and as much memory as the text is long (about
    /// 2.4 KiB each): [`scrape`](Self::scrape) does neither at once. Counters begin at zero with the process. The
    /// buckets of histograms may put a record on the wrong side of a limit that it is within 5 % of; sums and
    /// counts are exact.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = Exposition::new(Format::Text);
        let mut walk = Walk::new(self);
        while walk.step(&mut text) {}
        text.end();
        text.into_text()
    }

    /// What the gauge `name` shows now; nothing where there is none of that name.
    #[must_use]
    pub fn gauge_value(&self, name: &str) -> Option<f64> {
        self.gauges().read(name)
    }

    /// Shows the figure that `read` returns as the gauge `name`, each time somebody asks. A gauge of
    /// the same name is replaced.
    ///
    /// `read` must be quick and must not block or panic. If it holds a clone of these metrics,
    /// neither is ever freed.
    ///
    /// # Errors
    ///
    /// If `name` is no metric name (`[a-zA-Z_:][a-zA-Z0-9_:]*`), or one that belongs to counters and
    /// histograms by its ending (`_total`, `_bucket`, `_sum`, `_count`, `_created`), or the name of one of the
    /// metrics' own families, with or without that ending: `keep_http_requests_in_flight`, `keep_http_requests`,
    /// `keep_database_wait_seconds`, `http_server_active_requests`, ..
    pub fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), ConfigError> {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
        let spelled =
            name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit());
        let endings = ["_total", "_bucket", "_sum", "_count", "_created"];
        let taken = is_ours(name) || endings.iter().any(|ending| name.ends_with(ending));
        if !spelled || taken {
            let allowed =
                "must be letters, digits, `_` and `:` and no counter's or histogram's name";
            return Err(ConfigError::one("metrics.gauge", name, allowed));
        }
        let read = Arc::new(read);
        self.gauges().put(&Gauge { name, help, read });
        Ok(())
    }
}

/// Whether a family of this room's goes by `name`, in either format and under either set of names.
fn is_ours(name: &str) -> bool {
    let names = [MetricNames::Keep, MetricNames::OpenTelemetry];
    let http = names.into_iter().flat_map(http_families);
    let families = http.map(|told| &told.family);
    let mut families = families.chain(FAMILIES.iter().map(|told| &told.family));
    families.any(|family| name == family.name || name == base_name(family))
}
