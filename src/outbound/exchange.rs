//! What one remote says to the other instances, and what it takes from them.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::ledger::Told;
use crate::outbound::remote::{Remote, wake};
use crate::outbound::sync::{Answer, Report, Seen};

impl Remote {
    /// What is to be said now. What was news of it is so still, until it was heard.
    pub(crate) fn report(&self) -> (Report, Moment) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        state.lease.listed = false;
        let lease = &state.lease;
        let (ledger, want) = (&state.ledger, state.line.len() as u64);
        let block = ledger.block().filter(|block| block.news);
        let news = ledger.windows().iter().filter(|window| window.told.news);
        let report = Report {
            held: ledger.uncounted().saturating_add(lease.tokens()),
            // What is in hand is for them as well.
            want: want.saturating_sub(lease.tokens()),
            ahead: lease.ahead(),
            block: block.map_or(Duration::ZERO, |block| block.until.since(now)),
            windows: news
                .map(|window| Seen {
                    name: String::from(&*window.name),
                    left: window.told.left,
                    limit: window.told.limit,
                    ends_in: window.told.ends.map(|ends| ends.since(now)),
                    sent_ago: now.since(window.told.sent),
                    heard_ago: now.since(window.told.heard),
                })
                .collect(),
        };
        (report, now)
    }

    /// What was said `at` that moment was heard, in this epoch of news, and answered.
    pub(crate) fn settle(&self, (report, at): (&Report, Moment), answer: &Answer, epoch: u64) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        state.ledger.told(at);
        for window in &answer.windows {
            // Distances are from when the server answered, which is not before it was asked.
            let told = Told {
                left: window.left,
                limit: window.limit,
                ends: window.ends_in.map(|ends_in| now.plus(ends_in)),
                sent: at.minus(window.sent_ago),
                heard: now.minus(window.heard_ago),
                news: false,
            };
            state.ledger.learn(&window.name, told);
        }
        let until = now.plus(answer.block.min(self.desk.block_max));
        state.ledger.stop(now, until, false);
        state.lease.held = report.held.saturating_add(answer.granted);
        state.lease.grant(answer.granted, report.want, epoch, now);
        let next = state.line.first();
        drop(state);
        wake(next);
    }

    /// Nobody could be asked: go on alone.
    pub(crate) fn go_alone(&self) {
        let mut state = self.lock();
        state.lease.lose();
        state.lease.listed = false;
        let next = state.line.first();
        drop(state);
        wake(next);
    }

    /// A second has passed: has the others told what they do not know yet, and gives back what nobody
    /// uses.
    pub(crate) fn tick(&self) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        let returned = state.lease.tick();
        let ledger = &state.ledger;
        let news = ledger.windows().iter().any(|window| window.told.news)
            || ledger.block().is_some_and(|block| block.news);
        // What is held has to be said again and again, or others take it for gone.
        let holds = !ledger.windows().is_empty() && state.lease.held > 0;
        if news || holds || returned {
            self.list(&mut state, now);
        }
    }

    /// Another instance has heard something: how long the remote wants to be left alone, or that there
    /// are windows to be looked at.
    pub(crate) fn hear_say(&self, block: Duration) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        let until = now.plus(block.min(self.desk.block_max));
        state.ledger.stop(now, until, false);
        state.lease.look_again();
    }
}
