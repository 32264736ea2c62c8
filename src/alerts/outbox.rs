//! What waits to be told: bounded, in order, and never without the last word about a rule.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::alerts::alert::{Alert, AlertTurn};

/// Alerts that wait for one who tells them on.
///
/// # When it is full
///
/// First the oldest word about the same rule goes, then the oldest one that a later word about its rule has
/// made old news. Whoever is told that something fires is so never left without hearing that it is over, as
/// long as there is a place for each rule. Only where there is not, the oldest goes that is no `resolved`, or
/// just the oldest.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    news: Notify,
    places: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    alerts: VecDeque<Alert>,
    closed: bool,
    dropped: u64,
}

impl Outbox {
    /// One of so many places.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            news: Notify::new(),
            places: places.max(1),
        }
    }

    /// Lets an alert wait; what had to go for it is counted. After closing nothing waits any more.
    pub(crate) fn push(&self, alert: Alert) {
        let mut waiting = self.lock();
        if waiting.closed {
            waiting.dropped += 1;
            return;
        }
        if waiting.alerts.len() >= self.places {
            let victim = victim(&waiting.alerts, &alert);
            waiting.alerts.remove(victim);
            waiting.dropped += 1;
        }
        waiting.alerts.push_back(alert);
        drop(waiting);
        self.news.notify_one();
    }

    /// The next one, as soon as there is one; nothing once it is closed and empty. For one caller at a time.
    ///
    /// # Cancellation
    ///
    /// Takes nothing.
    pub(crate) async fn next(&self) -> Option<Alert> {
        loop {
            // A permit of `notify_one` is kept, so nothing that comes in between is missed.
            let news = self.news.notified();
            {
                let mut waiting = self.lock();
                if let Some(alert) = waiting.alerts.pop_front() {
                    return Some(alert);
                }
                if waiting.closed {
                    return None;
                }
            }
            news.await;
        }
    }

    /// Lets nothing more in; what waits can still be taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_one();
    }

    /// How many wait, and how many were dropped so far.
    pub(crate) fn figures(&self) -> (usize, u64) {
        let waiting = self.lock();
        (waiting.alerts.len(), waiting.dropped)
    }

    /// Nothing that is done while it is held can panic half-way, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which one goes.
fn victim(alerts: &VecDeque<Alert>, new: &Alert) -> usize {
    let same = alerts.iter().position(|alert| alert.rule == new.rule);
    let old_news = || {
        let later = |index: usize, rule: &str| {
            let mut later = alerts.iter().skip(index + 1);
            later.any(|alert| &*alert.rule == rule)
        };
        let mut all = alerts.iter().enumerate();
        all.find_map(|(index, alert)| later(index, &alert.rule).then_some(index))
    };
    let unresolved = || {
        let mut all = alerts.iter();
        all.position(|alert| alert.state != AlertTurn::Resolved)
    };
    same.or_else(old_news).or_else(unresolved).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::SystemTime;

    use proptest::prelude::*;

    use super::*;
    use crate::alerts::severity::Severity;

    fn alert(rule: &str, state: AlertTurn, number: usize) -> Alert {
        Alert {
            rule: rule.into(),
            state,
            severity: Severity::Warning,
            measure: "lag".into(),
            route: None,
            value: number as f64,
            threshold: 0.0,
            at: SystemTime::UNIX_EPOCH,
            instance: "".into(),
            detail: "".into(),
            advice: "".into(),
        }
    }

    fn left(outbox: &Outbox) -> String {
        let waiting = outbox.lock();
        let words = waiting.alerts.iter().map(|alert| {
            let state = alert.state.name();
            format!("{}{}", alert.rule, &state[..1])
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn when_it_is_full_old_news_go_first() {
        use AlertTurn::{Escalated, Firing, Resolved};
        for (before, new, after) in [
            (vec![("a", Firing), ("b", Firing)], ("a", Resolved), "bf ar"),
            (vec![("a", Firing), ("a", Resolved)], ("a", Firing), "ar af"),
            (
                vec![("b", Firing), ("b", Escalated)],
                ("a", Firing),
                "be af",
            ),
            (vec![("b", Resolved), ("c", Firing)], ("a", Firing), "br af"),
            (
                vec![("b", Resolved), ("c", Resolved)],
                ("a", Firing),
                "cr af",
            ),
        ] {
            let outbox = Outbox::new(2);
            for (rule, state) in before.into_iter().chain([new]) {
                outbox.push(alert(rule, state, 0));
            }
            assert_eq!(left(&outbox), after);
            assert_eq!(outbox.figures(), (2, 1));
        }
    }

    #[tokio::test]
    async fn what_waits_is_taken_after_closing_and_nothing_comes_in() {
        let outbox = Outbox::new(2);
        outbox.push(alert("a", AlertTurn::Firing, 0));
        outbox.close();
        outbox.push(alert("b", AlertTurn::Firing, 0));
        assert_eq!(&*outbox.next().await.unwrap().rule, "a");
        assert_eq!(outbox.next().await, None);
        assert_eq!(outbox.figures(), (0, 1));
    }

    proptest! {
        #[test]
        fn the_last_word_about_every_rule_is_told_and_words_keep_their_order(
            steps in proptest::collection::vec((0_usize..6, any::<bool>()), 0..200),
            places in 6_usize..9,
        ) {
            let outbox = Outbox::new(places);
            let mut said: HashMap<usize, usize> = HashMap::new();
            let mut heard: Vec<(String, usize)> = Vec::new();
            let mut pushed = 0;
            let take = |heard: &mut Vec<(String, usize)>| {
                let next = outbox.lock().alerts.pop_front();
                let more = next.is_some();
                heard.extend(next.map(|next| (next.rule.to_string(), next.value as usize)));
                more
            };
            for (number, (rule, takes)) in steps.iter().enumerate() {
                outbox.push(alert(&rule.to_string(), AlertTurn::Firing, number));
                said.insert(*rule, number);
                pushed += 1;
                prop_assert!(outbox.figures().0 <= places);
                if *takes {
                    take(&mut heard);
                }
            }
            while take(&mut heard) {}
            let dropped = outbox.figures().1 as usize;
            prop_assert_eq!(heard.len() + dropped, pushed);
            for (rule, last) in said {
                let of_rule = heard.iter().filter(|(name, _)| *name == rule.to_string());
                prop_assert_eq!(of_rule.map(|(_, number)| *number).max(), Some(last));
            }
            prop_assert!(heard.is_sorted_by_key(|(_, number)| *number));
        }
    }
}
