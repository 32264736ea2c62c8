//! When a rule fires, gets worse and is over: a state machine over values, without clock or lock.
//!
//! # How time counts
//!
//! How long something lasts is the sum of the steps from one judgement to the next, and no step counts for
//! more than [`Terms::step_max`]: a process that was asleep for an hour knows nothing of that hour, so it makes
//! nothing fire. A judgement without a value ends the row of steps, and nothing else.

use std::time::Duration;

use crate::alerts::alert::AlertTurn;
use crate::alerts::severity::Severity;
use crate::clock::Moment;

/// What a rule says about time and severity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// How long the value has to lie beyond the threshold.
    pub(crate) wait: Duration,
    /// For how long after it is over nothing new is told.
    pub(crate) cooldown: Duration,
    /// After how much time of firing, each time, it gets worse by one severity.
    pub(crate) escalate_after: Option<Duration>,
    /// The severity to begin with.
    pub(crate) severity: Severity,
    /// The most that one step counts for.
    pub(crate) step_max: Duration,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Beyond the threshold.
    Beyond,
    /// Neither beyond the threshold nor back behind the one for resolving.
    Between,
    /// Where it should be.
    Within,
}

/// What there is to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) kind: AlertTurn,
    pub(crate) severity: Severity,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// All is well.
    Quiet,
    /// Beyond the threshold, for so long.
    Pending { lasted: Duration },
    /// Beyond it for long enough.
    Firing {
        /// Since it fires.
        lasted: Duration,
        severity: Severity,
        /// Whether anybody was told; not while it cools down.
        told: bool,
    },
}

/// One rule's state.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    stage: Stage,
    /// When it was judged last, if it had a value then.
    judged: Option<Moment>,
    /// Until when it is not told that it fires again.
    quiet_until: Option<Moment>,
}

impl Machine {
    pub(crate) const fn new() -> Self {
        Self {
            stage: Stage::Quiet,
            judged: None,
            quiet_until: None,
        }
    }

    pub(crate) const fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether it is over for so short a time that it would not be told if it fired.
    pub(crate) fn cools_down(&self, now: Moment) -> bool {
        self.quiet_until.is_some_and(|until| now < until)
    }

    /// Judges a value, and says what there is to tell: at most one thing.
    pub(crate) fn step(&mut self, terms: &Terms, now: Moment, side: Option<Side>) -> Option<Turn> {
        let Some(side) = side else {
            self.judged = None;
            return None;
        };
        let judged = self.judged.replace(now);
        let step = judged.map_or(Duration::ZERO, |judged| now.since(judged));
        let step = step.min(terms.step_max);
        match self.stage {
            Stage::Quiet => self.begin(terms, now, side),
            Stage::Pending { lasted } => self.wait(terms, now, (side, lasted + step)),
            Stage::Firing { .. } if side == Side::Within => self.resolve(terms, now),
            Stage::Firing { .. } => self.burn(terms, now, step),
        }
    }

    /// Quiet to pending, or to firing at once.
    fn begin(&mut self, terms: &Terms, now: Moment, side: Side) -> Option<Turn> {
        if side != Side::Beyond {
            return None;
        }
        self.wait(terms, now, (side, Duration::ZERO))
    }

    /// Pending to firing, or back to quiet. The space between the two thresholds is not beyond the first.
    fn wait(
        &mut self,
        terms: &Terms,
        now: Moment,
        (side, lasted): (Side, Duration),
    ) -> Option<Turn> {
        if side != Side::Beyond {
            self.stage = Stage::Quiet;
            return None;
        }
        if lasted < terms.wait {
            self.stage = Stage::Pending { lasted };
            return None;
        }
        let told = !self.cools_down(now);
        self.stage = Stage::Firing {
            lasted: Duration::ZERO,
            severity: terms.severity,
            told,
        };
        told.then_some(Turn {
            kind: AlertTurn::Firing,
            severity: terms.severity,
        })
    }

    /// Firing goes on, gets worse, or is told at last.
    fn burn(&mut self, terms: &Terms, now: Moment, step: Duration) -> Option<Turn> {
        let Stage::Firing {
            lasted,
            severity,
            told,
        } = self.stage
        else {
            return None;
        };
        let lasted = lasted + step;
        let due = terms.escalate_after.is_some_and(|after| {
            let steps = severity as u32 - terms.severity as u32 + 1;
            lasted >= after.saturating_mul(steps)
        });
        let worse = severity.worse().filter(|_| due);
        let speaks = told || !self.cools_down(now);
        let severity = worse.unwrap_or(severity);
        self.stage = Stage::Firing {
            lasted,
            severity,
            told: speaks,
        };
        let kind = match (told, speaks, worse) {
            (false, true, _) => AlertTurn::Firing,
            (true, _, Some(_)) => AlertTurn::Escalated,
            _ => return None,
        };
        Some(Turn { kind, severity })
    }

