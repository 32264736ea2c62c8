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
