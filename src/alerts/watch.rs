//! One rule with what became of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::alerts::alert::{Alert, AlertStage, AlertState, AlertTurn};
use crate::alerts::machine::{Machine, Stage, Terms, Turn};
use crate::alerts::rule::{AlertRule, Comparison};
use crate::alerts::severity::Severity;
use crate::alerts::sight::Look;
use crate::clock::Moment;

/// A rule under watch.
pub(crate) struct Watch {
    rule: Arc<Watched>,
    terms: Terms,
    machine: Machine,
    value: Option<f64>,
    since: Option<SystemTime>,
}

/// A rule with its texts, made once.
pub(crate) struct Watched {
    rule: AlertRule,
    name: Arc<str>,
    measure: Arc<str>,
    route: Option<Arc<str>>,
    advice: Arc<str>,
}

impl Watched {
    /// What it looks at.
    pub(crate) fn look(&self) -> Look<'_> {
        Look {
            measure: &self.rule.measure,
            window: self.rule.window,
            route: self.rule.route.as_deref(),
            least: self.rule.least_count,
        }
    }

    /// `error_ratio of /checkout is 12 %, more than 5 %`.
    fn words(&self, value: Option<f64>) -> String {
        let AlertRule {
            measure, threshold, ..
        } = &self.rule;
        let of = match &self.route {
            Some(route) => format!("{} of {route}", self.measure),
            None => (*self.measure).to_owned(),
        };
        let Some(value) = value else {
            return format!("{of} has no value");
        };
        let side = match self.rule.comparison {
            Comparison::Above if value > *threshold => "more than",
            Comparison::Above => "not more than",
            Comparison::Below if value < *threshold => "less than",
            Comparison::Below => "not less than",
        };
        let (value, threshold) = (measure.words(value), measure.words(*threshold));
        format!("{of} is {value}, {side} {threshold}")
    }

    fn advised(&self, words: String) -> String {
        match &*self.advice {
            "" => words,
            advice => format!("{words}: {advice}"),
        }
    }
}

impl Watch {
    /// A rule that has seen nothing yet and is judged `every` so often.
    pub(crate) fn new(rule: AlertRule, every: Duration) -> Self {
        Self {
            terms: rule.terms(every),
            machine: Machine::new(),
            value: None,
            since: None,
            rule: Arc::new(Watched {
                name: rule.name.as_str().into(),
                measure: rule.measure.name().into(),
                route: rule.route.as_deref().map(Into::into),
                advice: rule.advice.as_str().into(),
                rule,
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.rule.name
    }

    pub(crate) fn rule(&self) -> Arc<Watched> {
        Arc::clone(&self.rule)
    }

    pub(crate) const fn fires(&self) -> bool {
        matches!(self.machine.stage(), Stage::Firing { .. })
    }

    /// Its name, if its last judgement had no value.
    pub(crate) fn blind(&self) -> Option<Arc<str>> {
        let blind = self.value.is_none();
        blind.then(|| Arc::clone(&self.rule.name))
    }

    /// Judges a value, and says what there is to tell.
    pub(crate) fn judge(
        &mut self,
        value: Option<f64>,
        (now, wall): (Moment, SystemTime),
        instance: &Arc<str>,
    ) -> Option<Alert> {
        let before = self.stage(now).0;
        let side = value.map(|value| self.rule.rule.side(value));
        self.value = value;
        let turn = self.machine.step(&self.terms, now, side);
        let after = self.stage(now).0;
        // A cooldown that ends is no news: it is well since it was over.
        let lapsed = (before, after) == (AlertStage::Resolved, AlertStage::Ok);
        if before != after && !lapsed {
            self.since = Some(wall);
        }
        let (turn, value) = turn.zip(value)?;
        Some(self.alert(turn, value, wall, instance))
    }

    fn alert(&self, turn: Turn, value: f64, at: SystemTime, instance: &Arc<str>) -> Alert {
        let Watched {
            rule,
            name,
            measure,
            route,
            advice,
        } = &*self.rule;
        let words = self.rule.words(Some(value));
        let detail = match turn.kind {
            AlertTurn::Firing | AlertTurn::Escalated => self.rule.advised(words),
            AlertTurn::Resolved => format!("over: {words}"),
        };
        Alert {
            rule: Arc::clone(name),
            state: turn.kind,
            severity: turn.severity,
            measure: Arc::clone(measure),
            route: route.clone(),
            value,
            threshold: rule.threshold,
            at,
            instance: Arc::clone(instance),
            detail: detail.into(),
            advice: Arc::clone(advice),
        }
    }

    /// Where it stands, for whoever looks at it `now`.
    pub(crate) fn state(&self, now: Moment, told_by_other: bool) -> AlertState {
        let (state, severity) = self.stage(now);
        let words = self.rule.words(self.value);
        let detail = match state {
            AlertStage::Ok | AlertStage::Resolved => words,
            _ => self.rule.advised(words),
        };
        AlertState {
            rule: Arc::clone(&self.rule.name),
            measure: Arc::clone(&self.rule.measure),
            route: self.rule.route.clone(),
            value: self.value,
            threshold: self.rule.rule.threshold,
            state,
            severity,
            since: self.since,
            cooling_down: matches!(self.machine.stage(), Stage::Firing { told: false, .. }),
            told_by_other: told_by_other && self.fires(),
            detail,
        }
    }

    fn stage(&self, now: Moment) -> (AlertStage, Severity) {
        let begins = self.rule.rule.severity;
        match self.machine.stage() {
            Stage::Quiet if self.machine.cools_down(now) => (AlertStage::Resolved, begins),
            Stage::Quiet => (AlertStage::Ok, begins),
            Stage::Pending { .. } => (AlertStage::Pending, begins),
            Stage::Firing { severity, .. } if severity > begins => {
                (AlertStage::Escalated, severity)
            }
            Stage::Firing { severity, .. } => (AlertStage::Firing, severity),
        }
    }
}
