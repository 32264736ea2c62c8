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
//! Redis away, slow or refusing: whoever has something new to say speaks, for to hear something twice is better
//! than not at all. A silent instance knows that another one has spoken, which one lost answer does not change; it
//! speaks when there was no answer for as long as a lease lasts.

use std::collections::HashMap;
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
    /// How long a lease lasts while a rule fires.
    short: Duration,
    /// Unlike that of any other instance, whatever they are called.
    name: String,
    #[cfg(feature = "redis")]
    redis: RedisPool,
    words: Mutex<HashMap<Arc<str>, Word>>,
}

/// The last word about a rule that fires here or elsewhere.
#[derive(Clone, Debug)]
struct Word {
    /// What there was to say here.
    alert: Alert,
    said: Said,
    /// For how many rounds in a row there was no answer from Redis.
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
            short: every.saturating_mul(LEASE_ROUNDS),
            name: format!("{first:016x}{second:016x}"),
            #[cfg(feature = "redis")]
            redis,
            words: Mutex::default(),
        }
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
        let before = self.lock().get(&alert.rule).cloned();
        let (purpose, lease) = match (alert.state, &before) {
            (AlertTurn::Resolved, _) => (Purpose::Over, self.short.max(*cooldown)),
            (_, Some(word)) if word.said == Said::IsOver => (Purpose::Still, self.short),
            _ => (Purpose::Fires, self.short),
        };
        let claim = self.claim(&alert.rule, lease, purpose).await;
        let (speaks, word) = judged(alert, before.as_ref(), claim);
        match word {
            Some(word) => self.lock().insert(Arc::clone(&alert.rule), word),
            None => self.lock().remove(&alert.rule),
        };
        speaks
    }

    /// Whether the rule fires here and another instance told it.
    pub(crate) fn told_by_other(&self, rule: &str) -> bool {
        let words = self.lock();
        words
            .get(rule)
            .is_some_and(|word| word.said != Said::Here && word.alert.state != AlertTurn::Resolved)
    }

    /// What was left to another instance to say: to be asked for again, in case that one is gone.
    pub(crate) fn unspoken(&self) -> Vec<Alert> {
        let words = self.lock();
        let unspoken = words.values().filter(|word| word.said != Said::Here);
        unspoken.map(|word| word.alert.clone()).collect()
    }

    /// Nothing that is done while it is held can panic half-way, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Word>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
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
        Claim::of(self.redis.call(&self.ask(rule, lease, purpose)).await)
    }

    /// Renews the leases of rules that fire here and were told here: one round trip, or none. A lease that Redis
    /// has lost is written anew; one that another instance has taken meanwhile is left to it, and what there is to
    /// say here is left to it as well.
    pub(crate) async fn renew(&self) {
        let told: Vec<_> = {
            let words = self.lock();
            let here = words.iter().filter(|(_, word)| word.said == Said::Here);
            here.map(|(rule, _)| Arc::clone(rule)).collect()
        };
        if told.is_empty() || !self.redis.status().is_up() {
            return;
        }
        let mut batch = Batch::new();
        for rule in &told {
            batch = batch.call(self.ask(rule, self.short, Purpose::Fires));
        }
        // What could not be renewed ends, and another instance speaks if it fires there as well.
        let Ok(mut answers) = self.redis.run_all(&batch).await else {
            return;
        };
        let mut words = self.lock();
        for rule in &told {
            let claim = Claim::of(answers.read());
            if let Some(word) = words.get_mut(rule) {
                word.said = renewed(claim);
            }
        }
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
    fn of(answer: Result<u64, StoreError>) -> Self {
        match answer {
            Ok(1) => Self::Mine,
            Ok(2) => Self::OthersOver,
            Ok(_) => Self::Others,
            Err(_) => Self::Unknown,
        }
    }
}

/// Who has spoken about a rule that was told here, as the answer to a renewal shows.
#[cfg(feature = "redis")]
fn renewed(claim: Claim) -> Said {
    match claim {
        Claim::Mine | Claim::Unknown => Said::Here,
        // It is asked for in the same round, as what was always left to another: should that one have said that it
        // is over, this shows then, and a round passes before anything is made of it.
        Claim::Others | Claim::OthersOver => Said::Fires,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
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

    /// It used to believe for ever that it had the word.
    #[cfg(feature = "redis")]
    #[test]
    fn who_finds_another_ones_lease_when_renewing_is_silent_and_hears_that_it_is_over() {
        use Claim::{Mine, Others, OthersOver, Unknown};
        assert_eq!(renewed(Mine), Said::Here);
        assert_eq!(renewed(Unknown), Said::Here, "it may be its own still");
        let silent = |claim| left(renewed(claim));
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
