//! A rule: which requests it speaks of, whom it counts them against, and how many it lets through.

use std::collections::BTreeMap;

use http::Method;
use serde::Serialize;

use crate::error::Faults;
use crate::identity::TIER_ANONYMOUS;
use crate::rate_limit::cost::RequestCost;
use crate::rate_limit::count::Count;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::quota::{Quota, QuotaFields};
use crate::rate_limit::scope::Scope;
use crate::route::Route;

/// The longest name of a rule or a tier.
const NAME_BYTES_MAX: usize = 64;

/// A rule of the limiter. All rules that speak of a request must let it through.
///
/// ```
/// use std::time::Duration;
/// use http::Method;
/// use tower_keep::rate_limit::{Quota, Rule, Scope};
///
/// let hour = Duration::from_secs(3600);
/// let rule = Rule::new("login", Quota::requests(5).per(hour))
///     .route("/login")
///     .methods([Method::POST])
///     .scope(Scope::Ip)
///     .tier("premium", Quota::requests(15).per(hour));
/// # let _ = rule;
/// ```
///
/// In files: `{"name": "login", "route": "/login", "methods": ["POST"], "scope": "ip",
/// "quota": {"requests": 5, "per_ms": 3600000}, "tiers": {"premium": {..}}, "count": "failures",
/// "cost": "one", "mode": "exact", "shadow": false}`, of which `name` and a `quota` or `tiers` must be
/// given; or a preset with what differs, `{"preset": "search", "route": "/notes/search"}`. The presets are
/// `authentication`, `search`, `crud_read`, `crud_write`, `crud_delete`, `public`, `users` and `plans`: see
/// [`Rule::search`] and the others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// Tells the rule from all others, in header fields, figures and Redis: 1 to 64 printable ASCII
    /// characters other than `"` and `\`. Buckets go by it: a rule that is given another name begins anew.
    pub name: String,
    /// The path template that it speaks of, as axum writes them; all paths if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The methods that it speaks of; all if none. `GET` includes `HEAD`, which runs the same
    /// handlers.
    pub methods: Vec<String>,
    /// Whom it counts against; by default the caller, or the client's IP if nobody has signed in.
    pub scope: Scope,
    /// How many it lets through, unless the caller's tier has another quota. Without it only `tiers` have
    /// quotas: then `anonymous` and all of
    /// [`known_tiers`](crate::rate_limit::RateLimitConfig::known_tiers) must have one, and a caller of a
    /// tier that is none of them gets the smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
    /// Quotas by tier. Requests nobody has signed in for are of tier `anonymous`. A caller that
    /// changes tiers keeps its bucket, with what was used up of it in time; a tenant, an address and whatever
    /// else may stand for several people has a bucket for each tier among them.
    pub tiers: BTreeMap<String, Quota>,
    /// Which requests stay counted, told by their answers; all by default.
    pub count: Count,
    /// How many tokens of the quota a request takes; one by default.
    pub cost: RequestCost,
    /// How exactly a fleet counts together, if not as the configuration's `mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Whether it only watches: it counts and tells events, but lets everything through.
    pub shadow: bool,
}

impl Rule {
    /// A rule for all requests, per caller.
    #[must_use]
    pub fn new(name: impl Into<String>, quota: Quota) -> Self {
        Self {
            quota: Some(quota),
            ..Self::by_tier(name, BTreeMap::<String, Quota>::new())
        }
    }

    /// A rule for all requests, per caller, with quotas for these tiers only. `anonymous` must be among
    /// them, and all known tiers if those are configured.
    #[must_use]
    pub fn by_tier<T: Into<String>>(
        name: impl Into<String>,
        tiers: impl IntoIterator<Item = (T, Quota)>,
    ) -> Self {
        let tiers = tiers.into_iter();
        Self {
            name: name.into(),
            route: None,
            methods: Vec::new(),
            scope: Scope::default(),
            quota: None,
            tiers: tiers.map(|(tier, quota)| (tier.into(), quota)).collect(),
            count: Count::default(),
            cost: RequestCost::default(),
            mode: None,
            shadow: false,
        }
    }

    /// The same rule for paths of this template only.
    #[must_use]
    pub fn route(mut self, template: impl Into<String>) -> Self {
        self.route = Some(template.into());
        self
    }

