//! Whether a server that still moves is too slow to be of use.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// The missed deadlines of the last second. A server that answers something, but half of it too late,
/// is worse than none: every request would wait its whole deadline for nothing.
#[derive(Debug, Default)]
pub(crate) struct Window {
    misses: VecDeque<Miss>,
}

/// What the misses of the last second come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Bearable,
    /// At least half of the answers come too late.
    Slow,
    /// It stopped: those that missed were sent just before the last answer came.
    Silent,
}

#[derive(Debug)]
struct Miss {
    at: Moment,
    /// How many replies had come in all until then.
    replied: u64,
}

/// How far back the window looks.
const SPAN: Duration = Duration::from_secs(1);
/// Fewer misses than these are bad luck.
const ENOUGH: usize = 5;

impl Window {
    /// Notes a miss at `now`, when `replied` replies had come in all. The server is to be given up where
    /// there were enough misses within the span, and not more replies than misses.
    pub(crate) fn miss(&mut self, now: Moment, replied: u64) -> Verdict {
        let begin = now.minus(SPAN);
        while self.misses.front().is_some_and(|miss| miss.at < begin) || self.misses.len() > MOST {
            self.misses.pop_front();
        }
        self.misses.push_back(Miss { at: now, replied });
        let oldest = self.misses.front().map_or(replied, |miss| miss.replied);
        let replies = replied.saturating_sub(oldest);
        match self.misses.len() {
            misses if misses < ENOUGH || replies > misses as u64 => Verdict::Bearable,
            _ if replies == 0 => Verdict::Silent,
            _ => Verdict::Slow,
        }
    }
}

/// Room for this many misses; the oldest make way.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn half_the_replies_missing_is_too_slow() {
        let mut window = Window::default();
        let verdicts: Vec<_> = (0..5).map(|n| window.miss(at(n * 50), n)).collect();
        let [first @ .., last] = verdicts.as_slice() else {
            unreachable!("there are five");
        };
        assert!(first.iter().all(|verdict| *verdict == Verdict::Bearable));
        assert_eq!(*last, Verdict::Slow);
    }

    #[test]
    fn no_reply_between_the_misses_is_silence() {
        let mut window = Window::default();
        let verdicts: Vec<_> = (0..5).map(|_| window.miss(at(50), 7)).collect();
        assert_eq!(verdicts.last(), Some(&Verdict::Silent));
    }

    #[test]
    fn a_few_misses_among_many_replies_are_no_reason() {
        let mut window = Window::default();
        let bearable = |n: u64| window.miss(at(n * 5), n * 10) == Verdict::Bearable;
        assert!((0..200).all(bearable));
    }

    #[test]
    fn old_misses_are_forgotten() {
        let mut window = Window::default();
        let bearable = |n: u64| window.miss(at(n * 400), n) == Verdict::Bearable;
        assert!((0..100).all(bearable));
    }

    #[test]
    fn memory_is_bounded() {
        let mut window = Window::default();
        for n in 0..10_000 {
            window.miss(at(0), n);
        }
        assert!(window.misses.len() <= MOST + 1);
    }
}
