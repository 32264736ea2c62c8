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
    /// Notes a miss at `now`, when `replied` replies had come in all. Returns whether the server is to
    /// be given up: there were enough misses within the span, and not more replies than misses.
    pub(crate) fn miss(&mut self, now: Moment, replied: u64) -> bool {
        let begin = now.minus(SPAN);
        while self.misses.front().is_some_and(|miss| miss.at < begin) || self.misses.len() > MOST {
            self.misses.pop_front();
        }
        self.misses.push_back(Miss { at: now, replied });
        let oldest = self.misses.front().map_or(replied, |miss| miss.replied);
        let replies = replied.saturating_sub(oldest);
        self.misses.len() >= ENOUGH && replies <= self.misses.len() as u64
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
        assert_eq!(verdicts, [false, false, false, false, true]);
    }

    #[test]
    fn a_few_misses_among_many_replies_are_no_reason() {
        let mut window = Window::default();
        assert!((0..200).all(|n| !window.miss(at(n * 5), n * 10)));
    }

    #[test]
    fn old_misses_are_forgotten() {
        let mut window = Window::default();
        assert!((0..100).all(|n| !window.miss(at(n * 400), n)));
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
