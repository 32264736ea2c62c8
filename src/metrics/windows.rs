//! The counts of the last hour, in steps that grow with their age.
//!
//! The request's path knows nothing of windows: it adds to counts that only ever grow. Every ten seconds what
//! they have grown by is put down as a [frame](crate::metrics::frame), and added to one of a minute and one of five
//! that still grow. A window is the last frames of its length and the one that grows: 25 frames for all three, in
//! which an idle route takes no byte.

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
    /// Those that are done, oldest first.
    frames: VecDeque<Frame>,
    /// The one that still grows.
    open: Option<Frame>,
}

/// For each length, shortest first: how many steps make a frame, and how many frames are kept.
const LEVELS: [(u64, usize); 3] = [(1, 6), (6, 5), (30, 12)];

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
        let grown = sheet.since(&base);
        let step = Frame {
            from: past.steps,
            until: past.steps + 1,
            lasted: now.since(past.ended),
            bytes: encoded(&grown).into(),
            ended: now,
        };
        past.base = encoded(&sheet).into();
        past.ended = now;
        past.steps += 1;
        for (level, (steps, kept)) in past.levels.iter_mut().zip(LEVELS) {
            level.take(&step, &grown);
            level.close(steps, kept);
        }
    }

    /// What was counted in `window`, until now, and how long that is.
    pub(crate) fn window(
        &self,
        window: Window,
        now: Moment,
        read: impl FnOnce() -> Sheet,
    ) -> (Duration, Sheet) {
        let past = self.lock();
        let level = past.levels.get(window.level());
        let frames = level.map(Level::all).unwrap_or_default();
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

    /// The frames of each length, oldest first, and the one that still grows: of ten seconds, a minute, and five.
    #[cfg(feature = "redis")]
    pub(crate) fn levels(&self) -> [(Vec<Frame>, Option<Frame>); LEVELS.len()] {
        let past = self.lock();
        let levels = past.levels.each_ref();
        levels.map(|level| (level.frames.iter().cloned().collect(), level.open.clone()))
    }

    /// What panics while it holds the lock has changed nothing yet, or one step is missing.
    fn lock(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Level {
    /// Adds a step to the frame that grows.
    fn take(&mut self, step: &Frame, grown: &Sheet) {
        let Some(open) = &mut self.open else {
            self.open = Some(step.clone());
            return;
        };
        let mut sum = decoded(&open.bytes).unwrap_or_default();
        sum.then(grown);
        open.bytes = encoded(&sum).into();
        open.lasted += step.lasted;
        (open.until, open.ended) = (step.until, step.ended);
    }

    /// Puts that frame to the others once it has as many `steps`.
    fn close(&mut self, steps: u64, kept: usize) {
        let Some(frame) = self.open.take_if(|open| open.until - open.from >= steps) else {
            return;
        };
        self.frames.push_back(frame);
        if self.frames.len() > kept {
            self.frames.pop_front();
        }
    }

    /// Those that make up its window, oldest first.
    fn all(&self) -> Vec<Frame> {
        self.frames.iter().chain(&self.open).cloned().collect()
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
        let frames = windows
            .lock()
            .levels
            .each_ref()
            .map(|level| level.frames.len());
        assert_eq!(frames, [6, 5, 12]);
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
