//! Who of a fleet speaks about a rule: whoever holds its lease in Redis.
//!
//! One key for each rule, `<prefix>:alert:<rule>`, holds the random name of the instance that speaks. While the
//! rule fires the lease is short and renewed with every round, so that another instance for which it fires as
//! well speaks up within a minute should the speaker die; once it is over, the lease says so and lasts for the
//! cooldown. A lease for the rule and not for each of its words: whoever has said that something fires is the one
//! who says that it is over.
//!
//! Several have spoken where Redis was away or a lease ran out. One of them has the lease then; the others learn it
//! when they want to renew theirs, and are silent ones from there on.
//!
//! What a silent instance has to say is remembered until somebody has said it. Where the rule still fires when
//! the speaker has said that it is over, for a round and more, the silent one takes the word and says that it
//! fires. Where it is over here, and the speaker dies before it says so, the silent one says it.
//!
//! Whoever has no value any more, such as an instance that is taken out of rotation, can say neither that it got
//! worse nor that it is over. It lets its lease run out, for one that has a value, and has nothing to say meanwhile.
//!
//! Redis away, slow or refusing: whoever has something new to say speaks, for to hear something twice is better
//! than not at all. A silent instance knows that another one has spoken, which one lost answer does not change; it
//! speaks when there was no answer for as long as a lease lasts.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::alerts::alert::{Alert, AlertTurn};
#[cfg(feature = "redis")]
use crate::alerts::lease::ASK;
use crate::alerts::rule::{AlertRule, AlertScope};
#[cfg(feature = "redis")]
use crate::store::{Batch, Call, RedisPool, StoreError};

/// For how many rounds a lease lasts while a rule fires.
const LEASE_ROUNDS: u32 = 6;

/// Asks whether this instance speaks.
#[derive(Debug)]
pub(crate) struct Speaker {
    /// Rules of which one instance speaks, and how long it is quiet afterwards.
    fleet: HashMap<Arc<str>, Duration>,
    /// How often rules are judged.
    every: Duration,
    /// Unlike that of any other instance, whatever they are called.
    name: String,
    #[cfg(feature = "redis")]
    redis: RedisPool,
    known: Mutex<Known>,
}

/// What is remembered of rules.
#[derive(Debug, Default)]
struct Known {
    words: HashMap<Arc<str>, Word>,
    /// Those whose last judgement had no value.
    blind: HashSet<Arc<str>>,
}

/// The last word about a rule that fires here or elsewhere.
#[derive(Clone, Debug)]
struct Word {
    /// What there was to say here.
    alert: Alert,
    said: Said,
    /// For how many rounds in a row there was no answer from Redis, or nobody asked.
    unanswered: u32,
}

/// Who has said what about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// This instance: it fires.
    Here,
    /// Another one: it fires.
    Fires,
    /// Another one: it was over before it fired here, and the cooldown is the fleet's.
    WasOver,
    /// Another one: it is over, though it still fires here. It may end here a moment later, so a round passes
    /// before anything is made of it.
    IsOver,
}

/// Who has the word about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "redis"),
    expect(dead_code, reason = "without Redis there is nobody else")
)]
enum Claim {
    /// This instance.
    Mine,
    /// Another one, for which it fires.
    Others,
    /// Another one, which has said that it is over.
    OthersOver,
    /// Nobody can be asked.
    Unknown,
}

/// What an instance asks the word for, as the script calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Fires,
    Still,
    Over,
}

impl Speaker {
    pub(crate) fn new(
        rules: &[AlertRule],
        every: Duration,
        #[cfg(feature = "redis")] redis: RedisPool,
    ) -> Self {
        let fleet = rules.iter().filter(|rule| rule.scope == AlertScope::Fleet);
        let fleet = fleet.map(|rule| (rule.name.as_str().into(), rule.cooldown));
        // The standard library seeds its hashers with 128 random bits of the system's.
        let (first, second) = (RandomState::new(), RandomState::new());
        let (first, second) = (first.hash_one(0), second.hash_one(1));
        Self {
            fleet: fleet.collect(),
            every,
            name: format!("{first:016x}{second:016x}"),
            #[cfg(feature = "redis")]
            redis,
            known: Mutex::default(),
        }
    }

