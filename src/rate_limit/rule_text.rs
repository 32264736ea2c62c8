//! A rule as files write it: whole, or a preset and what differs from it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::rate_limit::cost::RequestCost;
use crate::rate_limit::count::Count;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::preset::Preset;
use crate::rate_limit::quota::Quota;
use crate::rate_limit::rule::Rule;
use crate::rate_limit::scope::Scope;

/// Everything that may be said of a rule. Nothing has a default here, so that what a preset says is not
/// overlaid by what was never written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    preset: Option<Preset>,
    name: Option<String>,
    route: Option<String>,
    methods: Option<Vec<String>>,
    scope: Option<Scope>,
    quota: Option<Quota>,
    tiers: Option<BTreeMap<String, Quota>>,
    count: Option<Count>,
    cost: Option<RequestCost>,
    mode: Option<Mode>,
    shadow: Option<bool>,
}

impl RuleText {
    fn into_rule(self) -> Result<Rule, &'static str> {
        let mut rule = match (self.preset, &self.name) {
            (Some(preset), _) => preset.rule(self.route.as_deref())?,
            (None, Some(name)) => Rule {
                route: self.route,
                ..Rule::by_tier(name, BTreeMap::<String, Quota>::new())
            },
            (None, None) => return Err("missing field `name`, or `preset`"),
        };
        // Tiers are replaced as a whole: those of a preset may be none of the service's.
        overlay(&mut rule.name, self.name);
        overlay(&mut rule.methods, self.methods);
        overlay(&mut rule.scope, self.scope);
        overlay(&mut rule.tiers, self.tiers);
        overlay(&mut rule.count, self.count);
        overlay(&mut rule.cost, self.cost);
        overlay(&mut rule.shadow, self.shadow);
        rule.quota = self.quota.or(rule.quota);
        rule.mode = self.mode.or(rule.mode);
        Ok(rule)
    }
}

