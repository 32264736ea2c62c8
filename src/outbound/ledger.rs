//! What is known of one remote: a plain state machine over values, in which `now` is a parameter.
//!
//! # What is left
//!
//! A remote's answer is true for some moment between when its request was sent and when the answer was
//! heard, and answers overtake each other. So a word about what is left carries both moments. One whose
//! request was sent after the other was heard is newer, and replaces it. Of two that overlap, the one
//! with the later end speaks of a newer window, and within one window the lower count is right, because
//! counts only fall. From what is told, all requests under way are taken off, whether the remote has
//! counted them or not: too few are let through for as long as they take, never too many.
//!
//! # When a window ends
//!
//! Where the whole is known, so much is taken to be left, until the remote says better; that keeps a
//! herd of waiting requests within one window. Where it is not, and the window was used up, one request
//! goes ahead, and each good answer doubles how many may be under way: the *trial*. It also follows a
//! time in which the remote wanted to be left alone.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::fields::{Heard, Stop, WINDOWS_MAX, Word};

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

/// One of the remote's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) name: Box<str>,
    pub(crate) told: Told,
}

/// What the remote said of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What was left.
    pub(crate) left: u64,
    /// The whole.
    pub(crate) limit: Option<u64>,
    /// Until when it holds. `None` for a window that has ended: then `left` is the whole of the next, of
    /// which the remote has not spoken yet.
    pub(crate) ends: Option<Moment>,
    /// When the request was sent that it answers.
    pub(crate) sent: Moment,
    /// When it was heard.
    pub(crate) heard: Moment,
    /// Whether this instance has heard it itself and told no other yet.
    pub(crate) news: bool,
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

    /// Others know what was heard up to then.
    #[cfg(feature = "redis")]
    pub(crate) fn told(&mut self, at: Moment) {
        for window in &mut self.windows {
            window.told.news &= window.told.heard > at;
        }
        if let Some(block) = &mut self.block {
            block.news &= block.heard > at;
        }
    }
}

impl Told {
    fn heard(word: &Word<'_>, sent: Moment, now: Moment, bound: Duration) -> Self {
        Self {
            left: word.left,
            // A window that is cut short does not begin again when it is cut. And of a whole that is
            // nothing, nobody could ever learn that it is more.
            limit: word.limit.filter(|whole| *whole > 0 && word.lasts <= bound),
            ends: Some(now.plus(word.lasts.min(bound))),
            sent,
            heard: now,
            news: true,
        }
    }

    /// Takes over what is newer; see the file's head.
    fn learn(&mut self, new: Self) {
        let limit = new.limit.or(self.limit);
        if self.is_older_than(&new) {
            *self = new;
        }
        self.limit = limit;
    }

    fn is_older_than(&self, new: &Self) -> bool {
        let (Some(ends), Some(new_ends)) = (self.ends, new.ends) else {
            return self.ends.is_none();
        };
        if new.sent > self.heard {
            true
        } else if new.heard < self.sent || new_ends.plus(SAME_END) < ends {
            false
        } else {
            new_ends > ends.plus(SAME_END) || new.left <= self.left
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

/// Ends are told in whole seconds and heard after some time on the way: within this they are the same.
const SAME_END: Duration = Duration::from_secs(2);
