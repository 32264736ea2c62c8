//! What can be set about invalidation.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::invalidation::catalog::{Catalog, Reading};
use crate::invalidation::coherency_config::CoherencyConfig;
use crate::invalidation::entity::InvalidationEntity;
use crate::invalidation::plan::Plan;
use crate::invalidation::rule::InvalidationRule;
use crate::journal::SETTLE_MAX;

/// The rules by which requests make entries old.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvalidationConfig {
    /// Whether the layer does anything. What is purged by hand is purged in any case.
    pub enabled: bool,
    /// The most targets that one rule or one change of an entity may lead to, its cascade included: 1 to
    /// 4,096, by default 256. Each is a marker of the record.
    pub fan_out_max: usize,
    /// For databases whose replicas lag: what is computed within this time after an invalidation was heard
    /// of is not stored. 0 (the default) to 60 s.
    #[serde(rename = "settle_ms", with = "crate::config_time::millis")]
    pub settle: Duration,
    /// The rules, at most 1,000. All that match a request are carried out.
    pub rules: Vec<InvalidationRule>,
    /// What can change, by name, at most 1,000: rules change it, and so does
    /// [`Invalidator::changed`](crate::invalidation::Invalidator::changed).
    pub entities: BTreeMap<String, InvalidationEntity>,
    /// Whether what was invalidated is checked to be gone everywhere.
    pub coherency: CoherencyConfig,
}

/// What the configuration says, made ready.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) plans: Vec<Plan>,
    pub(crate) catalog: Catalog,
}

impl Default for InvalidationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            fan_out_max: 256,
            settle: Duration::ZERO,
            rules: Vec::new(),
            entities: BTreeMap::new(),
            coherency: CoherencyConfig::default(),
        }
    }
}

impl InvalidationConfig {
    /// Notes everything that is wrong with the rules, taken by themselves. Whether their routes are
    /// routes of the service is for [`Invalidator::new`](crate::invalidation::Invalidator::new).
    pub fn check(&self, room: &str, faults: &mut Faults) {
        self.compile(room, faults);
        self.coherency.check(&format!("{room}.coherency"), faults);
    }

