//! A rule as it is applied.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;
use http::Method;

use crate::identity::RequestView;
use crate::rate_limit::cost::RequestCost;
use crate::rate_limit::count::Count;
use crate::rate_limit::escape::escaped;
use crate::rate_limit::mode::Mode;
use crate::rate_limit::quota::Quota;
use crate::rate_limit::rule::Rule;
use crate::rate_limit::scope::Scope;
use crate::rate_limit::terms::Terms;
use crate::route::Route;

/// A checked rule with everything prepared.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: Arc<str>,
    pub(crate) scope: Scope,
    pub(crate) count: Count,
    pub(crate) cost: RequestCost,
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "in memory both modes are the same")
    )]
    pub(crate) mode: Mode,
    pub(crate) shadow: bool,
    /// Whether the answer is needed to know what a request counts.
    pub(crate) settles: bool,
    /// For callers whose tier has no quota of its own.
    pub(crate) base: Arc<Plan>,
    route: Option<Route>,
    /// Empty: any.
    methods: Vec<Method>,
    tiers: Box<[(Box<str>, Arc<Plan>)]>,
}

/// The quota of a rule for one tier, and what its buckets are called.
///
/// They go by the rule's name and the tier's, never by where these stand in a list: a bucket survives a
/// change of the configuration around it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Begins the hash of a bucket's key.
    pub(crate) salt: u64,
    /// The bucket's part of its key in Redis: `login`, or `login@premium`. Escaped, so that the `@` is the
    /// only one.
    pub(crate) bucket: Arc<str>,
    pub(crate) terms: Arc<Terms>,
}

/// What a rule that was never checked lets through if it has no quota at all.
const NEXT_TO_NOTHING: Quota = Quota::requests(1).per(std::time::Duration::from_secs(60));

impl CompiledRule {
    /// Prepares a rule that was checked; `mode` is that of rules which do not say theirs.
    ///
    /// # Errors
    ///
    /// When the rule's name cannot stand in a field, which a checked one always can.
    pub(crate) fn new(rule: &Rule, mode: Mode) -> Result<Self, String> {
        let name: Arc<str> = rule.name.as_str().into();
        let smallest = || rule.tiers.values().copied().min_by(Quota::cmp_size);
        let base = rule.quota.or_else(smallest).unwrap_or(NEXT_TO_NOTHING);
        let tiers = rule.tiers.iter().map(|(tier, quota)| {
            let plan = Plan::new(&name, Some(tier), quota)?;
            Ok((tier.as_str().into(), Arc::new(plan)))
        });
        Ok(Self {
            scope: rule.scope.clone(),
            count: rule.count.clone(),
            cost: rule.cost.clone(),
            mode: rule.mode.unwrap_or(mode),
            shadow: rule.shadow,
            settles: rule.count != Count::All || rule.cost.is_known_late(),
            base: Arc::new(Plan::new(&name, None, &base)?),
            route: rule
                .route
                .as_ref()
                .and_then(|route| Route::new(route, &[]).ok()),
            methods: rule.parsed_methods(),
            tiers: tiers.collect::<Result<_, String>>()?,
            name,
        })
    }