    /// The same rule for these methods only.
    #[must_use]
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        let methods = methods.into_iter();
        self.methods = methods.map(|method| method.as_str().to_owned()).collect();
        self
    }

    /// The same rule, counted against this scope.
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The same rule with another quota for callers of `tier`.
    #[must_use]
    pub fn tier(mut self, tier: impl Into<String>, quota: Quota) -> Self {
        self.tiers.insert(tier.into(), quota);
        self
    }

    /// The same rule, which keeps only these requests counted.
    #[must_use]
    pub fn count(mut self, count: Count) -> Self {
        self.count = count;
        self
    }

    /// The same rule, whose requests take this many tokens.
    #[must_use]
    pub fn cost(mut self, cost: RequestCost) -> Self {
        self.cost = cost;
        self
    }

    /// The same rule, counted over a fleet in this way.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The same rule, watching only or enforced.
    #[must_use]
    pub const fn shadow(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }

    /// Notes what is wrong with the rule, which stands at `path` in its configuration.
    pub(crate) fn check(&self, path: &str, known_tiers: &[String], faults: &mut Faults) {
        if !is_name(&self.name) {
            let allowed = "must be 1 to 64 printable ASCII characters other than \" and \\";
            faults.add(format!("{path}.name"), format!("{:?}", self.name), allowed);
        }
        if let Some(template) = &self.route
            && let Err(wrong) = Route::new(template, &[])
        {
            faults.add(format!("{path}.route"), template, wrong);
        }
        for (at, method) in self.methods.iter().enumerate() {
            if parse_method(method).is_none() {
                let allowed = "must be a method like GET, in capitals";
                faults.add(
                    format!("{path}.methods[{at}]"),
                    format!("{method:?}"),
                    allowed,
                );
            }
        }
        match &self.quota {
            Some(quota) => quota.check(QuotaFields::at(&format!("{path}.quota")), faults),
            None => self.check_every_tier(path, known_tiers, faults),
        }
        let known = (self.quota.as_ref(), known_tiers);
        check_tiers(&self.tiers, known, path, faults);
        if self.cost.is_known_late() && self.count != Count::All {
            let allowed = format!(
                "contradicts the cost {:?}, which is known only after the answer: count all, and let \
                 the handler tell a cost of 0 for what does not count",
                self.cost.name()
            );
            faults.add(format!("{path}.count"), self.count.name(), allowed);
        }
    }

    /// Notes every tier for which a rule without a quota of its own has none either.
    fn check_every_tier(&self, path: &str, known_tiers: &[String], faults: &mut Faults) {
        let known = known_tiers.iter().map(String::as_str);
        for tier in known.chain([TIER_ANONYMOUS]) {
            if !self.tiers.contains_key(tier) {
                let allowed = "tier without quota: must be among the tiers, or the rule must have a \
                               quota for all others";
                faults.add(format!("{path}.tiers"), tier, allowed);
            }
        }
    }

    /// The methods that it speaks of; empty for all.
    pub(crate) fn parsed_methods(&self) -> Vec<Method> {
        let mut methods: Vec<Method> = self
            .methods
            .iter()
            .filter_map(|m| parse_method(m))
            .collect();
        if methods.contains(&Method::GET) && !methods.contains(&Method::HEAD) {
            methods.push(Method::HEAD);
        }
        methods
    }
}

/// Notes tiers without a proper name, those that are not known, and what is wrong with their quotas.
pub(crate) fn check_tiers(
    tiers: &BTreeMap<String, Quota>,
    (base, known_tiers): (Option<&Quota>, &[String]),
    path: &str,
    faults: &mut Faults,
) {
    // A caller has one bucket whatever its tier, which can only be kept in one way.
    let first = base.or_else(|| tiers.values().next()).map(Quota::period);
    for (tier, quota) in tiers {
        if first.is_some_and(|first| first != quota.period()) {
            let allowed = "must go by the same part of the calendar as the rule's other quotas, or by \
                           none as they do: make it two rules";
            let written = serde_json::to_string(quota).unwrap_or_default();
            faults.add(format!("{path}.tiers.{tier}"), written, allowed);
        }
        if !is_tier(tier) {
            let allowed = "must be a tier's name, of 1 to 64 bytes";
            faults.add(format!("{path}.tiers"), format!("{tier:?}"), allowed);
        } else if !(known_tiers.is_empty() || tier == TIER_ANONYMOUS || known_tiers.contains(tier))
        {
            let allowed = format!("is none of known_tiers: {}", known_tiers.join(", "));
            faults.add(format!("{path}.tiers"), tier, allowed);
        }
        quota.check(QuotaFields::at(&format!("{path}.tiers.{tier}")), faults);
    }
}

/// Whether a tier may be called this.
pub(crate) fn is_tier(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= NAME_BYTES_MAX
}

/// RFC 9651 §3.3.3: strings hold printable ASCII; the two that would need escapes are left out.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
}