    /// The rules and entities that are right, ready to be matched and changed; faults for the others.
    pub(crate) fn compile(&self, room: &str, faults: &mut Faults) -> Compiled {
        let fan_out_max = format!("{room}.fan_out_max");
        faults.within(fan_out_max, self.fan_out_max, FAN_OUT, "targets");
        let settles = Duration::ZERO..=SETTLE_MAX;
        faults.within_time(format!("{room}.settle_ms"), self.settle, settles);
        let fan_out_max = self.fan_out_max.clamp(*FAN_OUT.start(), *FAN_OUT.end());
        let (rules, entities) = (format!("{room}.rules"), format!("{room}.entities"));
        faults.within(&*rules, self.rules.len(), 0..=RULES_MAX, "rules");
        let reading = Reading::of(&self.entities, fan_out_max, &entities, faults);
        let compiled = |(at, rule): (usize, &InvalidationRule)| {
            Plan::compile(rule, &format!("{rules}[{at}]"), &reading, faults)
        };
        let plans = self.rules.iter().enumerate().filter_map(compiled).collect();
        let catalog = reading.catalog(&entities, faults);
        Compiled { plans, catalog }
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

/// Over 4,096 the record of a single change would take up a good part of what the journal remembers.
const FAN_OUT: RangeInclusive<usize> = 1..=4_096;

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

    /// A contact of an organization, as its text.
    const CONTACTS: &str = r#"
        fan_out_max = 16

        [[rules]]
        route = "/contacts/{id}"
        supplied = ["organization_id"]
        changes = [{ entity = "contact" }]

        [[rules]]
        route = "/organizations/{number}"
        changes = [{ entity = "organization", with = { id = "{{number}}" } }]

        [entities.contact]
        variables = ["id", "organization_id"]
        paths = ["/contacts/{{id}}"]
        tags = ["contact:{{id}}"]
        cascades = [{ entity = "organization", with = { id = "{{organization_id}}" } }]

        [entities.organization]
        variables = ["id"]
        patterns = ["/search?*organization={{id}}*"]
    "#;

    #[test]
    fn entities_read_from_text_and_write_back() {
        let config: InvalidationConfig = toml::from_str(CONTACTS).unwrap();
        let built = InvalidationConfig {
            fan_out_max: 16,
            rules: vec![
                InvalidationRule::new("/contacts/{id}")
                    .supplied(["organization_id"])
                    .changes("contact", []),
                InvalidationRule::new("/organizations/{number}")
                    .changes("organization", [("id", "{{number}}")]),
            ],
            entities: BTreeMap::from([
                (
                    "contact".to_owned(),
                    InvalidationEntity::new(["id", "organization_id"])
                        .paths(["/contacts/{{id}}"])
                        .tags(["contact:{{id}}"])
                        .cascade("organization", [("id", "{{organization_id}}")]),
                ),
                (
                    "organization".to_owned(),
                    InvalidationEntity::new(["id"]).patterns(["/search?*organization={{id}}*"]),
                ),
            ]),
            ..InvalidationConfig::default()
        };
        assert_eq!(config, built);
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        faults.into_result().unwrap();
        let written = toml::to_string(&config).unwrap();
        assert_eq!(
            toml::from_str::<InvalidationConfig>(&written).unwrap(),
            config
        );
        for (known, typo) in [
            ("variables", "variable"),
            ("cascades = [{ entity", "cascades = [{ entities"),
            ("with", "where"),
            ("supplied", "supplies"),
        ] {
            let text = CONTACTS.replace(known, typo);
            assert!(
                toml::from_str::<InvalidationConfig>(&text).is_err(),
                "{typo}"
            );
        }
    }

    /// The first fault of `config`.
    fn fault(config: &InvalidationConfig) -> crate::error::Fault {
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        faults.into_result().unwrap_err().faults()[0].clone()
    }

    /// Asserts the first fault of a configuration: its place, its value and what it says.
    #[track_caller]
    fn tells(config: &InvalidationConfig, place: &str, value: &str, says: &str) {
        let fault = fault(config);
        let place = format!("invalidation.{place}");
        assert_eq!((&*fault.field, &*fault.value), (&*place, value), "{fault}");
        assert!(fault.allowed.contains(says), "{fault} does not say {says}");
    }

    /// The entity `a`, beside a `b` that is right.
    fn beside(a: InvalidationEntity) -> InvalidationConfig {
        let b = InvalidationEntity::new(["id"]).tags(["b:{{id}}"]);
        InvalidationConfig {
            entities: BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]),
            ..InvalidationConfig::default()
        }
    }

    fn of_id() -> InvalidationEntity {
        InvalidationEntity::new(["id"]).tags(["a:{{id}}"])
    }

    #[test]
    fn every_fault_of_an_entitys_targets_names_its_place_and_its_value() {
        for (entity, field, value, says) in [
            (of_id().tags(["a:{{x}}"]), ".tags[0]", "a:{{x}}", "has `id`"),
            (
                of_id().tags(["{{header.x}}"]),
                ".tags[0]",
                "{{header.x}}",
                "rules alone",
            ),
            (of_id().paths(["x"]), ".paths[0]", "x", "begin with `/`"),
            (of_id().patterns(["*"]), ".patterns[0]", "*", "everything"),
            (
                of_id().patterns([r"a\{{id}}"]),
                ".patterns[0]",
                r"a\{{id}}",
                "escape",
            ),
            (of_id().tags(["a"; 65]), "", "65", "0 to 64 targets"),
            (
                InvalidationEntity::new(["id"]),
                "",
                "nothing",
                "no other that changes",
            ),
        ] {
            tells(&beside(entity), &format!("entities.a{field}"), value, says);
        }
    }

    #[test]
    fn every_fault_of_a_variables_name_tells_it() {
        for (names, at, says) in [
            (["a", ""], 1, "name of a variable"),
            (["a ", "b"], 0, "space"),
            (["{a", "b"], 0, "braces"),
            (["a", "a"], 1, "twice"),
            (["header.a", "b"], 0, "header field"),
        ] {
            let value = format!("{:?}", names[at]);
            let entity = InvalidationEntity::new(names).tags(["x"]);
            let place = format!("entities.a.variables[{at}]");
            tells(&beside(entity), &place, &value, says);
            let rules = vec![InvalidationRule::new("/a").supplied(names).tags(["x"])];
            let config = InvalidationConfig {
                rules,
                ..InvalidationConfig::default()
            };
            tells(&config, &format!("rules[0].supplied[{at}]"), &value, says);
        }
    }

    #[test]
    fn every_fault_of_a_cascade_names_its_place_and_its_value() {
        let to_b = |with| of_id().cascade("b", [with]);
        let many = (0..65).fold(of_id(), |all, _| all.cascade("b", []));
        let of_x = InvalidationEntity::new(["x"]);
        for (entity, field, value, says) in [
            (many, ".cascades", "65", "0 to 64"),
            (
                of_id().cascade("c", []),
                ".cascades[0].entity",
                "c",
                "has `a`, `b`",
            ),
            (
                of_x.cascade("b", []),
                ".cascades[0]",
                "b",
                "its variable `id` without a value",
            ),
            (
                to_b(("id", "{{x}}")),
                ".cascades[0].with.id",
                "{{x}}",
                "has `id`",
            ),
            (to_b(("id", "")), ".cascades[0].with.id", "", "empty"),
            (
                to_b(("id", "{{")),
                ".cascades[0].with.id",
                "{{",
                "without `}}`",
            ),
            (
                to_b(("ids", "1")),
                ".cascades[0].with.ids",
                "1",
                "`b` has `id`",
            ),
            (of_id().cascade("a", []), ".cascades", "a -> a", "loop"),
            (to_b(("id", "\n")), "", "b:\n", "control"),
        ] {
            tells(&beside(entity), &format!("entities.a{field}"), value, says);
        }
    }

    #[test]
    fn every_fault_of_what_a_rule_changes_names_its_place_and_its_value() {
        let rule = || InvalidationRule::new("/a/{number}");
        let to_b = |with| rule().changes("b", [with]);
        for (rule, field, value, says) in [
            (
                rule().changes("c", []),
                ".changes[0].entity",
                "c",
                "has `a`, `b`",
            ),
            (
                rule().changes("b", []),
                ".changes[0]",
                "b",
                "its variable `id` without",
            ),
            (
                to_b(("id", "{{y}}")),
                ".changes[0].with.id",
                "{{y}}",
                "`supplied`",
            ),
            (to_b(("y", "1")), ".changes[0].with.y", "1", "`b` has `id`"),
            (
                to_b(("id", "{{header.a b}}")),
                ".changes[0].with.id",
                "{{header.a b}}",
                "a header",
            ),
            (to_b(("id", "a\nb")), "", "b:a\nb", "control"),
            (rule(), "", "nothing", "no entity that changes"),
        ] {
            let mut config = beside(of_id());
            config.rules = vec![rule];
            tells(&config, &format!("rules[0]{field}"), value, says);
        }
    }

    #[test]
    fn a_loop_is_told_with_its_way_and_with_the_faults_of_rules() {
        let config = InvalidationConfig {
            rules: vec![InvalidationRule::new("/a").changes("contact", [])],
            entities: BTreeMap::from([
                (
                    "contact".to_owned(),
                    InvalidationEntity::new(["id"]).cascade("organization", []),
                ),
                (
                    "organization".to_owned(),
                    InvalidationEntity::new(["id"]).cascade("contact", []),
                ),
            ]),
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        let text = faults.into_result().unwrap_err().to_string();
        let expected = "invalid configuration\n  invalidation.entities.contact.cascades = \
                        contact -> organization -> contact: is a loop: a cascade has an end\n  \
                        invalidation.rules[0].changes[0] = contact: leaves its variable `id` \
                        without a value: say `with` what";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_fan_out_over_its_bound_is_a_fault_of_rule_and_entity() {
        let mut config = InvalidationConfig {
            fan_out_max: 3,
            rules: vec![InvalidationRule::new("/a").tags(["1"]).changes("a", [])],
            entities: BTreeMap::from([(
                "a".to_owned(),
                InvalidationEntity::new([""; 0]).tags(["1", "2", "3"]),
            )]),
            ..InvalidationConfig::default()
        };
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        assert!(faults.is_empty(), "the tag `1` is one target: {faults:?}");
        config.fan_out_max = 2;
        let mut faults = Faults::new();
        config.check("invalidation", &mut faults);
        let error = faults.into_result().unwrap_err();
        let fields: Vec<_> = error.faults().iter().map(|fault| &*fault.field).collect();
        assert_eq!(
            fields,
            ["invalidation.rules[0]", "invalidation.entities.a"],
            "{error}"
        );
        for (most, is_right) in [(0, false), (1, true), (4_096, true), (4_097, false)] {
            let config = InvalidationConfig {
                fan_out_max: most,
                ..InvalidationConfig::default()
            };
            let mut faults = Faults::new();
            config.check("invalidation", &mut faults);
            assert_eq!(faults.is_empty(), is_right, "{most}");
        }
    }
}