    /// Firing to quiet. What nobody was told of is over in silence, and does not put the next word off.
    fn resolve(&mut self, terms: &Terms, now: Moment) -> Option<Turn> {
        let Stage::Firing { severity, told, .. } = self.stage else {
            return None;
        };
        self.stage = Stage::Quiet;
        told.then(|| {
            self.quiet_until = Some(now.plus(terms.cooldown));
            Turn {
                kind: AlertTurn::Resolved,
                severity,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn terms() -> Terms {
        Terms {
            wait: 2 * SECOND,
            cooldown: 5 * SECOND,
            escalate_after: Some(4 * SECOND),
            severity: Severity::Warning,
            step_max: 2 * SECOND,
        }
    }

    /// One letter a second: `x` beyond, `-` between, `.` within, `?` no value; what is told stands below it:
    /// `F` firing, `E` escalated, `R` resolved.
    fn told(terms: &Terms, values: &str) -> String {
        let mut machine = Machine::new();
        let mut now = Moment::default();
        let mut told = String::new();
        for letter in values.chars() {
            now = now.plus(SECOND);
            told.push(word(machine.step(terms, now, side(letter))));
        }
        told
    }

    fn side(letter: char) -> Option<Side> {
        match letter {
            'x' => Some(Side::Beyond),
            '-' => Some(Side::Between),
            '.' => Some(Side::Within),
            _ => None,
        }
    }

    fn word(turn: Option<Turn>) -> char {
        match turn.map(|turn| turn.kind) {
            None => ' ',
            Some(AlertTurn::Firing) => 'F',
            Some(AlertTurn::Escalated) => 'E',
            Some(AlertTurn::Resolved) => 'R',
        }
    }

    #[test]
    fn every_way_through_the_states_tells_what_it_should() {
        for (what, values, expected) in [
            ("never beyond", ".....", "     "),
            ("beyond for too short a time", ".xx.xx.", "       "),
            ("long enough, then over", "xxx.", "  FR"),
            ("between is not beyond", "xx-xx-xxx.", "        FR"),
            ("between does not resolve", "xxx--x.", "  F   R"),
            ("no value leaves it as it is", "xxx???.", "  F   R"),
            (
                "no value while it waits counts for nothing",
                "xx??xx",
                "     F",
            ),
            (
                "it gets worse, and worse, and no worse",
                "xxxxxxxxxxxxxxxx.",
                "  F   E   E     R",
            ),
            ("between gets worse as well", "xxx----", "  F   E"),
            ("no value gets no worse", "xxx?????xxxx", "  F         "),
            (
                "again within the cooldown: told when it ends, and worse since it fires",
                "xxx.xxxxxxx",
                "  FR    F E",
            ),
            (
                "again and over within the cooldown: silence",
                "xxx.xxx..",
                "  FR     ",
            ),
            (
                "silence does not prolong the cooldown",
                "xxx.xxx.xxx",
                "  FR      F",
            ),
            (
                "after the cooldown it is told at once",
                "xxx......xxx",
                "  FR       F",
            ),
        ] {
            let told = told(&terms(), values);
            assert_eq!(
                told,
                format!("{expected:<len$}", len = values.len()),
                "{what}: {values}"
            );
        }
    }

    #[test]
    fn what_got_worse_in_silence_is_told_with_its_severity() {
        let terms = Terms {
            cooldown: 20 * SECOND,
            ..terms()
        };
        let mut machine = Machine::new();
        let mut now = Moment::default();
        let mut turns = Vec::new();
        for letter in "xxx.xxxxxxxxxxxxxxxxxxxxxx.".chars() {
            now = now.plus(SECOND);
            turns.extend(machine.step(&terms, now, side(letter)));
        }
        let told: Vec<_> = turns
            .iter()
            .map(|turn| (turn.kind, turn.severity))
            .collect();
        assert_eq!(
            told,
            [
                (AlertTurn::Firing, Severity::Warning),
                (AlertTurn::Resolved, Severity::Warning),
                (AlertTurn::Firing, Severity::Emergency),
                (AlertTurn::Resolved, Severity::Emergency),
            ]
        );
    }

    #[test]
    fn without_a_time_to_wait_it_fires_at_the_first_value() {
        let terms = Terms {
            wait: Duration::ZERO,
            cooldown: Duration::ZERO,
            escalate_after: None,
            ..terms()
        };
        assert_eq!(told(&terms, "x.x.xx."), "FRFRF R");
    }

    #[test]
    fn a_leap_of_the_clock_makes_nothing_fire_and_one_back_does_no_harm() {
        let terms = Terms {
            wait: 10 * SECOND,
            ..terms()
        };
        let mut machine = Machine::new();
        let late = Moment::default().plus(Duration::from_secs(3600));
        for now in [Moment::default(), late, Moment::default(), late] {
            assert_eq!(machine.step(&terms, now, Some(Side::Beyond)), None);
        }
        let lasted = 4 * SECOND;
        assert_eq!(
            machine.stage(),
            Stage::Pending { lasted },
            "two steps of two seconds"
        );
        let mut now = late;
        let mut turns = 0;
        for _ in 0..6 {
            now = now.plus(SECOND);
            turns += usize::from(machine.step(&terms, now, Some(Side::Beyond)).is_some());
        }
        assert_eq!(turns, 1);
        // Escalation does not leap either.
        now = now.plus(Duration::from_secs(3600));
        assert_eq!(machine.step(&terms, now, Some(Side::Beyond)), None);
    }

    /// The same rules told as questions about the whole past, once more for each moment.
    fn naive(terms: &Terms, past: &[(u64, char)]) -> Vec<Option<(char, u32)>> {
        let max = terms.step_max.as_secs();
        // Seconds that passed before judgement `i` since the one before it, as far as they count.
        let step = |i: usize| match i.checked_sub(1).map(|before| past[before]) {
            Some((at, letter)) if letter != '?' => past[i].0.saturating_sub(at).min(max),
            _ => 0,
        };
        let judged = |i: usize| past[i].1 != '?';
        let mut told = vec![None; past.len()];
        let mut from = 0;
        let mut quiet_until = 0;
        // Each round finds one whole incident: where it fires, and where it is over.
        while let Some((begins, fires)) = (from..past.len()).find_map(|begins| {
            let fresh = (from..begins)
                .rev()
                .find(|i| judged(*i))
                .is_none_or(|i| past[i].1 != 'x');
            if past[begins].1 != 'x' || !fresh {
                return None;
            }
            let row = (begins..past.len()).take_while(|i| matches!(past[*i].1, 'x' | '?'));
            let mut lasted = 0;
            row.filter(|i| judged(*i)).find_map(|i| {
                lasted += if i == begins { 0 } else { step(i) };
                (lasted >= terms.wait.as_secs()).then_some((begins, i))
            })
        }) {
            let _ = begins;
            let over = (fires + 1..past.len()).find(|i| past[*i].1 == '.');
            let last = over.unwrap_or(past.len());
            let says = (fires..last).find(|i| judged(*i) && past[*i].0 >= quiet_until);
            let after = terms.escalate_after.map(|after| after.as_secs());
            let mut severity = 0;
            let mut lasted = 0;
            for i in (fires..last).filter(|i| judged(*i)) {
                lasted += if i == fires { 0 } else { step(i) };
                let due = after.is_some_and(|after| lasted >= after * (u64::from(severity) + 1));
                let worse = i > fires && due && severity < 2;
                severity += u32::from(worse);
                if says == Some(i) {
                    told[i] = Some(('F', severity));
                } else if worse && says.is_some_and(|said| said < i) {
                    told[i] = Some(('E', severity));
                }
            }
            let Some(over) = over else { break };
            if says.is_some() {
                told[over] = Some(('R', severity));
                quiet_until = past[over].0 + terms.cooldown.as_secs();
            }
            from = over + 1;
        }
        told
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_machine_says_what_the_whole_past_says(
            letters in proptest::collection::vec(
                prop_oneof![6 => Just('x'), 1 => Just('-'), 2 => Just('.'), 1 => Just('?')], 0..80),
            steps in proptest::collection::vec(prop_oneof![8 => 1_u64..3, 1 => 0_u64..200], 80),
            wait in 0_u64..6,
            cooldown in 0_u64..30,
            escalate in proptest::option::of(1_u64..10),
            step_max in 1_u64..5,
        ) {
            let terms = Terms {
                wait: Duration::from_secs(wait),
                cooldown: Duration::from_secs(cooldown),
                escalate_after: escalate.map(Duration::from_secs),
                severity: Severity::Warning,
                step_max: Duration::from_secs(step_max),
            };
            let mut at = 0;
            let past: Vec<_> = letters.iter().zip(&steps).map(|(letter, step)| {
                at += step;
                (at, *letter)
            }).collect();
            let mut machine = Machine::new();
            let told: Vec<_> = past.iter().map(|(at, letter)| {
                let now = Moment::default().plus(Duration::from_secs(*at));
                let turn = machine.step(&terms, now, side(*letter));
                turn.map(|turn| (word(Some(turn)), turn.severity as u32))
            }).collect();
            prop_assert_eq!(&told, &naive(&terms, &past), "{:?}", past);
            // Firing and resolved take turns, and between a word and the next there is the cooldown.
            let words: Vec<_> = told.iter().zip(&past)
                .filter_map(|(told, (at, _))| told.map(|(word, _)| (word, *at)))
                .filter(|(word, _)| *word != 'E')
                .collect();
            for pair in words.windows(2) {
                prop_assert_ne!(pair[0].0, pair[1].0);
                if pair[0].0 == 'R' {
                    prop_assert!(pair[1].1 >= pair[0].1 + cooldown);
                }
            }
        }
    }
}
