//! The settings of alerts.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::alerts::built_in::built_in;
use crate::alerts::rule::AlertRule;
use crate::error::Faults;

/// What is watched, and how it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Whether anything is judged and told at all.
    pub enabled: bool,
    /// How often all rules are judged: 100 ms to 10 min. A round takes some microseconds for each route and
    /// method that is in use, and one for each rule.
    #[serde(rename = "every_ms", with = "crate::config_time::millis")]
    pub every: Duration,
    /// Whether the built-in rules are among them; see the [room](crate::alerts) for which those are.
    pub built_in: bool,
    /// Names of rules that are not judged: the way to be rid of one built-in rule. At most 1,000.
    pub off: Vec<String>,
    /// Rules beside the built-in ones, or in their place where they have their names. At most 1,000.
    pub rules: Vec<AlertRule>,
    /// How many alerts may wait for each handler: 1 to 100,000. Where there are more rules than that, as many as
    /// there are rules, so that the last word about each can wait.
    pub queue: usize,
    /// How long a handler may take for one alert: 10 ms to 5 min. It is tried three times.
    #[serde(rename = "handler_timeout_ms", with = "crate::config_time::millis")]
    pub handler_timeout: Duration,
    /// What this instance is called in alerts, at most 128 bytes. If it is empty, a stack takes
    /// the name of its health board (`health.instance`), and an engine on its own a random one.
    pub instance: String,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            every: Duration::from_secs(10),
            built_in: true,
            off: Vec::new(),
            rules: Vec::new(),
            queue: 256,
            handler_timeout: Duration::from_secs(10),
            instance: String::new(),
        }
    }
}

impl AlertsConfig {
    /// The rules that are in force, each name once: the built-in ones, those given, without those that are off. A
    /// stack's `queue_long` goes by its `guard.queue`; here it is that of a queue without an end.
    #[must_use]
    pub fn in_force(&self) -> Vec<AlertRule> {
        self.in_force_for(usize::MAX)
    }

    /// The same for a guard whose queue has so many places.
    pub(crate) fn in_force_for(&self, places: usize) -> Vec<AlertRule> {
        let mut rules: Vec<AlertRule> = Vec::new();
        let built_in = if self.built_in {
            built_in(places)
        } else {
            Vec::new()
        };
        for rule in built_in.iter().chain(&self.rules) {
            match rules.iter_mut().find(|other| other.name == rule.name) {
                Some(other) => other.clone_from(rule),
                None => rules.push(rule.clone()),
            }
        }
        rules.retain(|rule| !self.off.contains(&rule.name));
        rules
    }

    /// Notes every value that cannot be meant; fields are named `{room}.field`.
    pub fn check(&self, room: &str, faults: &mut Faults) {
        let field = |name: &str| format!("{room}.{name}");
        let ms = Duration::from_millis;
        faults.within_time(field("every_ms"), self.every, ms(100)..=ms(600_000));
        faults.within(field("queue"), self.queue, 1..=100_000, "alerts");
        let patience = ms(10)..=ms(300_000);
        faults.within_time(field("handler_timeout_ms"), self.handler_timeout, patience);
        for (name, count) in [("rules", self.rules.len()), ("off", self.off.len())] {
            faults.within(field(name), count, 0..=1_000, "rules");
        }
        if self.instance.len() > 128 || self.instance.chars().any(char::is_control) {
            let allowed = "must be at most 128 bytes without control characters";
            faults.add(field("instance"), format!("{:?}", self.instance), allowed);
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check(&format!("{room}.rules[{index}]"), faults);
        }
        self.check_off(room, faults);
    }

    fn check_off(&self, room: &str, faults: &mut Faults) {
        let known = built_in(0).into_iter().map(|rule| rule.name);
        let known: BTreeSet<_> = known
            .chain(self.rules.iter().map(|rule| rule.name.clone()))
            .collect();
        for (index, name) in self.off.iter().enumerate() {
            if !known.contains(name) {
                let names: Vec<_> = known.iter().map(String::as_str).collect();
                let allowed = format!("must be a rule's name: {}", names.join(", "));
                faults.add(format!("{room}.off[{index}]"), format!("{name:?}"), allowed);
            }
        }
    }