/// RFC 9110 §9.1: "The method token is case-sensitive". One in small letters would never match.
fn parse_method(text: &str) -> Option<Method> {
    let capitals = !text.bytes().any(|byte| byte.is_ascii_lowercase());
    capitals
        .then(|| Method::from_bytes(text.as_bytes()).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rate_limit::period::Period;

    const MINUTE: Duration = Duration::from_secs(60);

    fn faults(rule: &Rule, known_tiers: &[&str]) -> Vec<(String, String)> {
        let known: Vec<String> = known_tiers.iter().map(ToString::to_string).collect();
        let mut faults = Faults::new();
        rule.check("r", &known, &mut faults);
        let error = faults.into_result().err();
        let found = error.iter().flat_map(|error| error.faults());
        found
            .map(|fault| (fault.field.clone(), fault.value.clone()))
            .collect()
    }

    fn fields(found: &[(String, String)]) -> Vec<&str> {
        found.iter().map(|(field, _)| field.as_str()).collect()
    }

    #[test]
    fn every_fault_of_a_rule_is_named() {
        let mut rule = Rule::new("a\"b", Quota::requests(0).per(MINUTE))
            .route("login")
            .tier("free", Quota::requests(1).per(Duration::ZERO))
            .tier(" ", Quota::requests(1).per(MINUTE))
            .tier("t".repeat(65), Quota::requests(1).per(MINUTE));
        rule.methods = ["GET", "get", "", "A B"].map(str::to_owned).to_vec();
        assert_eq!(
            fields(&faults(&rule, &[])),
            [
                "r.name",
                "r.route",
                "r.methods[1]",
                "r.methods[2]",
                "r.methods[3]",
                "r.quota.requests",
                "r.tiers",
                "r.tiers.free.per_ms",
                "r.tiers",
            ]
        );
    }

    #[test]
    fn a_tier_without_quota_and_one_that_nobody_knows_are_faults() {
        let quota = Quota::requests(1).per(MINUTE);
        let nobody: [(&str, Quota); 0] = [];
        for (rule, known, missing) in [
            (Rule::by_tier("a", nobody), &[][..], &["anonymous"][..]),
            (Rule::by_tier("a", [("anonymous", quota)]), &[], &[]),
            (
                Rule::by_tier("a", [("free", quota)]),
                &["free", "pro"],
                &["pro", "anonymous"],
            ),
            (
                Rule::by_tier("a", [("free", quota), ("anonymous", quota)]),
                &["free"],
                &[],
            ),
            // With a quota for all others nobody can be left without one.
            (Rule::new("a", quota), &["free", "pro"], &[]),
            (
                Rule::new("a", quota).tier("fere", quota),
                &["free"],
                &["fere"],
            ),
            (Rule::new("a", quota).tier("fere", quota), &[], &[]),
            (
                Rule::new("a", quota).tier("anonymous", quota),
                &["free"],
                &[],
            ),
        ] {
            let found = faults(&rule, known);
            let met: Vec<_> = found.iter().map(|(_, value)| value.as_str()).collect();
            assert_eq!(met, missing, "{rule:?}");
            assert!(fields(&found).iter().all(|field| *field == "r.tiers"));
        }
    }

    #[test]
    fn what_is_counted_by_the_answer_cannot_cost_what_is_known_after_it() {
        let rule = Rule::new("a", Quota::requests(1).per(MINUTE));
        let costs = [
            (RequestCost::One, true),
            (RequestCost::by(|_| 2), true),
            (RequestCost::Told, false),
            (RequestCost::BodyBytes, false),
        ];
        for (cost, sound) in costs {
            let counts = [Count::Failures, Count::Successes, Count::when(|_| true)];
            for count in counts {
                let rule = rule.clone().cost(cost.clone()).count(count);
                let found = faults(&rule, &[]);
                let expected: &[&str] = if sound { &[] } else { &["r.count"] };
                assert_eq!(fields(&found), expected, "{rule:?}");
            }
            assert_eq!(faults(&rule.clone().cost(cost), &[]), []);
        }
    }

    #[test]
    fn the_tiers_of_a_rule_go_by_one_calendar() {
        let day = Quota::requests(100).each(Period::Day);
        let minute = Quota::requests(600).per(MINUTE);
        for (rule, sound) in [
            (
                Rule::new("a", day).tier("pro", Quota::requests(9).each(Period::Day)),
                true,
            ),
            (Rule::new("a", day).tier("pro", minute), false),
            (Rule::new("a", minute).tier("pro", day), false),
            (
                Rule::new("a", day).tier("pro", Quota::requests(9).each(Period::Hour)),
                false,
            ),
            (
                Rule::by_tier("a", [("anonymous", day), ("pro", minute)]),
                false,
            ),
        ] {
            let mut faults = Faults::new();
            rule.check("r", &[], &mut faults);
            let found = faults.into_result().err();
            let fields = found.iter().flat_map(|error| error.faults());
            let fields: Vec<&str> = fields.map(|fault| &*fault.field).collect();
            assert_eq!(fields, if sound { &[][..] } else { &["r.tiers.pro"] });
        }
    }

    #[test]
    fn a_name_is_short_printable_ascii_without_escapes() {
        let long = "n".repeat(65);
        for name in ["", "ä", "a\\", "a\nb", "\u{7f}", long.as_str()] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in ["login", "per day", &long[..64]] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn get_includes_head() {
        let rule = Rule::new("a", Quota::requests(1).per(MINUTE)).methods([Method::GET]);
        assert_eq!(rule.parsed_methods(), [Method::GET, Method::HEAD]);
    }
}