    /// How long a lease lasts while a rule fires.
    const fn short(&self) -> Duration {
        self.every.saturating_mul(LEASE_ROUNDS)
    }

    /// Its random name.
    pub(crate) fn name(&self) -> String {
        self.name.clone()
    }

    /// Whether this instance tells `alert`. Waits at most for `redis.command_timeout_ms`.
    ///
    /// # Cancellation
    ///
    /// The lease may be this instance's all the same.
    pub(crate) async fn speaks(&self, alert: &Alert) -> bool {
        let Some(cooldown) = self.fleet.get(&alert.rule) else {
            return true;
        };
        let before = self.lock().words.get(&alert.rule).cloned();
        let (purpose, lease) = match (alert.state, &before) {
            (AlertTurn::Resolved, _) => (Purpose::Over, self.short().max(*cooldown)),
            (_, Some(word)) if word.said == Said::IsOver => (Purpose::Still, self.short()),
            _ => (Purpose::Fires, self.short()),
        };
        let claim = self.claim(&alert.rule, lease, purpose).await;
        let (speaks, word) = judged(alert, before.as_ref(), claim);
        match word {
            Some(word) => self.lock().words.insert(Arc::clone(&alert.rule), word),
            None => self.lock().words.remove(&alert.rule),
        };
        speaks
    }

    /// Takes note of the rules whose last judgement had no value.
    pub(crate) fn is_blind_to(&self, rules: HashSet<Arc<str>>) {
        self.lock().blind = rules;
    }

    /// Whether the rule fires here and another instance told it.
    pub(crate) fn told_by_other(&self, rule: &str) -> bool {
        let known = self.lock();
        known
            .words
            .get(rule)
            .is_some_and(|word| word.said != Said::Here && word.alert.state != AlertTurn::Resolved)
    }

    /// What was left to another instance to say: to be asked for again, in case that one is gone. Whether something
    /// fires still, nobody knows without a value; that it was over stays true.
    pub(crate) fn unspoken(&self) -> Vec<Alert> {
        let known = self.lock();
        let left = known.words.iter().filter(|(rule, word)| {
            let sees = !known.blind.contains(*rule) || word.alert.state == AlertTurn::Resolved;
            word.said != Said::Here && sees
        });
        left.map(|(_, word)| word.alert.clone()).collect()
    }

    /// Nothing that is done while it is held can panic half-way, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `alert` is told, and what is remembered of it.
fn judged(alert: &Alert, before: Option<&Word>, claim: Claim) -> (bool, Option<Word>) {
    let is_over = alert.state == AlertTurn::Resolved;
    let word = |said, unanswered| {
        let alert = alert.clone();
        Some(Word {
            alert,
            said,
            unanswered,
        })
    };
    let left = before.filter(|word| word.said != Said::Here && word.alert == *alert);
    if let (Claim::Unknown, Some(left)) = (claim, left) {
        // A speaker that cannot be asked for may be there and still firing: one that is over can wait.
        if is_over || left.unanswered < LEASE_ROUNDS {
            return (false, word(left.said, left.unanswered.saturating_add(1)));
        }
    }
    match (claim, is_over) {
        (Claim::Mine | Claim::Unknown, false) => (true, word(Said::Here, 0)),
        (Claim::Mine | Claim::Unknown, true) => (true, None),
        (Claim::Others, _) => (false, word(Said::Fires, 0)),
        // Somebody has said it.
        (Claim::OthersOver, true) => (false, None),
        (Claim::OthersOver, false) => match before.map(|word| word.said) {
            None | Some(Said::WasOver) => (false, word(Said::WasOver, 0)),
            Some(_) => (false, word(Said::IsOver, 0)),
        },
    }
}

#[cfg(not(feature = "redis"))]
impl Speaker {
    /// There is nobody else.
    async fn claim(&self, _: &str, _: Duration, _: Purpose) -> Claim {
        Claim::Mine
    }

    /// There is nothing to renew.
    pub(crate) async fn renew(&self) {}
}

#[cfg(feature = "redis")]
impl Speaker {
    /// Asks for a rule's lease.
    async fn claim(&self, rule: &str, lease: Duration, purpose: Purpose) -> Claim {
        Claim::of(&self.redis.call(&self.ask(rule, lease, purpose)).await)
    }

