//! A rule: what is looked at, when that is too much, and how loud it is said.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::alerts::machine::{Side, Terms};
use crate::alerts::measure::Measure;
use crate::alerts::severity::Severity;
use crate::error::Faults;
use crate::metrics::Window;

/// When somebody is told of what.
///
/// ```
/// use tower_keep::alerts::AlertRule;
///
/// let rule: AlertRule = toml::from_str(r#"
///     name = "checkout_slow"
///     measure = "response_p95"
///     route = "/checkout"
///     comparison = "above"
///     threshold = 1.5         # seconds
///     resolve = 1.0           # over when it is down there again
///     window = "5m"
///     for_ms = 60000
///     severity = "warning"
///     escalate_after_ms = 600000
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    /// Its name: 1 to 64 of `a-z`, `0-9`, `_`, `-` and `.`. Of two rules of one name the later counts, and
    /// any of them takes the place of a built-in one.
    pub name: String,
    /// What it looks at.
    pub measure: Measure,
    /// The route's template, for measures of requests; all routes without it.
    #[serde(default)]
    pub route: Option<String>,
    /// On which side of the threshold it is too much.
    #[serde(default)]
    pub comparison: Comparison,
    /// From where on it is too much, in the measure's unit: a finite number. The threshold itself is not.
    pub threshold: f64,
    /// From where on it is over; without it from the threshold on. Below the threshold of a rule `above`, above
    /// that of a rule `below`, so that a value in between does not make it flap.
    #[serde(default)]
    pub resolve: Option<f64>,
    /// How long it has to be too much: 0 to 24 h.
    #[serde(default, rename = "for_ms", with = "crate::config_time::millis")]
    pub lasting: Duration,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
    /// For how long after it is over nobody is told that it is there again: 0 to 7 d; 5 min without it.
    #[serde(
        default = "five_minutes",
        rename = "cooldown_ms",
        with = "crate::config_time::millis"
    )]
    pub cooldown: Duration,
    /// After so much time of firing it is one severity worse, after twice as much another one: 1 s to 7 d;
    /// without it never.
    #[serde(
        default,
        rename = "escalate_after_ms",
        with = "crate::config_time::millis_option"
    )]
    pub escalate_after: Option<Duration>,
    /// Below so many requests, asks or queries within the window a ratio or a percentile means nothing, and
    /// there is no value.
    #[serde(default)]
    pub least_count: u64,
    /// How far back measures over a window look: `1m`, `5m` or `1h`; `1m` without it.
    #[serde(
        default = "minute",
        serialize_with = "write_window",
        deserialize_with = "read_window"
    )]
    pub window: Window,
    /// Who speaks where several instances see the same.
    #[serde(default)]
    pub scope: AlertScope,
    /// What to do about it, for whoever is told.
    #[serde(default)]
    pub advice: String,
}

/// On which side of a threshold something is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Comparison {
    /// Above it.
    #[default]
    Above,
    /// Below it.
    Below,
}

/// Who speaks where several instances see the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertScope {
    /// One of them, where they share a Redis; while it is away, each.
    #[default]
    Fleet,
    /// Each for itself: it is about the instance, such as its memory.
    Instance,
}

impl AlertRule {
    /// A warning as soon as `measure` is above `threshold`. What else it says, its fields say.
    #[must_use]
    pub fn above(name: impl Into<String>, measure: Measure, threshold: f64) -> Self {
        Self {
            name: name.into(),
            measure,
            route: None,
            comparison: Comparison::Above,
            threshold,
            resolve: None,
            lasting: Duration::ZERO,
            severity: Severity::Warning,
            cooldown: five_minutes(),
            escalate_after: None,
            least_count: 0,
            window: minute(),
            scope: AlertScope::Fleet,
            advice: String::new(),
        }
    }

    /// A warning as soon as `measure` is below `threshold`.
    #[must_use]
    pub fn below(name: impl Into<String>, measure: Measure, threshold: f64) -> Self {
        Self {
            comparison: Comparison::Below,
            ..Self::above(name, measure, threshold)
        }
    }

