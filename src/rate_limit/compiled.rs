//! A rule as it is applied.

use std::sync::Arc;

use http::Method;
use http::header::InvalidHeaderValue;

use crate::identity::RequestView;
use crate::rate_limit::rule::Rule;
use crate::rate_limit::scope::Scope;
use crate::rate_limit::terms::Terms;
use crate::route::Route;

/// A checked rule with everything prepared.
#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: Arc<str>,
    /// Tells its buckets from those of other rules.
    pub(crate) number: u32,
    pub(crate) scope: Scope,
    pub(crate) shadow: bool,
    route: Option<Route>,
    /// Empty: any.
    methods: Vec<Method>,
    base: Arc<Terms>,
    tiers: Box<[(Box<str>, Arc<Terms>)]>,
}

impl CompiledRule {
    /// Prepares a rule that was checked.
    ///
    /// # Errors
    ///
    /// When the rule's name cannot stand in a field, which a checked one always can.
    pub(crate) fn new(rule: &Rule, number: u32) -> Result<Self, InvalidHeaderValue> {
        let name: Arc<str> = rule.name.as_str().into();
        let tiers = rule.tiers.iter().map(|(tier, quota)| {
            let terms = Terms::new(&name, quota)?;
            Ok((tier.as_str().into(), Arc::new(terms)))
        });
        Ok(Self {
            number,
            scope: rule.scope.clone(),
            shadow: rule.shadow,
            route: rule
                .route
                .as_ref()
                .and_then(|route| Route::new(route, &[]).ok()),
            methods: rule.parsed_methods(),
            base: Arc::new(Terms::new(&name, &rule.quota)?),
            tiers: tiers.collect::<Result<_, _>>()?,
            name,
        })
    }

    /// Whether the rule speaks of the request; `matched` is the template the router has found.
    ///
    /// The template is asked first, because inside a nested router the path that is left is no
    /// longer the one that templates are written for.
    pub(crate) fn speaks_of(&self, request: &RequestView<'_>, matched: Option<&str>) -> bool {
        (self.methods.is_empty() || self.methods.contains(request.method))
            && self.route.as_ref().is_none_or(|route| {
                matched.is_some_and(|template| template == &**route.template())
                    || route.matches(request)
            })
    }

    /// Whether it matters which tier a caller has.
    pub(crate) const fn has_tiers(&self) -> bool {
        !self.tiers.is_empty()
    }

    /// The terms for a tier, with their number among the rule's; 0 for those without an own quota.
    pub(crate) fn terms(&self, tier: Option<&str>) -> (u32, &Arc<Terms>) {
        let own = tier.and_then(|tier| {
            let at = self.tiers.iter().position(|(name, _)| &**name == tier)?;
            let (_, terms) = self.tiers.get(at)?;
            Some((u32::try_from(at).unwrap_or(u32::MAX - 1) + 1, terms))
        });
        own.unwrap_or((0, &self.base))
    }
}