    /// Renews the leases of rules that fire here and were told here: one round trip, or none. A lease that Redis
    /// has lost is written anew; one that another instance has taken meanwhile is left to it, and what there is to
    /// say here is left to it as well. One of a rule without a value runs out.
    pub(crate) async fn renew(&self) {
        let due = self.due();
        if due.is_empty() || !self.redis.status().is_up() {
            return;
        }
        let mut batch = Batch::new();
        for (rule, _) in &due {
            batch = batch.call(self.ask(rule, self.short(), Purpose::Fires));
        }
        // What could not be renewed ends, and another instance speaks if it fires there as well.
        let Ok(mut answers) = self.redis.run_all(&batch).await else {
            return;
        };
        let mut known = self.lock();
        for (rule, lapsed) in &due {
            let claim = Claim::of(&answers.read());
            if let Some(word) = known.words.get_mut(rule) {
                word.renewed(claim, *lapsed);
            }
        }
    }

    /// Whose leases are to be renewed, and of each whether it was not for so long that another instance could have
    /// taken it, said that it is over, and lost it again.
    fn due(&self) -> Vec<(Arc<str>, bool)> {
        let mut known = self.lock();
        let Known { words, blind } = &mut *known;
        let mut due = Vec::new();
        for (rule, word) in words {
            if word.said != Said::Here {
                continue;
            }
            word.unanswered = word.unanswered.saturating_add(1);
            if !blind.contains(rule) {
                let cooldown = self.fleet.get(rule).copied().unwrap_or_default();
                let gap = self.every.saturating_mul(word.unanswered);
                due.push((Arc::clone(rule), gap > self.short().max(cooldown)));
            }
        }
        due
    }

