//! What an operator says of the requests of one route.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Faults;
use crate::guard::criticality::Criticality;

/// A rule for the requests whose path matches a template. If several match, the most exact one counts, as in
/// axum's router.
///
/// ```
/// use tower_keep::guard::{Criticality, GuardRule};
///
/// // Two exports at once are all that this machine bears, and four more may wait.
/// let export = GuardRule::new("/export/{id}").slots(2).queue(4).criticality(Criticality::Sheddable);
/// # let _ = export;
/// ```
///
/// In files: `{"route": "/export/{id}", "slots": 2, "queue": 4, "criticality": "sheddable"}`, of which only
/// `route` must be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardRule {
    /// The path template: `/export/{id}`, `/files/{*path}`.
    pub route: String,
    /// How important its requests are.
    #[serde(default)]
    pub criticality: Option<Criticality>,
    /// How many of its requests are inside at once, beside the number for all: 1 to 100,000.
    #[serde(default)]
    pub slots: Option<usize>,
    /// How many of them may wait for such a slot; 0 refuses at once. At most 100,000. Without `slots` it means
    /// nothing and is a fault.
    #[serde(default)]
    pub queue: Option<usize>,
}

impl GuardRule {
    /// A rule that changes nothing yet.
    #[must_use]
    pub fn new(route: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            criticality: None,
            slots: None,
            queue: None,
        }
    }

    /// How important the requests are.
    #[must_use]
    pub const fn criticality(mut self, criticality: Criticality) -> Self {
        self.criticality = Some(criticality);
        self
    }

    /// How many are inside at once.
    #[must_use]
    pub const fn slots(mut self, slots: usize) -> Self {
        self.slots = Some(slots);
        self
    }

    /// How many of them may wait.
    #[must_use]
    pub const fn queue(mut self, queue: usize) -> Self {
        self.queue = Some(queue);
        self
    }
}

/// What a rule has come to.
#[derive(Debug)]
pub(crate) struct RoutePlan<E> {
    pub(crate) criticality: Option<Criticality>,
    pub(crate) entrance: Option<Arc<E>>,
}

/// The rules of a guard, ready to be asked, with an entrance of the kind `E` for each route with slots.
pub(crate) struct Plan<E> {
    matcher: matchit::Router<RoutePlan<E>>,
    entrances: Vec<Arc<E>>,
}

impl<E> Plan<E> {
    /// Reads the rules and the `critical` templates; what is wrong with one is noted under `room`. `open` makes
    /// the entrance of a route with so many slots and places.
    pub(crate) fn compile(
        rules: &[GuardRule],
        critical: &[String],
        room: &str,
        faults: &mut Faults,
        open: impl Fn(usize, Option<usize>) -> E,
    ) -> Self {
        let mut plan = Self {
            matcher: matchit::Router::new(),
            entrances: Vec::new(),
        };
        for (at, rule) in rules.iter().enumerate() {
            let field = format!("{room}.rules[{at}]");
            check(rule, &field, faults);
            let slots = rule.slots.filter(|slots| (1..=SLOTS_MAX).contains(slots));
            let entrance = slots.map(|slots| Arc::new(open(slots, rule.queue)));
            plan.entrances.extend(entrance.clone());
            let of_route = RoutePlan {
                criticality: rule.criticality,
                entrance,
            };
            plan.insert(&rule.route, of_route, &format!("{field}.route"), faults);
        }
        for template in critical {
            if rules.iter().any(|rule| rule.route == *template) {
                let why = "has a rule of its own, which says how important it is";
                faults.add(format!("{room}.critical"), template, why);
                continue;
            }
            let of_route = RoutePlan {
                criticality: Some(Criticality::Critical),
                entrance: None,
            };
            plan.insert(template, of_route, &format!("{room}.critical"), faults);
        }
        plan
    }

    fn insert(&mut self, template: &str, plan: RoutePlan<E>, field: &str, faults: &mut Faults) {
        if !template.starts_with('/') {
            let why = "must be a path template that begins with `/`";
            faults.add(field, template, why);
        } else if let Err(why) = self.matcher.insert(template, plan) {
            faults.add(field, template, why.to_string());
        }
    }

    /// The plan of a path, if it has one.
    pub(crate) fn of(&self, path: &str) -> Option<&RoutePlan<E>> {
        self.matcher.at(path).ok().map(|found| found.value)
    }

    /// The entrances of all routes that have one.
    pub(crate) fn entrances(&self) -> &[Arc<E>] {
        &self.entrances
    }
}

impl<E> fmt::Debug for Plan<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("entrances", &self.entrances.len())
            .finish_non_exhaustive()
    }
}

fn check(rule: &GuardRule, field: &str, faults: &mut Faults) {
    if let Some(slots) = rule.slots {
        faults.within(format!("{field}.slots"), slots, 1..=SLOTS_MAX, "slots");
    }
    match rule.queue {
        Some(queue) if rule.slots.is_none() => {
            let why = "means nothing without `slots`";
            faults.add(format!("{field}.queue"), queue, why);
        }
        Some(queue) => faults.within(format!("{field}.queue"), queue, 0..=QUEUE_MAX, "requests"),
        None => {}
    }
}

/// More requests at once than any process holds, and few enough to be counted in 32 bits.
pub(crate) const SLOTS_MAX: usize = 100_000;
pub(crate) const QUEUE_MAX: usize = 100_000;
