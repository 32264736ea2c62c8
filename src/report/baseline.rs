//! A report boiled down to what later ones are compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::lines::RouteLine;
use crate::report::spoken::unix_ms;
use crate::report::verdict::Report;

/// How a service did once: small (some 100 bytes for each of at most `metrics.routes_max` routes), and readable by later versions.
///
/// Keep it as JSON wherever you like, or by name with [`Keep::save_baseline`](crate::Keep::save_baseline).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The version of this form: 1.
    pub version: u32,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Over which window: `1m`, `5m`, `1h`.
    pub window: String,
    /// The score then.
    pub score: u32,
    /// All requests together.
    pub all: BaselineLine,
    /// All routes that were asked for, by method and template: `GET /reports/{id}`.
    pub routes: BTreeMap<String, BaselineLine>,
    /// Requests that the cache answered.
    pub hits: u64,
    /// Requests that it could have answered.
    pub lookups: u64,
}

/// The figures of some requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BaselineLine {
    /// How many were answered to the end.
    pub answered: u64,
    /// How many of them with 5xx.
    pub errors: u64,
    /// How many came in each second.
    pub per_second: f64,
    /// What 95 % did not exceed, in milliseconds; nothing where there were none.
    pub p95_ms: Option<f64>,
}

/// The form's version. Later ones may add fields, which are ignored here; what they change raises it.
pub(crate) const VERSION: u32 = 1;

impl Report {
    /// What later reports are to be compared with.
    #[must_use]
    pub fn baseline(&self) -> Baseline {
        let seen = &self.observed;
        let routes = seen.routes.iter().chain(&seen.others);
        let routes = routes.map(|line| (named(line), line.into()));
        Baseline {
            version: VERSION,
            at_ms: unix_ms(seen.at),
            window: seen.window.name().to_owned(),
            score: self.score,
            all: (&seen.traffic).into(),
            routes: routes.collect(),
            hits: seen.cache.hits + seen.cache.stale_hits,
            lookups: seen.cache.lookups(),
        }
    }
}

fn named(line: &RouteLine) -> String {
    format!("{} {}", line.method, line.route)
}

impl From<&RouteLine> for BaselineLine {
    fn from(line: &RouteLine) -> Self {
        Self {
            answered: line.answered(),
            errors: line.errors,
            per_second: rounded(line.per_second),
            p95_ms: line.p95.map(|p95| rounded(p95.as_secs_f64() * 1e3)),
        }
    }
}

/// To six places, so that it reads back as what was written: not every parser minds the last bit.
fn rounded(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Window;
    use crate::report::observed::Observed;
    use crate::report::verdict::judge;

    /// The 20 worst are shown; a route that did well is not among them.
    #[test]
    fn a_route_that_did_well_is_in_it_and_can_be_compared_with() {
        let line = |p95| {
            let mut line = RouteLine::named("/well", "GET");
            line.requests = 1000;
            line.p95 = Some(Duration::from_millis(p95));
            line
        };
        let mut seen = Observed::nothing(Window::Hour);
        seen.others.push(line(10));
        let baseline = judge(&seen).baseline();
        let mut seen = Observed::nothing(Window::Hour);
        seen.routes.push(line(500));
        let compared = judge(&seen).compare(&baseline).unwrap();
        let worse: Vec<_> = compared.regressions().map(|it| &*it.scope).collect();
        assert_eq!(worse, ["GET /well"]);
    }

    #[test]
    fn it_survives_being_written_and_read_and_fields_to_come() {
        let mut seen = Observed::nothing(Window::Hour);
        let mut line = RouteLine::named("/reports/{id}", "GET");
        (line.requests, line.cancelled, line.errors) = (120, 20, 3);
        line.p95 = Some(Duration::from_millis(12));
        line.per_second = 151.0 / 3600.0;
        seen.routes.push(line);
        let baseline = judge(&seen).baseline();
        let known = baseline.routes["GET /reports/{id}"];
        assert_eq!((known.answered, known.p95_ms), (100, Some(12.0)));
        assert_eq!(known.per_second, 0.041_944);
        let mut written = serde_json::to_value(&baseline).unwrap();
        written["later"] = 1.into();
        assert_eq!(
            serde_json::from_value::<Baseline>(written).unwrap(),
            baseline
        );
    }
}
