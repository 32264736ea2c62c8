//! What is known of one remote: a plain state machine over values, in which `now` is a parameter.
//!
//! # What is left
//!
//! From what is [`Told`], all requests under way are taken off, whether the remote has counted them or
//! not: too few are let through for as long as they take, never too many.
//!
//! # When a window ends
//!
//! Where the whole is known, so much is taken to be left, until the remote says better; that keeps a
//! herd of waiting requests within one window. Where it is not, and the window was used up, one request
//! goes ahead, and each good answer doubles how many may be under way: the *trial*. It also follows a
//! time in which the remote wanted to be left alone.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::fields::{Heard, Stop, WINDOWS_MAX};
use crate::outbound::window::{Told, Window};

/// One remote's quota as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    windows: Vec<Window>,
    block: Option<Block>,
    /// When the last refusal without a hint was heard, and how many came in a row.
    unhinted: (Moment, u32),
    /// How many may be under way while nothing is known and the last thing heard was a refusal.
    trial: Option<u64>,
    under_way: u64,
    /// Requests that were given up on their way: the remote has probably counted them. And when.
    dropped: (u64, Moment),
    /// This instance's share of the scatter, in 1024ths.
    scatter: u16,
}

/// A time in which the remote wants to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    from: Moment,
    pub(crate) until: Moment,
    /// When it was heard of last.
    heard: Moment,
    /// Whether this instance has heard it itself and told no other yet.
    pub(crate) news: bool,
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Go,
    /// Not before this moment.
    Until(Moment),
    /// Not now. The answer to a request under way may change that, or this moment.
    Maybe(Option<Moment>),
    /// The other instances have to be asked first, which takes a round trip to Redis at most.
    #[cfg_attr(
        not(feature = "redis"),
        expect(dead_code, reason = "without Redis nobody can be asked")
    )]
    Asking,
}

/// What an answer has changed, for those who tell others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The remote wants to be left alone for so long, and did not before.
    pub(crate) blocked: Option<Duration>,
    /// A window is known where none was.
    pub(crate) first_window: bool,
}

impl Ledger {
    /// Nothing known. `scatter`: this instance's share of the scatter, in 1024ths.
    pub(crate) fn new(scatter: u16) -> Self {
        Self {
            scatter: scatter % 1024,
            ..Self::default()
        }
    }

    /// Whether a request may be sent now.
    pub(crate) fn verdict(&mut self, now: Moment) -> Verdict {
        self.lapse(now);
        if let Some(block) = self.block {
            return Verdict::Until(self.scattered(block.from, block.until));
        }
        let mut verdict = Verdict::Go;
        if self.trial.is_some_and(|most| self.under_way >= most) {
            verdict = Verdict::Maybe(None);
        }
        for window in &self.windows {
            verdict = verdict.and(self.of_window(&window.told));
        }
        verdict
    }

    fn of_window(&self, told: &Told) -> Verdict {
        let Some(ends) = told.ends else {
            let free = told.left > self.under_way;
            return if free {
                Verdict::Go
            } else {
                Verdict::Maybe(None)
            };
        };
        let left = told.left.saturating_sub(self.dropped.0);
        let ends = self.scattered(told.heard, ends);
        if left > self.under_way {
            Verdict::Go
        } else if left > 0 {
            // Some of those under way may be in the count already, or come to nothing.
            Verdict::Maybe(Some(ends))
        } else {
            Verdict::Until(ends)
        }
    }

    /// A request is sent.
    pub(crate) fn send(&mut self) {
        self.under_way = self.under_way.saturating_add(1);
    }