    /// Whether the rule speaks of the request; `matched` tells the template that the router has found.
    ///
    /// The template is asked first, because inside a nested router the path that is left is no
    /// longer the one that templates are written for.
    pub(crate) fn speaks_of<'m>(
        &self,
        request: &RequestView<'_>,
        matched: impl FnOnce() -> Option<&'m str>,
    ) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method))
            && self.route.as_ref().is_none_or(|route| {
                matched().is_some_and(|template| template == &**route.template())
                    || route.matches(request)
            })
    }

    /// Whether it matters which tier a caller has.
    pub(crate) const fn has_tiers(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// Whether some of what is charged may be given back by the answer.
    #[cfg(feature = "redis")]
    pub(crate) fn gives_back(&self) -> bool {
        self.count != Count::All || self.cost == RequestCost::Told
    }

    /// Whether the other rule grants the same to everybody, so that their buckets mean the same.
    pub(crate) fn same_quotas(&self, other: &Self) -> bool {
        let same = |left: &Plan, right: &Plan| {
            left.terms.limit == right.terms.limit && left.terms.period == right.terms.period
        };
        let mut tiers = self.tiers.iter().zip(&other.tiers);
        same(&self.base, &other.base)
            && self.tiers.len() == other.tiers.len()
            && tiers.all(|(left, right)| left.0 == right.0 && same(&left.1, &right.1))
    }

    /// The time after which nothing that was used up today can still count, in ticks.
    pub(crate) fn lasts(&self) -> u64 {
        let plans = self.tiers.iter().map(|(_, plan)| plan).chain([&self.base]);
        let lasts = plans.map(|plan| plan.terms.lasts());
        lasts.max().unwrap_or(0)
    }

    /// The quota for a tier: its own, or that of all others.
    #[inline]
    pub(crate) fn plan(&self, tier: Option<&str>) -> &Arc<Plan> {
        let own = |tier| self.tiers.iter().find(|(name, _)| &**name == tier);
        tier.and_then(own).map_or(&self.base, |(_, plan)| plan)
    }
}

impl Plan {
    fn new(rule: &Arc<str>, tier: Option<&str>, quota: &Quota) -> Result<Self, String> {
        let terms = Terms::new(rule, quota).map_err(|wrong| wrong.to_string())?;
        let mut bucket = escaped(rule);
        if let Some(tier) = tier {
            bucket.push('@');
            bucket.push_str(&escaped(tier));
        }
        Ok(Self {
            // The seed is fixed, because another table may be filled from the same names; secret is the
            // seed of the table, whose hash this only begins.
            salt: FixedState::default().hash_one(bucket.as_bytes()),
            bucket: bucket.into(),
            terms: Arc::new(terms),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn compiled(rule: &Rule) -> CompiledRule {
        CompiledRule::new(rule, Mode::Exact).unwrap()
    }

    #[test]
    fn a_tier_without_a_quota_gets_that_of_all_others_or_the_smallest() {
        let (small, large) = (
            Quota::requests(5).per(MINUTE),
            Quota::requests(400).per(60 * MINUTE),
        );
        let requests = |rule: &CompiledRule, tier| rule.plan(tier).terms.requests;
        let by_tier = compiled(&Rule::by_tier("r", [("a", large), ("b", small)]));
        let with_base = compiled(&Rule::new("r", large).tier("b", small));
        for (tier, alone, based) in [
            (None, 5, 400),
            (Some("a"), 400, 400),
            (Some("b"), 5, 5),
            (Some("unheard of"), 5, 400),
            (Some(""), 5, 400),
        ] {
            assert_eq!(requests(&by_tier, tier), alone, "{tier:?}");
            assert_eq!(requests(&with_base, tier), based, "{tier:?}");
        }
        let none = compiled(&Rule::by_tier("r", [("a", small); 0]));
        assert_eq!(requests(&none, Some("a")), 1);
    }

    #[test]
    fn the_mode_is_the_rules_own_or_that_of_all() {
        let rule = Rule::new("r", Quota::requests(5).per(MINUTE));
        for (own, all, mode) in [
            (None, Mode::Leased, Mode::Leased),
            (Some(Mode::Exact), Mode::Leased, Mode::Exact),
            (Some(Mode::Leased), Mode::Exact, Mode::Leased),
        ] {
            let rule = Rule {
                mode: own,
                ..rule.clone()
            };
            assert_eq!(CompiledRule::new(&rule, all).unwrap().mode, mode);
        }
    }

    /// A rule may be called like another one's tier.
    #[test]
    fn buckets_are_named_without_a_doubt() {
        let quota = Quota::requests(5).per(MINUTE);
        let rule = compiled(&Rule::new("log in", quota).tier("pro", quota));
        let twin = compiled(&Rule::new("log in@pro", quota));
        assert_eq!(&*rule.base.bucket, "log%20in");
        assert_eq!(&*rule.plan(Some("pro")).bucket, "log%20in@pro");
        assert_eq!(&*twin.base.bucket, "log%20in%40pro");
        assert_ne!(rule.plan(Some("pro")).salt, twin.base.salt);
    }
}