    fn ask(&self, rule: &str, lease: Duration, purpose: Purpose) -> Call {
        let millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let word = match purpose {
            Purpose::Fires => "fires",
            Purpose::Still => "still",
            Purpose::Over => "over",
        };
        let call = Call::new(&ASK).key(self.redis.key(format_args!("alert:{rule}")));
        call.arg(self.name.as_str()).arg(millis.max(1)).arg(word)
    }
}

#[cfg(feature = "redis")]
impl Claim {
    /// What the script's answer says.
    fn of(answer: &Result<u64, StoreError>) -> Self {
        match answer {
            Ok(1) => Self::Mine,
            Ok(2) => Self::OthersOver,
            Ok(_) => Self::Others,
            Err(_) => Self::Unknown,
        }
    }
}

#[cfg(feature = "redis")]
impl Word {
    /// What was told here, once its renewal is answered.
    fn renewed(&mut self, claim: Claim, lapsed: bool) {
        if claim == Claim::Unknown {
            return;
        }
        self.unanswered = 0;
        // It is asked for in the same round, as what was always left to another: should that one have said that it
        // is over, this shows then, and a round passes before anything is made of it. Should it be nobody's, it is
        // said again, because the last word may have been another one's that it is over.
        if claim != Claim::Mine || lapsed {
            self.said = Said::Fires;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    #[cfg(feature = "redis")]
    use crate::alerts::measure::Measure;
    use crate::alerts::severity::Severity;

    fn alert(state: AlertTurn) -> Alert {
        Alert {
            rule: "a".into(),
            state,
            severity: Severity::Warning,
            measure: "lag".into(),
            route: None,
            value: 2.0,
            threshold: 1.0,
            at: SystemTime::UNIX_EPOCH,
            instance: "".into(),
            detail: "".into(),
            advice: "".into(),
        }
    }

    /// What is made of the answers to one alert, asked for until it is told or nothing is left of it.
    fn asked(alert: &Alert, mut word: Option<Word>, claims: &[Claim]) -> Vec<(bool, Option<Said>)> {
        let step = |claim: &Claim| {
            let (speaks, next) = judged(alert, word.as_ref(), *claim);
            word = next;
            (speaks, word.as_ref().map(|word| word.said))
        };
        claims.iter().map(step).collect()
    }

    /// That one fires, and what another instance has said.
    fn left(said: Said) -> Option<Word> {
        let (alert, unanswered) = (alert(AlertTurn::Firing), 0);
        Some(Word {
            alert,
            said,
            unanswered,
        })
    }

    /// Each hiccup used to make all silent instances speak at once.
    #[test]
    fn who_knows_that_another_spoke_speaks_without_an_answer_only_after_a_lease() {
        use Claim::{Others, Unknown};
        let firing = alert(AlertTurn::Firing);
        let told = (true, Some(Said::Here));
        assert_eq!(asked(&firing, None, &[Unknown]), [told], "a first word");
        for said in [Said::Fires, Said::WasOver, Said::IsOver] {
            let silent = (false, Some(said));
            let lost = [Unknown; 7];
            let mut expected = vec![silent; 6];
            expected.push(told);
            assert_eq!(asked(&firing, left(said), &lost), expected);
        }
        // An answer in between, and it begins anew.
        let claims = [vec![Unknown; 6], vec![Others], vec![Unknown; 7]].concat();
        let mut expected = vec![(false, Some(Said::Fires)); 13];
        expected.push(told);
        assert_eq!(asked(&firing, left(Said::Fires), &claims), expected);
        // What got worse is a word of its own.
        let worse = alert(AlertTurn::Escalated);
        assert_eq!(asked(&worse, left(Said::Fires), &[Unknown]), [told]);
    }

    /// A speaker that had lost its value kept its lease, and nobody could say that it got worse or was over.
    #[cfg(feature = "redis")]
    #[test]
    fn who_has_no_value_renews_nothing_and_asks_for_nothing_but_what_is_over() {
        let rule = AlertRule {
            cooldown: Duration::from_secs(90),
            ..AlertRule::above("a", Measure::Lag, 1.0)
        };
        let every = Duration::from_secs(10);
        let speaker = Speaker::new(&[rule], every, RedisPool::disabled());
        let remember = |word: Option<Word>| {
            let mut known = speaker.lock();
            known.words.extend(word.map(|word| ("a".into(), word)));
        };
        let blind = |blind: bool| {
            let rules = blind.then(|| "a".into());
            speaker.is_blind_to(rules.into_iter().collect());
        };
        let due = || -> Vec<_> {
            speaker
                .due()
                .into_iter()
                .map(|(_, lapsed)| lapsed)
                .collect()
        };
        remember(left(Said::Here));
        assert_eq!(due(), [false]);
        blind(true);
        for _ in 0..7 {
            assert!(due().is_empty());
        }
        blind(false);
        assert_eq!(due(), [false], "nine rounds are the cooldown");
        assert_eq!(due(), [true]);
        remember(left(Said::Fires));
        assert_eq!(speaker.unspoken().len(), 1);
        blind(true);
        assert!(speaker.unspoken().is_empty());
        let alert = alert(AlertTurn::Resolved);
        remember(left(Said::Fires).map(|word| Word { alert, ..word }));
        assert_eq!(speaker.unspoken().len(), 1, "that it is over stays true");
    }

    /// It used to believe for ever that it had the word.
    #[cfg(feature = "redis")]
    #[test]
    fn who_finds_another_ones_lease_when_renewing_is_silent_and_hears_that_it_is_over() {
        use Claim::{Mine, Others, OthersOver, Unknown};
        let renewed = |claim, lapsed| {
            let mut word = left(Said::Here)?;
            word.renewed(claim, lapsed);
            Some(word)
        };
        let said = |claim, lapsed| renewed(claim, lapsed).map(|word| word.said);
        assert_eq!(said(Mine, false), Some(Said::Here));
        assert_eq!(said(Mine, true), Some(Said::Fires), "it is said again");
        let lost = said(Unknown, true);
        assert_eq!(lost, Some(Said::Here), "it may be its own still");
        let silent = |claim| renewed(claim, false);
        let firing = alert(AlertTurn::Firing);
        let over = (false, Some(Said::IsOver));
        assert_eq!(
            asked(&firing, silent(Others), &[Others, OthersOver, Mine]),
            [(false, Some(Said::Fires)), over, (true, Some(Said::Here))]
        );
        assert_eq!(
            asked(&firing, silent(OthersOver), &[OthersOver, Mine]),
            [over, (true, Some(Said::Here))],
            "a round passes first"
        );
        let resolved = alert(AlertTurn::Resolved);
        assert_eq!(
            asked(&resolved, silent(OthersOver), &[OthersOver]),
            [(false, None)],
            "somebody has said it"
        );
    }
}
