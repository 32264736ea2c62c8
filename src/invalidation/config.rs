//! What can be set about invalidation.

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::invalidation::plan::Plan;
use crate::invalidation::rule::InvalidationRule;

/// The rules by which requests make entries old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvalidationConfig {
    /// Whether the layer does anything. What is purged by hand is purged in any case.
    pub enabled: bool,
    /// The rules, at most 1,000. All that match a request are carried out.
    pub rules: Vec<InvalidationRule>,
}

impl Default for InvalidationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            rules: Vec::new(),
        }
    }
}

impl InvalidationConfig {
    /// Notes everything that is wrong with the rules, taken by themselves. Whether their routes are
    /// routes of the service is for [`Invalidator::new`](crate::invalidation::Invalidator::new).
    pub fn check(&self, room: &str, faults: &mut Faults) {
        self.compile(room, faults);
    }

    /// The rules that are right, ready to be matched; faults for the others.
    pub(crate) fn compile(&self, room: &str, faults: &mut Faults) -> Vec<Plan> {
        let rules = format!("{room}.rules");
        faults.within(&*rules, self.rules.len(), 0..=RULES_MAX, "rules");
        self.rules
            .iter()
            .enumerate()
            .filter_map(|(at, rule)| Plan::compile(rule, &format!("{rules}[{at}]"), faults))
            .collect()
    }

    /// Notes the rules whose route is none of `known`. An empty list knows nothing and finds nothing.
    pub(crate) fn check_routes(&self, room: &str, known: &[String], faults: &mut Faults) {
        if known.is_empty() {
            return;
        }
        let some = known.iter().take(ROUTES_TOLD).map(String::as_str);
        let mut told = some.collect::<Vec<_>>().join(", ");
        if known.len() > ROUTES_TOLD {
            told.push_str(", ..");
        }
        for (at, rule) in self.rules.iter().enumerate() {
            if !known.contains(&rule.route) {
                let field = format!("{room}.rules[{at}].route");
                let allowed = format!("must be a route of the service: {told}");
                faults.add(field, &rule.route, allowed);
            }
        }
    }
}

/// Every unsafe request is matched with every rule.
const RULES_MAX: usize = 1_000;

/// More routes than these make a fault unreadable.
const ROUTES_TOLD: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_reads_from_text_and_has_defaults() {
        let text = r#"
            [[rules]]
            route = "/contacts/{id}"
            tags = ["contacts"]
        "#;
        let config: InvalidationConfig = toml::from_str(text).unwrap();
        let rule = InvalidationRule::new("/contacts/{id}").tags(["contacts"]);
        assert_eq!(config.rules, [rule]);
        assert!(config.enabled);
        assert_eq!(config.rules[0].methods, ["POST", "PUT", "PATCH", "DELETE"]);
        assert!(toml::from_str::<InvalidationConfig>("rule = []").is_err());
    }

    #[test]
    fn every_fault_of_every_rule_is_found_at_once() {
        let good = || InvalidationRule::new("/contacts/{id}").tags(["contacts"]);
        let long = "x".repeat(257);
        let cases: Vec<(InvalidationRule, &str, &str)> = vec![
            (good().tags(["a:{{x}}"]), "tags[0]", "has `id`"),
            (good().tags(["ok", "a:{{"]), "tags[1]", "without `}}`"),
            (
                good().tags(["{{header.a b}}"]),
                "tags[0]",
                "name of a header",
            ),
            (good().tags([""]), "tags[0]", "empty"),
            (good().tags(["/{{id}}"]), "tags[0]", "begin with `/`"),
            (good().tags([&*long]), "tags[0]", "256"),
            (good().paths(["contacts"]), "paths[0]", "begin with `/`"),
            (good().paths(["{{id}}"]), "paths[0]", "begin with `/`"),
            (good().paths(["/contacts?page=1"]), "paths[0]", "no query"),
            (good().paths(["/contacts/*"]), "paths[0]", "`patterns`"),
            (good().patterns(["**"]), "patterns[0]", "everything"),
            (good().patterns(["{{id}}\\"]), "patterns[0]", "at the end"),
            (good().methods(["GET"]), "methods[0]", "safe"),
            (good().methods(["PUT", "OPTIONS"]), "methods[1]", "safe"),
            (good().methods(["put"]), "methods[0]", "capitals"),
            (good().methods(["P T"]), "methods[0]", "no method"),
            (good().methods([""; 0]), "methods", "at least one"),
            (good().tags([""; 0]), "", "names nothing to purge"),
            (good().tags(["a"; 65]), "", "64"),
            (
                InvalidationRule::new("contacts").tags(["a"]),
                "route",
                "begins with `/`",
            ),
            (
                InvalidationRule::new("/{a").tags(["{{b}}"]),
                "route",
                "no path template",
            ),
        ];
        let rules = cases.iter().map(|(rule, ..)| rule.clone()).collect();
        let config = InvalidationConfig {
            rules,
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        let error = faults.into_result().unwrap_err();
        for ((at, (_, field, says)), fault) in cases.iter().enumerate().zip(error.faults()) {
            let dot = if field.is_empty() { "" } else { "." };
            let place = format!("invalidation.rules[{at}]{dot}{field}");
            assert_eq!(fault.field, place, "{fault}");
            assert!(fault.allowed.contains(says), "{fault} does not say {says}");
        }
        assert_eq!(error.faults().len(), cases.len(), "{error}");
    }

    #[test]
    fn a_rule_may_have_several_faults() {
        let rule = InvalidationRule::new("/contacts/{id}")
            .methods(["GET", "put"])
            .paths(["x"])
            .tags(["{{a}}{{b}}"]);
        let config = InvalidationConfig {
            rules: vec![rule],
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        assert_eq!(faults.into_result().unwrap_err().faults().len(), 5);
    }

    #[test]
    fn more_rules_than_the_bound_are_a_fault() {
        let rule = InvalidationRule::new("/a").tags(["a"]);
        let config = InvalidationConfig {
            rules: vec![rule; RULES_MAX + 1],
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        assert_eq!(faults.into_result().unwrap_err().faults().len(), 1);
    }

    #[test]
    fn a_route_that_the_service_lacks_is_a_fault_where_the_routes_are_known() {
        let config = InvalidationConfig {
            rules: vec![
                InvalidationRule::new("/a").tags(["a"]),
                InvalidationRule::new("/b").tags(["b"]),
            ],
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check_routes("invalidation", &[], &mut faults);
        assert!(faults.is_empty());
        config.check_routes("invalidation", &["/a".to_owned()], &mut faults);
        let error = faults.into_result().unwrap_err();
        let text = "invalid configuration\n  invalidation.rules[1].route = /b: \
                    must be a route of the service: /a";
        assert_eq!(error.to_string(), text);
    }
}