/// Replaces what is there by what was said, if anything.
fn overlay<T>(place: &mut T, said: Option<T>) {
    if let Some(said) = said {
        *place = said;
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = RuleText::deserialize(deserializer)?;
        text.into_rule().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn read(text: &str) -> Rule {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn fault(text: &str) -> String {
        serde_json::from_str::<Rule>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_rule_reads_from_a_file_and_comes_back() {
        let rule = read(
            r#"{"name": "login", "route": "/login", "methods": ["POST"], "scope": "ip",
                "quota": {"requests": 5, "per_ms": 60000},
                "tiers": {"premium": {"requests": 15, "per_ms": 60000, "burst": 3}},
                "count": "failures", "cost": "one", "mode": "leased", "shadow": true}"#,
        );
        let built = Rule::new("login", Quota::requests(5).per(MINUTE))
            .route("/login")
            .methods([Method::POST])
            .scope(Scope::Ip)
            .tier("premium", Quota::requests(15).per(MINUTE).burst(3))
            .count(Count::Failures)
            .mode(Mode::Leased)
            .shadow(true);
        assert_eq!(rule, built);
        let quota = Quota::requests(5).per(MINUTE);
        let presets = [
            Rule::search("/a"),
            Rule::plans(),
            Rule::authentication("/a"),
        ];
        let others = [
            Rule::new("r", quota).cost(RequestCost::BodyBytes),
            Rule::new("r", quota)
                .cost(RequestCost::Told)
                .scope(Scope::ApiKey),
            Rule::new("r", quota).scope(Scope::Fingerprint),
        ];
        for rule in [built].into_iter().chain(presets).chain(others) {
            let text = serde_json::to_string(&rule).unwrap();
            assert_eq!(read(&text), rule);
            let text = toml::to_string(&rule).unwrap();
            assert_eq!(toml::from_str::<Rule>(&text).unwrap(), rule, "{text}");
        }
    }

    #[test]
    fn a_short_rule_has_the_defaults() {
        let quota = Quota::requests(5).per(MINUTE);
        assert_eq!(
            read(r#"{"name": "all", "quota": {"requests": 5, "per_ms": 60000}}"#),
            Rule::new("all", quota)
        );
        assert_eq!(
            read(r#"{"name": "all", "tiers": {"anonymous": {"requests": 5, "per_ms": 60000}}}"#),
            Rule::by_tier("all", [("anonymous", quota)])
        );
    }

    #[test]
    fn a_preset_is_the_rule_that_code_would_build() {
        for (text, rule) in [
            (
                r#"{"preset": "authentication", "route": "/a"}"#,
                Rule::authentication("/a"),
            ),
            (r#"{"preset": "search", "route": "/a"}"#, Rule::search("/a")),
            (
                r#"{"preset": "crud_read", "route": "/a"}"#,
                Rule::crud_read("/a"),
            ),
            (
                r#"{"preset": "crud_write", "route": "/a"}"#,
                Rule::crud_write("/a"),
            ),
            (
                r#"{"preset": "crud_delete", "route": "/a"}"#,
                Rule::crud_delete("/a"),
            ),
            (r#"{"preset": "public", "route": "/a"}"#, Rule::public("/a")),
            (r#"{"preset": "users"}"#, Rule::users()),
            (
                r#"{"preset": "users", "route": "/a"}"#,
                Rule::users().route("/a"),
            ),
            (r#"{"preset": "plans"}"#, Rule::plans()),
            (
                r#"{"preset": "authentication", "route": "/a", "count": "failures"}"#,
                Rule::authentication("/a").count(Count::Failures),
            ),
        ] {
            assert_eq!(read(text), rule, "{text}");
        }
    }

    #[test]
    fn what_is_said_beside_a_preset_counts() {
        let text = r#"{"preset": "search", "route": "/a", "name": "mine", "methods": ["GET"],
            "scope": "tenant", "quota": {"requests": 1, "per_ms": 60000}, "tiers": {},
            "count": "successes", "cost": "told", "mode": "exact", "shadow": true}"#;
        let mut rule = Rule::new("mine", Quota::requests(1).per(MINUTE))
            .route("/a")
            .methods([Method::GET])
            .scope(Scope::Tenant)
            .count(Count::Successes)
            .cost(RequestCost::Told)
            .mode(Mode::Exact)
            .shadow(true);
        assert_eq!(read(text), rule);
        rule.tiers.clear();
        // What is not said stays as the preset has it.
        let text = r#"{"preset": "search", "route": "/a", "name": "mine"}"#;
        let named = Rule {
            name: "mine".to_owned(),
            ..Rule::search("/a")
        };
        assert_eq!(read(text), named);
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let quota = r#""quota": {"requests": 5, "per_ms": 1}"#;
        for (text, named) in [
            (format!("{{{quota}}}"), "missing field `name`"),
            (
                r#"{"preset": "search"}"#.to_owned(),
                "missing field `route`",
            ),
            (
                r#"{"preset": "serach", "route": "/a"}"#.to_owned(),
                "serach",
            ),
            (
                format!(r#"{{"name": "a", {quota}, "scope": "custom"}}"#),
                "custom",
            ),
            (format!(r#"{{"name": "a", {quota}, "scope": "IP"}}"#), "IP"),
            (
                format!(r#"{{"name": "a", {quota}, "count": "some"}}"#),
                "some",
            ),
            (format!(r#"{{"name": "a", {quota}, "cost": "two"}}"#), "two"),
            (
                format!(r#"{{"name": "a", {quota}, "mode": "fast"}}"#),
                "fast",
            ),
            (format!(r#"{{"name": "a", {quota}, "path": "/"}}"#), "path"),
            (
                format!(r#"{{"name": "a", {quota}, "tiers": {{"b": null}}}}"#),
                "null",
            ),
        ] {
            let fault = fault(&text);
            assert!(fault.contains(named), "{text}: {fault}");
        }
    }
}
