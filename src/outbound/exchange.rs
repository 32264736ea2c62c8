//! What one remote says to the other instances, and what it takes from them.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::remote::{Remote, State, wake};
use crate::outbound::server_time::ServerTime;
use crate::outbound::sync::{Answer, Report, Seen};
use crate::outbound::window::{Told, Window};

impl Remote {
    /// What is to be said now. What was news of it is so still, until it was heard. Before the server's
    /// time is known it is only asked.
    pub(crate) fn report(&self, time: Option<ServerTime>) -> (Report, Moment) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        state.lease.listed = false;
        let (ledger, lease) = (&state.ledger, &state.lease);
        let want = state.line.len() as u64;
        let mut report = Report {
            held: ledger.uncounted().saturating_add(lease.tokens()),
            // What is in hand is for them as well.
            want: want.saturating_sub(lease.tokens()),
            ahead: lease.ahead(),
            ..Report::default()
        };
        if let Some(time) = time {
            let block = ledger.block().filter(|block| block.news);
            report.block = block.map_or(0, |block| time.at_most(block.until));
            let news = ledger.windows().iter().filter(|window| window.told.news);
            report.windows = news
                .map(|Window { name, told }| Seen {
                    name: String::from(&**name),
                    left: told.left,
                    limit: told.limit,
                    ends: told.ends.map_or(0, |ends| time.at_most(ends)),
                    sent: time.at_least(told.sent),
                    heard: time.at_most(told.heard),
                })
                .collect();
        }
        (report, now)
    }

    /// What was said `at` that moment was heard, in this epoch of news, and answered.
    pub(crate) fn settle(
        &self,
        (report, at): (&Report, Moment),
        (answer, time): (&Answer, ServerTime),
        epoch: u64,
    ) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        state
            .ledger
            .told(at, !report.windows.is_empty(), report.block > 0);
        for window in &answer.windows {
            let told = Told {
                left: window.left,
                limit: window.limit,
                ends: (window.ends > 0).then(|| time.no_earlier(window.ends)),
                sent: time.no_later(window.sent),
                heard: time.no_earlier(window.heard),
                news: false,
            };
            state.ledger.learn(&window.name, told);
        }
        if answer.block > 0 {
            let longest = now.plus(self.desk.block_max);
            let until = time.no_earlier(answer.block).min(longest);
            state.ledger.stop(now, until, false);
        }
        state.lease.held = report.held.saturating_add(answer.granted);
        state.lease.grant(answer.granted, report.want, epoch, now);
        let next = state.line.first();
        drop(state);
        wake(next);
    }

    /// Redis is there: has the others told what was heard without it, and asked what they know.
    pub(crate) fn introduce(&self) {
        let now = self.desk.clock.now();
        let mut state = self.lock();
        let epoch = self.desk.news.epoch(now);
        if state.has_news() || epoch.is_some_and(|epoch| !state.lease.has_seen(epoch)) {
            self.list(&mut state, now);
        }
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
        // What is held has to be said again and again, or others take it for gone.
        let holds = !state.ledger.windows().is_empty() && state.lease.held > 0;
        if holds || returned || state.has_news() {
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

impl State {
    /// Whether there is something that this instance has heard and the others have not.
    fn has_news(&self) -> bool {
        let windows = self.ledger.windows().iter();
        let mut news = windows.map(|window| window.told.news);
        news.any(|news| news) || self.ledger.block().is_some_and(|block| block.news)
    }
}