    /// Notes every value that cannot be meant; fields are named `{place}.field`.
    pub fn check(&self, place: &str, faults: &mut Faults) {
        let field = |name: &str| format!("{place}.{name}");
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.".contains(c);
        if !(1..=64).contains(&self.name.len()) || !self.name.chars().all(letter) {
            let allowed = "must be 1 to 64 of a-z, 0-9, `_`, `-` and `.`";
            faults.add(field("name"), format!("{:?}", self.name), allowed);
        }
        if !self.threshold.is_finite() {
            faults.add(
                field("threshold"),
                self.threshold,
                "must be a finite number",
            );
        }
        self.check_resolve(field("resolve"), faults);
        if let (Some(route), false) = (&self.route, self.measure.knows_routes()) {
            let allowed = format!("{} is not measured by route", self.measure.name());
            faults.add(field("route"), format!("{route:?}"), allowed);
        }
        if let Measure::Gauge(name) = &self.measure
            && !is_gauge_name(name)
        {
            let allowed = "must be a gauge's name: letters, digits, `_` and `:`";
            faults.add(field("measure.gauge"), format!("{name:?}"), allowed);
        }
        let (none, second, day) = (Duration::ZERO, Duration::from_secs(1), DAY);
        faults.within_time(field("for_ms"), self.lasting, none..=day);
        faults.within_time(field("cooldown_ms"), self.cooldown, none..=7 * day);
        if let Some(after) = self.escalate_after {
            faults.within_time(field("escalate_after_ms"), after, second..=7 * day);
            if self.severity.worse().is_none() {
                let allowed = "nothing is worse than an emergency";
                faults.add(field("escalate_after_ms"), format!("{after:?}"), allowed);
            }
        }
    }

    fn check_resolve(&self, field: String, faults: &mut Faults) {
        let Some(resolve) = self.resolve else { return };
        let (fits, allowed) = match self.comparison {
            Comparison::Above => (resolve <= self.threshold, "must be at most threshold"),
            Comparison::Below => (resolve >= self.threshold, "must be at least threshold"),
        };
        if !fits || !resolve.is_finite() {
            faults.add(field, resolve, format!("{allowed} = {}", self.threshold));
        }
    }

    /// Where a value lies.
    pub(crate) fn side(&self, value: f64) -> Side {
        let resolve = self.resolve.unwrap_or(self.threshold);
        let (beyond, within) = match self.comparison {
            Comparison::Above => (value > self.threshold, value <= resolve),
            Comparison::Below => (value < self.threshold, value >= resolve),
        };
        match (beyond, within) {
            (true, _) => Side::Beyond,
            (false, true) => Side::Within,
            (false, false) => Side::Between,
        }
    }

    /// What it says about time and severity, if it is judged `every` so often.
    pub(crate) fn terms(&self, every: Duration) -> Terms {
        Terms {
            wait: self.lasting,
            cooldown: self.cooldown,
            escalate_after: self.escalate_after,
            severity: self.severity,
            step_max: every.saturating_mul(2),
        }
    }
}

/// A metric name of Prometheus.
fn is_gauge_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

const fn minute() -> Window {
    Window::Minute
}

fn write_window<S: Serializer>(window: &Window, serializer: S) -> Result<S::Ok, S::Error> {
    window.serialize(serializer)
}

fn read_window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Window, D::Error> {
    let name = String::deserialize(deserializer)?;
    let allowed = "must be 1m, 5m or 1h";
    Window::named(&name).ok_or_else(|| serde::de::Error::custom(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_where_a_value_lies() {
        let above = AlertRule {
            resolve: Some(0.7),
            ..AlertRule::above("a", Measure::MemoryRatio, 0.8)
        };
        let below = AlertRule {
            resolve: Some(0.8),
            ..AlertRule::below("b", Measure::HitRatio, 0.7)
        };
        let plain = AlertRule::above("c", Measure::RedisDown, 0.5);
        for (rule, value, side) in [
            (&above, 0.81, Side::Beyond),
            (&above, 0.80, Side::Between),
            (&above, 0.71, Side::Between),
            (&above, 0.70, Side::Within),
            (&below, 0.69, Side::Beyond),
            (&below, 0.70, Side::Between),
            (&below, 0.79, Side::Between),
            (&below, 0.80, Side::Within),
            (&plain, 0.50, Side::Within),
            (&plain, 1.00, Side::Beyond),
        ] {
            assert_eq!(rule.side(value), side, "{} {value}", rule.name);
        }
    }

    #[test]
    fn a_rule_is_read_from_toml_with_little_said() {
        let text = "name = \"q\"\nmeasure.gauge = \"keep_journal_waiting\"\nthreshold = 9";
        let rule: AlertRule = toml::from_str(text).unwrap();
        let expected = AlertRule::above("q", Measure::gauge("keep_journal_waiting"), 9.0);
        assert_eq!(rule, expected);
        let written = toml::to_string(&rule).unwrap();
        assert_eq!(toml::from_str::<AlertRule>(&written).unwrap(), rule);
        for wrong in [
            "window = \"2m\"",
            "for = 1",
            "severity = \"bad\"",
            "for_ms = -1",
        ] {
            assert!(
                toml::from_str::<AlertRule>(&format!("{text}\n{wrong}")).is_err(),
                "{wrong}"
            );
        }
    }
}
