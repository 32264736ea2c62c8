//! The counts of the last hour, in steps that grow with their age.
//!
//! The request's path knows nothing of windows: it adds to counts that only ever grow. Every ten seconds what
//! they have grown by is put down as a [frame](crate::metrics::frame). Six of these make one of a minute, five of
//! those one of five minutes, and twelve of those the hour: 23 frames at most, in which an idle route takes no
//! byte.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::metrics::frame::{decoded, encoded};
use crate::metrics::sheet::Sheet;
use crate::metrics::window::Window;

/// The counts of a stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// The first step that it holds, and the first that it does not: steps are numbered from the start.
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) lasted: Duration,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) ended: Moment,
}

/// The frames of one length.
#[derive(Debug, Default)]
struct Level {
    frames: VecDeque<Frame>,
    /// How many there were.
    count: u64,
}

/// How many frames are kept of each length, shortest first; so many make one of the next length.
const KEPT: [usize; 3] = [6, 5, 12];

/// What is known of the past.
#[derive(Debug)]
pub(crate) struct Windows {
    past: Mutex<Past>,
}

#[derive(Debug)]
struct Past {
    /// All counts at the end of the last frame.
    base: Arc<[u8]>,
    ended: Moment,
    /// How many steps there were.
    steps: u64,
    levels: [Level; 3],
}

impl Windows {
    /// Nothing was counted before `now`.
    pub(crate) fn new(now: Moment) -> Self {
        let past = Past {
            base: encoded(&Sheet::default()).into(),
            ended: now,
            steps: 0,
            levels: Default::default(),
        };
        Self {
            past: Mutex::new(past),
        }
    }

    /// Puts down what was counted since the last time.
    pub(crate) fn turn(&self, now: Moment, read: impl FnOnce() -> Sheet) {
        let mut past = self.lock();
        let sheet = read();
        let base = decoded(&past.base).unwrap_or_default();
        let lasted = now.since(past.ended);
        let bytes = encoded(&sheet.since(&base)).into();
        past.base = encoded(&sheet).into();
        past.ended = now;
        let step = past.steps;
        past.steps += 1;
        past.push(
            0,
            Frame {
                from: step,
                until: step + 1,
                lasted,
                bytes,
                ended: now,
            },
        );
    }

    /// What was counted in `window`, until now, and how long that is.
    pub(crate) fn window(
        &self,
        window: Window,
        now: Moment,
        read: impl FnOnce() -> Sheet,
    ) -> (Duration, Sheet) {
        let past = self.lock();
        let frames = past.frames(window);
        let (base, ended) = (Arc::clone(&past.base), past.ended);
        drop(past);
        // Later than the base, whatever was put down meanwhile.
        let latest = read().since(&decoded(&base).unwrap_or_default());
        let (mut covers, mut sum) = (Duration::ZERO, Sheet::default());
        for frame in frames {
            covers += frame.lasted;
            sum.then(&decoded(&frame.bytes).unwrap_or_default());
        }
        sum.then(&latest);
        (covers + now.since(ended), sum)
    }

    #[cfg(feature = "redis")]
    /// The frames of one length, oldest first: 0 for ten seconds, 1 for a minute, 2 for five.
    pub(crate) fn level(&self, level: usize) -> Vec<Frame> {
        let past = self.lock();
        let frames = past.levels.get(level).map(|level| level.frames.iter());
        frames.into_iter().flatten().cloned().collect()
    }

    /// What panics while it holds the lock has changed nothing yet, or one frame is missing.
    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn push(&mut self, at: usize, frame: Frame) {
        let (Some(level), Some(kept)) = (self.levels.get_mut(at), KEPT.get(at)) else {
            return;
        };
        let (until, ended) = (frame.until, frame.ended);
        level.count += 1;
        level.frames.push_back(frame);
        if level.frames.len() > *kept {
            level.frames.pop_front();
        }
        if at + 1 < KEPT.len() && level.count % *kept as u64 == 0 {
            let (mut lasted, mut sum) = (Duration::ZERO, Sheet::default());
            let from = level.frames.front().map_or(until, |first| first.from);
            for frame in &level.frames {
                lasted += frame.lasted;
                sum.then(&decoded(&frame.bytes).unwrap_or_default());
            }
            let bytes = encoded(&sum).into();
            self.push(
                at + 1,
                Frame {
                    from,
                    until,
                    lasted,
                    bytes,
                    ended,
                },
            );
        }
    }

    /// Those that make up `window`, oldest first.
    fn frames(&self, window: Window) -> Vec<Frame> {
        let whole = match window {
            Window::Minute => 0,
            Window::FiveMinutes => 1,
            Window::Hour => 2,
        };
        let mut frames = Vec::new();
        for (at, (level, kept)) in self.levels.iter().zip(KEPT).enumerate().rev() {
            if at == whole {
                frames.extend(level.frames.iter().cloned());
            } else if at < whole {
                // Those that are not yet part of a longer one.
                let rest = (level.count % kept as u64) as usize;
                let first = level.frames.len().saturating_sub(rest);
                frames.extend(level.frames.range(first..).cloned());
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::totals::Count;

    fn sheet(hits: u64) -> Sheet {
        let mut sheet = Sheet::default();
        sheet.counts[Count::Hits as usize] = hits;
        sheet
    }

    /// One count a second; after each second every window is asked.
    #[test]
    fn each_window_covers_its_time_and_at_most_a_step_more() {
        let begin = Moment::from_nanos(7);
        let windows = Windows::new(begin);
        for second in 1_u64..=9_000 {
            let now = begin.plus(Duration::from_secs(second));
            if second % 10 == 0 {
                windows.turn(now, || sheet(second));
            }
            if second > 100 && second % 7 != 0 {
                continue;
            }
            for (window, step) in [
                (Window::Minute, 10),
                (Window::FiveMinutes, 60),
                (Window::Hour, 300),
            ] {
                let (covers, counted) = windows.window(window, now, || sheet(second));
                assert_eq!(counted.count(Count::Hits), covers.as_secs(), "at {second}");
                let length = window.length().as_secs();
                let range = length.min(second)..length + step;
                assert!(
                    range.contains(&covers.as_secs()),
                    "{window:?} {covers:?} at {second}"
                );
            }
        }
        let frames: usize = (0..3).map(|level| windows.level(level).len()).sum();
        assert_eq!(frames, 23);
    }

    #[test]
    fn a_beat_that_comes_late_makes_a_longer_frame() {
        let windows = Windows::new(Moment::default());
        let hour = Moment::default().plus(Duration::from_secs(3600));
        windows.turn(hour, || sheet(5));
        let (covers, counted) = windows.window(Window::Minute, hour, || sheet(6));
        assert_eq!(
            (covers, counted.count(Count::Hits)),
            (Duration::from_secs(3600), 6)
        );
    }
}
