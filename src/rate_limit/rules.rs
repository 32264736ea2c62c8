//! The rules in force, which may be replaced while the limiter runs.

use std::cell::LazyCell;
use std::sync::Arc;

use crate::error::{ConfigError, Faults};
use crate::identity::RequestView;
use crate::rate_limit::compiled::{CompiledRule, Plan};
use crate::rate_limit::config::RateLimitConfig;
use crate::rate_limit::direct::is_direct;
use crate::rate_limit::lists::Lists;

/// Changes in a row that are remembered for a rule.
const FORMER_MAX: usize = 4;

/// Rules that are remembered although they were taken out.
const GONE_MAX: usize = 256;

/// What may be changed while a limiter runs.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) all: Box<[RuleInForce]>,
    /// Rules that were taken out, until nothing that was used of them can still count: whoever puts them back
    /// meanwhile grants no fresh burst. The last ones first.
    gone: Vec<(RuleInForce, u64)>,
    pub(crate) lists: Lists,
    pub(crate) quota_headers: bool,
    pub(crate) legacy_headers: bool,
    pub(crate) expose_headers: bool,
    pub(crate) preflight: bool,
}

/// A rule, and what it was before.
#[derive(Clone, Debug)]
pub(crate) struct RuleInForce {
    pub(crate) rule: Arc<CompiledRule>,
    /// Tells the buckets under these quotas from those under former ones.
    pub(crate) generation: u64,
    pub(crate) former: Vec<Former>,
}

/// Quotas that a rule had before, some of which may still be used up.
#[derive(Clone, Debug)]
pub(crate) struct Former {
    pub(crate) rule: Arc<CompiledRule>,
    pub(crate) generation: u64,
    /// From when on nothing that was used then can still count, in ticks.
    pub(crate) until: u64,
}

impl Rules {
    /// The rules of a configuration that was checked, to follow on `before`.
    ///
    /// # Errors
    ///
    /// When a rule's name cannot stand in a field, which a checked one always can.
    pub(crate) fn new(
        config: &RateLimitConfig,
        room: &str,
        before: Option<(&Self, u64)>,
    ) -> Result<Self, ConfigError> {
        let all = config.all_rules();
        let all = all.iter().map(|rule| {
            let compiled = CompiledRule::new(rule, config.mode)
                .map_err(|wrong| ConfigError::one(format!("{room}.rules"), &rule.name, wrong))?;
            Ok(RuleInForce::new(Arc::new(compiled), before))
        });
        let all: Box<[_]> = all.collect::<Result<_, ConfigError>>()?;
        Ok(Self {
            gone: before.map_or_else(Vec::new, |(before, now)| before.without(&all, now)),
            all,
            // The faults were found when the configuration was checked.
            lists: config.lists(room, &mut Faults::new()),
            quota_headers: config.quota_headers,
            legacy_headers: config.legacy_headers,
            expose_headers: config.expose_headers,
            preflight: config.preflight,
        })
    }

    /// Those that speak of a request.
    pub(crate) fn speaking_of(
        &self,
        request: &RequestView<'_>,
    ) -> impl Iterator<Item = &RuleInForce> {
        // Which template was matched is looked up at most once, and only for rules that have one.
        let matched = LazyCell::new(|| request.matched_template());
        let speaks = move |known: &&RuleInForce| known.rule.speaks_of(request, || *matched);
        self.all.iter().filter(speaks)
    }

    /// Which of these rules, and of those that were taken out before, are not among `next`.
    fn without(&self, next: &[RuleInForce], now: u64) -> Vec<(RuleInForce, u64)> {
        let until = |known: &RuleInForce| now.saturating_add(known.rule.lasts());
        let here = self.all.iter().map(|known| (known, until(known)));
        let gone = self.gone.iter().map(|(known, until)| (known, *until));
        let is_next = |name: &str| next.iter().any(|known| &*known.rule.name == name);
        here.chain(gone)
            .filter(|(known, until)| now < *until && !is_next(&known.rule.name))
            .map(|(known, until)| (known.clone(), until))
            .take(GONE_MAX)
            .collect()
    }

    /// A rule as it was before, also one that was taken out a while ago.
    fn known(&self, name: &str, now: u64) -> Option<&RuleInForce> {
        let is_it =
            |(known, until): &&(RuleInForce, u64)| now < *until && &*known.rule.name == name;
        let gone = || self.gone.iter().find(is_it).map(|(known, _)| known);
        self.find(name).or_else(gone)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&RuleInForce> {
        self.all.get(self.position(name)?)
    }

    /// Where in [`all`](Self::all) a rule stands.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|known| &*known.rule.name == name)
    }
}

impl RuleInForce {
    /// Whether a look at one bucket is all there is to a decision with this rule alone.
    pub(crate) fn is_direct(&self) -> bool {
        self.former.is_empty() && is_direct(&self.rule)
    }

    fn new(rule: Arc<CompiledRule>, before: Option<(&Rules, u64)>) -> Self {
        let known = before.and_then(|(rules, now)| Some((rules.known(&rule.name, now)?, now)));
        let Some((known, now)) = known else {
            return Self {
                rule,
                generation: 0,
                former: Vec::new(),
            };
        };
        let mut former = known.former.clone();
        former.retain(|former| former.until > now);
        let same = known.rule.same_quotas(&rule);
        if !same {
            former.insert(
                0,
                Former {
                    until: now.saturating_add(known.rule.lasts()),
                    rule: Arc::clone(&known.rule),
                    generation: known.generation,
                },
            );
            former.truncate(FORMER_MAX);
        }
        Self {
            rule,
            generation: if same {
                known.generation
            } else {
                next(known.generation)
            },
            former,
        }
    }
}

/// Another number without pattern; they do not come round.
const fn next(generation: u64) -> u64 {
    generation.wrapping_add(0x9e37_79b9_7f4a_7c15)
}

impl Former {
    /// The plan that a caller of this tier had.
    pub(crate) fn plan(&self, tier: Option<&str>) -> &Arc<Plan> {
        self.rule.plan(tier)
    }
}