    /// Notes every rule for a route that the service does not have, where its routes are known.
    pub(crate) fn check_routes(&self, room: &str, routes: &[String], faults: &mut Faults) {
        if routes.is_empty() {
            return;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            if let Some(route) = rule.route.as_ref().filter(|route| !routes.contains(route)) {
                let allowed = "must be one of routes";
                let field = format!("{room}.rules[{index}].route");
                faults.add(field, format!("{route:?}"), allowed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::measure::Measure;
    use crate::alerts::rule::Comparison;
    use crate::alerts::severity::Severity;

    fn faults(config: &AlertsConfig) -> Vec<String> {
        let mut faults = Faults::new();
        config.check("alerts", &mut faults);
        config.check_routes("alerts", &["/a".to_owned()], &mut faults);
        let error = faults.into_error();
        let shown = error.faults().iter().map(|fault| {
            assert!(!fault.value.is_empty() && !fault.allowed.is_empty());
            fault.field.clone()
        });
        shown.collect()
    }

    #[test]
    fn the_defaults_and_all_built_in_rules_are_without_fault() {
        assert_eq!(faults(&AlertsConfig::default()), Vec::<String>::new());
        let written_out = AlertsConfig {
            rules: built_in(0),
            ..AlertsConfig::default()
        };
        assert_eq!(faults(&written_out), Vec::<String>::new());
        let rules = AlertsConfig::default().in_force();
        let names: BTreeSet<_> = rules.iter().map(|rule| &rule.name).collect();
        assert_eq!(names.len(), rules.len());
        assert!(rules.iter().all(|rule| !rule.advice.is_empty()));
        let text = toml::to_string(&written_out).unwrap();
        assert_eq!(toml::from_str::<AlertsConfig>(&text).unwrap(), written_out);
    }

    #[test]
    fn a_rule_of_the_same_name_takes_a_built_in_ones_place_and_off_is_off() {
        let mine = AlertRule::above("errors", Measure::ErrorRatio, 0.5);
        let config = AlertsConfig {
            rules: vec![mine.clone()],
            off: vec!["slow_queries".to_owned()],
            ..AlertsConfig::default()
        };
        let rules = config.in_force();
        assert_eq!(rules.len(), built_in(0).len() - 1);
        assert!(rules.contains(&mine));
        let alone = AlertsConfig {
            built_in: false,
            ..config
        };
        assert_eq!(alone.in_force(), [mine]);
    }

    #[test]
    fn every_wrong_value_of_a_rule_is_named() {
        type Spoil = fn(&mut AlertRule);
        let second = Duration::from_secs;
        let spoils: [(Spoil, &str); 14] = [
            (|rule| rule.name = String::new(), "name"),
            (|rule| rule.name = "A b".to_owned(), "name"),
            (|rule| rule.name = "a".repeat(65), "name"),
            (|rule| rule.threshold = f64::INFINITY, "threshold"),
            (|rule| rule.resolve = Some(0.6), "resolve"),
            (|rule| rule.resolve = Some(f64::NAN), "resolve"),
            (|rule| rule.comparison = Comparison::Below, "resolve"),
            (|rule| rule.measure = Measure::Lag, "route"),
            (|rule| rule.route = Some("/b".to_owned()), "route"),
            (|rule| rule.lasting = Duration::from_secs(90_000), "for_ms"),
            (|rule| rule.cooldown = Duration::MAX, "cooldown_ms"),
            (
                |rule| rule.escalate_after = Some(Duration::from_millis(999)),
                "escalate_after_ms",
            ),
            (
                |rule| rule.escalate_after = Some(Duration::MAX),
                "escalate_after_ms",
            ),
            (
                |rule| rule.severity = Severity::Emergency,
                "escalate_after_ms",
            ),
        ];
        for (spoil, field) in spoils {
            let mut rule = AlertRule {
                route: Some("/a".to_owned()),
                resolve: Some(0.4),
                escalate_after: Some(second(1)),
                ..AlertRule::above("a", Measure::ErrorRatio, 0.5)
            };
            let config = |rule| AlertsConfig {
                rules: vec![rule],
                ..AlertsConfig::default()
            };
            assert_eq!(faults(&config(rule.clone())), Vec::<String>::new());
            spoil(&mut rule);
            let field = format!("alerts.rules[0].{field}");
            assert_eq!(faults(&config(rule)), [field]);
        }
    }

    #[test]
    fn every_other_wrong_value_is_named() {
        type Spoil = fn(&mut AlertsConfig);
        let spoils: [(Spoil, &str); 7] = [
            (|it| it.every = Duration::from_millis(99), "every_ms"),
            (|it| it.queue = 0, "queue"),
            (
                |it| it.handler_timeout = Duration::MAX,
                "handler_timeout_ms",
            ),
            (|it| it.instance = "a\n".to_owned(), "instance"),
            (|it| it.instance = "a".repeat(129), "instance"),
            (|it| it.off = vec!["nobody".to_owned()], "off[0]"),
            (
                |it| it.rules = vec![AlertRule::above("a", Measure::Lag, 1.0); 1_001],
                "rules",
            ),
        ];
        for (spoil, field) in spoils {
            let mut config = AlertsConfig::default();
            spoil(&mut config);
            assert_eq!(faults(&config), [format!("alerts.{field}")]);
        }
    }
}