    /// A request was never answered, and the remote has probably not seen it.
    pub(crate) fn give_back(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// A request was given up on its way.
    pub(crate) fn give_up(&mut self, now: Moment) {
        self.give_back();
        if self.windows.iter().any(|window| window.told.ends.is_some()) {
            self.dropped = (self.dropped.0.saturating_add(1), now);
        }
    }

    /// The answer to a request that was sent at `sent`. No remote is believed for longer than `bound`.
    pub(crate) fn hear(
        &mut self,
        heard: &Heard<'_>,
        sent: Moment,
        now: Moment,
        bound: Duration,
    ) -> Changed {
        self.give_back();
        self.lapse(now);
        let (unblocked, unknown) = (self.block.is_none(), self.windows.is_empty());
        match heard.stop {
            // Whatever was said about windows, this is the remote's last word.
            Stop::For(wait) => {
                self.windows.clear();
                self.stop(now, now.plus(wait.min(bound)), true);
            }
            Stop::Unhinted => {
                self.stop_unhinted(sent, now, bound);
                self.listen(heard, sent, now, bound);
            }
            Stop::No => {
                self.unhinted.1 = 0;
                self.trial = self.trial.map(|most| most * 2).filter(|n| *n <= TRIAL_MAX);
                self.listen(heard, sent, now, bound);
            }
        }
        let until = self.block.filter(|_| unblocked).map(|block| block.until);
        Changed {
            blocked: until.map(|until| until.since(now)),
            first_window: unknown && !self.windows.is_empty(),
        }
    }

    fn listen(&mut self, heard: &Heard<'_>, sent: Moment, now: Moment, bound: Duration) {
        let mut told = false;
        // What is over already says nothing about now.
        for word in heard.words.iter().filter(|word| !word.lasts.is_zero()) {
            told = true;
            self.learn(word.name, Told::heard(word, sent, now, bound));
        }
        if told {
            // There is something better to go by.
            self.trial = None;
            if sent > self.dropped.1 {
                self.dropped.0 = 0;
            }
        }
    }

    /// Takes in what this instance or another one has heard of a window. Of more windows than are kept,
    /// those stay that have the least left.
    pub(crate) fn learn(&mut self, name: &str, told: Told) {
        let windows = &mut self.windows;
        if let Some(known) = windows.iter_mut().find(|known| *known.name == *name) {
            known.told.learn(told);
            return;
        }
        if windows.len() >= WINDOWS_MAX {
            let counts = windows.iter().map(|window| window.told.left).enumerate();
            match counts.max_by_key(|(_, left)| *left) {
                Some((at, left)) if left > told.left => drop(windows.swap_remove(at)),
                _ => return,
            }
        }
        let name = name.into();
        windows.push(Window { name, told });
    }

    /// Leaves the remote alone until then, at least.
    pub(crate) fn stop(&mut self, now: Moment, until: Moment, news: bool) {
        match &mut self.block {
            Some(block) if block.until >= until => {}
            Some(block) => (block.until, block.heard, block.news) = (until, now, news),
            None if until > now => {
                self.block = Some(Block {
                    from: now,
                    until,
                    heard: now,
                    news,
                });
            }
            None => {}
        }
    }

    /// Waits twice as long from refusal to refusal. Those that were under way when the last one came are
    /// refused for the same reason, and count once.
    fn stop_unhinted(&mut self, sent: Moment, now: Moment, bound: Duration) {
        let (last, times) = self.unhinted;
        if times > 0 && sent <= last {
            return;
        }
        let wait = BACKOFF_FIRST * (1 << times.min(BACKOFF_DOUBLINGS));
        self.unhinted = (now, times + 1);
        self.stop(now, now.plus(wait.min(bound)), true);
    }

    /// Forgets what is over.
    fn lapse(&mut self, now: Moment) {
        if let Some(block) = self.block
            && self.scattered(block.from, block.until) <= now
        {
            self.block = None;
            self.trial = Some(1);
        }
        let mut windows = std::mem::take(&mut self.windows);
        windows.retain_mut(|window| {
            let told = &mut window.told;
            let ends = told.ends.map(|ends| self.scattered(told.heard, ends));
            ends.is_none_or(|ends| ends > now) || self.ended(told)
        });
        self.windows = windows;
    }

    /// A window is over. Returns whether there is still something to know about it.
    fn ended(&mut self, told: &mut Told) -> bool {
        let used_up = told.left <= self.uncounted();
        self.dropped.0 = 0;
        told.ends = None;
        told.news = false;
        match told.limit {
            Some(limit) => told.left = limit,
            None if used_up => self.trial = Some(self.trial.unwrap_or(1)),
            None => {}
        }
        told.limit.is_some()
    }

    /// Never earlier than said, and not the same for all instances: up to a tenth later, at most 1 s.
    fn scattered(&self, from: Moment, until: Moment) -> Moment {
        let most = (until.since(from) / 10).min(SCATTER_MAX);
        until.plus(most * u32::from(self.scatter) / 1024)
    }

    pub(crate) fn windows(&self) -> &[Window] {
        &self.windows
    }

    pub(crate) const fn block(&self) -> Option<Block> {
        self.block
    }

    /// How many the remote may have to count yet, beyond what it told.
    pub(crate) const fn uncounted(&self) -> u64 {
        self.under_way.saturating_add(self.dropped.0)
    }

    /// How many requests are under way.
    pub(crate) const fn under_way(&self) -> u64 {
        self.under_way
    }

    /// What is left of the window with the least, and when it ends, if that is known.
    pub(crate) fn least(&self) -> Option<(u64, Option<Moment>)> {
        let left = self.windows.iter().map(|window| {
            let left = window.told.left.saturating_sub(self.uncounted());
            (left, window.told.ends)
        });
        left.min_by_key(|(left, _)| *left)
    }

    /// Others know what was heard up to then, of windows and of a block.
    #[cfg(feature = "redis")]
    pub(crate) fn told(&mut self, at: Moment, windows: bool, block: bool) {
        for window in self.windows.iter_mut().filter(|_| windows) {
            window.told.news &= window.told.heard > at;
        }
        if let Some(known) = self.block.as_mut().filter(|_| block) {
            known.news &= known.heard > at;
        }
    }
}

impl Verdict {
    /// What both of them allow.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Go, other) | (other, Self::Go) => other,
            (Self::Until(one), Self::Until(other)) => Self::Until(one.max(other)),
            (Self::Until(one), _) | (_, Self::Until(one)) => Self::Until(one),
            (Self::Maybe(one), Self::Maybe(other)) => Self::Maybe(one.max(other)),
            (Self::Asking, _) | (_, Self::Asking) => Self::Asking,
        }
    }
}

/// The first wait for a remote that refuses without saying for how long, and how often it doubles:
/// up to 64 s.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_DOUBLINGS: u32 = 6;

/// A trial that has come so far is over.
const TRIAL_MAX: u64 = 64;

const SCATTER_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outbound::fields::{Word, Words};

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(millis: u64) -> Moment {
        Moment::default().plus(Duration::from_millis(millis))
    }

    fn word(name: &str, left: u64, limit: Option<u64>, secs: u64) -> Word<'_> {
        let lasts = Duration::from_secs(secs);
        Word {
            name,
            left,
            limit,
            lasts,
        }
    }

    fn heard<'a>(stop: Stop, words: &[Word<'a>]) -> Heard<'a> {
        let mut all = Words::default();
        words.iter().for_each(|word| all.add(*word));
        Heard { stop, words: all }
    }

    /// What is left, and for how many seconds.
    fn left(left: u64, secs: u64) -> Heard<'static> {
        heard(Stop::No, &[word("", left, None, secs)])
    }

    fn nothing() -> Heard<'static> {
        heard(Stop::No, &[])
    }

    fn stop(secs: u64) -> Heard<'static> {
        heard(Stop::For(Duration::from_secs(secs)), &[])
    }

    impl Ledger {
        /// Sends as many as it allows, `most` at the most, and returns how many those were.
        fn sends(&mut self, now: u64, most: u64) -> u64 {
            let mut sent = 0;
            while sent < most && self.verdict(at(now)) == Verdict::Go {
                self.send();
                sent += 1;
            }
            sent
        }

        /// The answer to a request, from when to when.
        fn hears(&mut self, heard: &Heard<'_>, sent: u64, now: u64) -> Changed {
            self.hear(heard, at(sent), at(now), HOUR)
        }
    }

    #[test]
    fn as_many_are_sent_as_are_left_and_the_rest_waits_for_the_end() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.sends(0, 1), 1, "nothing is known");
        assert!(ledger.hears(&left(3, 60), 0, 100).first_window);
        assert_eq!(ledger.sends(200, 100), 3);
        assert_eq!(ledger.verdict(at(200)), Verdict::Maybe(Some(at(60_100))));
        // Answers come as they like; none of them makes it more.
        for (told, now) in [(1, 300), (0, 310), (2, 320)] {
            assert!(!ledger.hears(&left(told, 60), 200, now).first_window);
            assert_eq!(ledger.sends(now, 100), 0, "{told}");
        }
        assert_eq!(ledger.verdict(at(400)), Verdict::Until(at(60_310)));
    }

    #[test]
    fn what_came_to_nothing_is_given_back_and_what_was_given_up_is_not() {
        let mut ledger = Ledger::default();
        ledger.send();
        ledger.hears(&left(2, 60), 0, 1);
        assert_eq!(ledger.sends(2, 9), 2);
        ledger.give_back();
        assert_eq!(ledger.sends(3, 9), 1);
        ledger.give_up(at(4));
        assert_eq!(ledger.sends(4, 9), 0);
        assert_eq!(ledger.least(), Some((0, Some(at(60_001)))));
        // This one was sent before the other was given up, so the remote may count that one yet.
        ledger.hears(&left(1, 60), 3, 5);
        assert_eq!(ledger.sends(6, 9), 0);
        assert_eq!(ledger.verdict(at(6)), Verdict::Until(at(60_005)));
    }

    #[test]
    fn a_word_that_was_asked_for_later_knows_of_those_given_up() {
        let mut ledger = Ledger::default();
        ledger.send();
        ledger.hears(&left(3, 60), 0, 1);
        assert_eq!(ledger.sends(2, 1), 1);
        ledger.give_up(at(3));
        assert_eq!(ledger.sends(4, 1), 1);
        ledger.hears(&left(1, 60), 4, 5);
        assert_eq!(ledger.sends(6, 9), 1);
    }

    #[test]
    fn a_later_word_replaces_an_earlier_one_whichever_is_more() {
        let mut ledger = Ledger::default();
        for (told, sent, now, known) in [
            (5, 0, 10, 5),
            // Sent before the last was heard: of the same window the lower one counts.
            (7, 5, 20, 5),
            (4, 6, 30, 4),
            // Sent after: it knows better.
            (9, 31, 40, 9),
            // Heard before the last was even sent.
            (1, 1, 30, 9),
        ] {
            ledger.send();
            ledger.hears(&left(told, 60), sent, now);
            assert_eq!(ledger.least().unwrap().0, known, "{told} at {now}");
        }
        // Overlapping, but of the next window.
        ledger.send();
        ledger.hears(&left(50, 63), 35, 45);
        assert_eq!(ledger.least(), Some((50, Some(at(63_045)))));
        // Overlapping, and of the last one.
        ledger.send();
        ledger.hears(&left(0, 60), 36, 46);
        assert_eq!(ledger.least(), Some((50, Some(at(63_045)))));
    }

    #[test]
    fn every_window_has_its_say() {
        let mut ledger = Ledger::default();
        ledger.send();
        let words = [word("second", 0, None, 1), word("day", 40, None, 86_400)];
        ledger.hears(&heard(Stop::No, &words), 0, 0);
        assert_eq!(ledger.verdict(at(0)), Verdict::Until(at(1000)));
        assert_eq!(ledger.sends(1000, 100), 1, "one goes ahead");
        let words = [word("second", 90, None, 1), word("day", 39, None, 86_400)];
        ledger.hears(&heard(Stop::No, &words), 1000, 1001);
        assert_eq!(ledger.sends(1002, 100), 39);
    }

    #[test]
    fn the_next_window_is_as_large_as_the_remote_said() {
        let mut ledger = Ledger::default();
        ledger.send();
        ledger.hears(&heard(Stop::No, &[word("", 0, Some(10), 60)]), 0, 0);
        assert_eq!(ledger.verdict(at(59_999)), Verdict::Until(at(60_000)));
        assert_eq!(ledger.sends(60_000, 100), 10);
        assert_eq!(ledger.verdict(at(60_000)), Verdict::Maybe(None));
        // Where answers tell nothing any more it bounds how many are under way, and nothing for ever.
        for _ in 0..10 {
            ledger.give_up(at(60_001));
        }
        assert_eq!(ledger.sends(60_002, 100), 10);
        ledger.hears(
            &heard(Stop::No, &[word("", 25, Some(40), 60)]),
            60_002,
            60_003,
        );
        assert_eq!(ledger.sends(60_004, 100), 16, "25 less 9 under way");
    }

    #[test]
    fn after_a_refusal_one_goes_ahead_and_good_answers_open_up() {
        let mut ledger = Ledger::default();
        ledger.send();
        let changed = ledger.hears(&stop(10), 0, 0);
        assert_eq!(changed.blocked, Some(Duration::from_secs(10)));
        assert_eq!(ledger.verdict(at(9_999)), Verdict::Until(at(10_000)));
        let mut now = 10_000;
        for most in [1, 2, 4, 8, 16, 32, 64] {
            assert_eq!(ledger.sends(now, 1000), most);
            for _ in 0..most {
                now += 1;
                // All but one come to nothing, and so they say nothing.
                ledger.give_back();
            }
            ledger.send();
            ledger.hears(&nothing(), now, now);
        }
        assert_eq!(ledger.sends(now, 1000), 1000);
    }

    #[test]
    fn the_remotes_wish_to_be_left_alone_beats_what_it_told_before() {
        let mut ledger = Ledger::default();
        ledger.send();
        ledger.hears(&left(0, 3000), 0, 0);
        ledger.send();
        ledger.hears(&stop(2), 0, 1);
        assert_eq!(ledger.verdict(at(2)), Verdict::Until(at(2001)));
        assert_eq!(ledger.sends(2001, 9), 1);
        // Of two wishes the longer one counts.
        for (secs, until) in [(5, 8000), (1, 8000), (7, 10_000)] {
            ledger.send();
            ledger.hears(&stop(secs), 0, 3000);
            assert_eq!(ledger.verdict(at(3000)), Verdict::Until(at(until)));
        }
    }

    #[test]
    fn refusals_without_a_hint_double_the_wait_once_for_each_that_was_sent_after_the_last() {
        let mut ledger = Ledger::default();
        let unhinted = heard(Stop::Unhinted, &[]);
        let mut now = 0;
        for secs in [1, 2, 4, 8, 16, 32, 64, 64] {
            for _ in 0..50 {
                ledger.send();
                // They were all under way when the first was refused.
                ledger.hears(&unhinted, now, now + 10);
            }
            let until = now + 10 + secs * 1000;
            assert_eq!(ledger.verdict(at(now + 20)), Verdict::Until(at(until)));
            assert_eq!(ledger.verdict(at(until)), Verdict::Go);
            now = until;
        }
        ledger.send();
        ledger.hears(&nothing(), now, now);
        ledger.send();
        ledger.hears(&unhinted, now + 1, now + 2);
        assert_eq!(ledger.verdict(at(now + 2)), Verdict::Until(at(now + 1002)));
    }

    #[test]
    fn nobody_is_believed_for_longer_than_allowed() {
        let year = 31_536_000;
        let mut ledger = Ledger::default();
        ledger.send();
        ledger.hears(&stop(year), 0, 0);
        assert_eq!(ledger.verdict(at(0)), Verdict::Until(at(3_600_000)));
        assert_eq!(ledger.sends(3_600_000, 9), 1);
        let words = [word("", 0, Some(1_000_000), year)];
        ledger.hears(&heard(Stop::No, &words), 3_600_000, 3_600_000);
        assert_eq!(ledger.verdict(at(3_600_000)), Verdict::Until(at(7_200_000)));
        // That window has not ended, so nobody takes the next one for begun.
        assert_eq!(ledger.sends(7_200_000, 9), 1);
    }

    #[test]
    fn instances_come_back_scattered_and_none_too_early() {
        for (scatter, secs, later) in [
            (0, 10, 0),
            (512, 10, 500),
            (512, 2, 100),
            (1023, 3000, 999),
            (1024, 10, 0),
        ] {
            let mut ledger = Ledger::new(scatter);
            ledger.send();
            ledger.hears(&stop(secs), 0, 0);
            let Verdict::Until(until) = ledger.verdict(at(0)) else {
                panic!("{:?}", ledger.verdict(at(0)));
            };
            let late = until.since(at(secs * 1000));
            assert!(
                until >= at(secs * 1000) && late.as_millis() == later,
                "{late:?}"
            );
        }
    }

    #[test]
    fn windows_beyond_the_bound_push_out_those_with_the_most_left() {
        let mut ledger = Ledger::default();
        for (name, told) in [("a", 1), ("b", 9), ("c", 3), ("d", 4), ("e", 5), ("f", 99)] {
            ledger.send();
            ledger.hears(&heard(Stop::No, &[word(name, told, None, 60)]), 0, 0);
        }
        let mut names: Vec<_> = ledger.windows().iter().map(|known| &*known.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "c", "d", "e"]);
    }

    /// A remote that counts, and requests that travel: each is counted at some moment on its way, and its
    /// answer tells what was left at that moment.
    #[derive(Debug, Default)]
    struct Wire {
        /// When sent, and what the remote then told, once it has counted it.
        travelling: Vec<(u64, Option<u64>)>,
        left: u64,
        refused: u64,
    }

    impl Wire {
        fn count(&mut self, at: usize) {
            let (_, told) = &mut self.travelling[at];
            if told.is_none() {
                self.refused += u64::from(self.left == 0);
                self.left = self.left.saturating_sub(1);
                *told = Some(self.left);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// Within a window that is known, the remote never has to refuse: whatever the order in which
        /// requests are sent, counted, answered, given up and lost.
        #[test]
        fn never_more_are_sent_than_the_remote_has_left(
            quota in 0_u64..40,
            steps in prop::collection::vec((0_u8..8, any::<prop::sample::Index>()), 0..400),
        ) {
            let (mut ledger, mut wire) = (Ledger::default(), Wire { left: quota, ..Wire::default() });
            ledger.send();
            ledger.hears(&left(quota, 3000), 0, 1);
            let mut sent = 0_u64;
            for (now, (step, which)) in (2_u64..).zip(steps) {
                match step {
                    0..=2 => {
                        let more = ledger.sends(now, 3);
                        wire.travelling.extend((0..more).map(|_| (now, None)));
                        sent += more;
                    }
                    _ if wire.travelling.is_empty() => {}
                    3 | 4 => wire.count(which.index(wire.travelling.len())),
                    5 | 6 => {
                        let one = which.index(wire.travelling.len());
                        wire.count(one);
                        let (from, told) = wire.travelling.swap_remove(one);
                        ledger.hears(&left(told.unwrap(), 3000), from, now);
                    }
                    _ => {
                        let one = which.index(wire.travelling.len());
                        let (_, told) = wire.travelling.swap_remove(one);
                        if told.is_some() {
                            ledger.give_up(at(now));
                        } else {
                            ledger.give_back();
                            sent -= 1;
                        }
                    }
                }
                prop_assert_eq!(wire.refused, 0);
                prop_assert!(sent <= quota);
            }
            while !wire.travelling.is_empty() {
                wire.count(0);
                let (from, told) = wire.travelling.swap_remove(0);
                ledger.hears(&left(told.unwrap(), 3000), from, 1000);
            }
            let rest = ledger.sends(2000, 100);
            prop_assert!(rest <= wire.left);
            // And none is left over, unless some were given up and nothing was heard since.
            prop_assert!(rest + ledger.dropped.0 >= wire.left, "{} of {}", rest, wire.left);
        }

        #[test]
        fn nothing_that_is_heard_makes_it_panic_or_wait_for_ever(
            words in prop::collection::vec(
                (0_u8..6, any::<u64>(), any::<Option<u64>>(), any::<u64>(), any::<u32>()),
                0..50,
            ),
        ) {
            let mut ledger = Ledger::new(1023);
            let mut now = 0_u64;
            for (kind, told, limit, secs, step) in words {
                now = now.saturating_add(u64::from(step % 10_000));
                let sent = now / 2;
                let words = [word("x", told, limit, secs), word("y", secs, None, told)];
                match kind {
                    0 => ledger.send(),
                    1 => ledger.give_up(at(now)),
                    2 => ledger.give_back(),
                    3 => drop(ledger.hears(&stop(secs), sent, now)),
                    4 => drop(ledger.hears(&heard(Stop::Unhinted, &words), sent, now)),
                    _ => drop(ledger.hears(&heard(Stop::No, &words), sent, now)),
                }
                if let Verdict::Until(until) = ledger.verdict(at(now)) {
                    prop_assert!(until > at(now));
                    prop_assert!(until <= at(now).plus(HOUR + SCATTER_MAX));
                }
            }
            while ledger.under_way() > 0 {
                ledger.give_back();
            }
            let later = at(now).plus(HOUR * 2);
            prop_assert_eq!(ledger.verdict(later), Verdict::Go);
        }
    }
}
