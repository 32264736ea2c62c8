//! What several instances have counted, put together.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::frame::{Reader, decoded, number};
use crate::metrics::sheet::Sheet;
use crate::metrics::window::{Window, WindowFigures};

/// Whose counts a frame holds, and of when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// A random number that tells instances apart.
    pub(crate) instance: u64,
    /// The first of its instance's steps that it holds, and the first that it does not. They say which frame it
    /// is: the time of day does not, since that may be set between two attempts to leave it.
    pub(crate) from: u64,
    pub(crate) until: u64,
    pub(crate) lasted: Duration,
    /// Its end, since 1970.
    pub(crate) ended: Duration,
}

impl Stretch {
    /// The frame of these bytes with what is to be known of it.
    pub(crate) fn encoded(&self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(frame.len() + 32);
        number(&mut bytes, self.instance);
        number(&mut bytes, self.from);
        number(&mut bytes, self.until);
        number(&mut bytes, self.lasted.as_millis() as u64);
        number(&mut bytes, self.ended.as_millis() as u64);
        bytes.extend_from_slice(frame);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Option<(Self, Sheet)> {
        let mut reader = Reader::of(bytes);
        let stretch = Self {
            instance: reader.number()?,
            from: reader.number()?,
            until: reader.number()?,
            lasted: Duration::from_millis(reader.number()?),
            ended: Duration::from_millis(reader.number()?),
        };
        Some((stretch, decoded(reader.rest())?))
    }
}

/// The frames of several instances that belong to one window.
#[derive(Debug)]
pub(crate) struct Gathering {
    window: Window,
    now: Duration,
    /// By instance and steps: of those that begin together the longest first.
    found: BTreeMap<(u64, u64, Reverse<u64>), (Stretch, Sheet)>,
}

impl Gathering {
    /// Nothing yet, as seen from `now`, which is a time since 1970.
    pub(crate) const fn of(window: Window, now: Duration) -> Self {
        Self {
            window,
            now,
            found: BTreeMap::new(),
        }
    }

    /// Takes what an instance has left. What is no frame, or too old for the window, is left aside.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let Some((stretch, sheet)) = Stretch::decoded(bytes) else {
            return;
        };
        let oldest = self.now.saturating_sub(self.window.length());
        if stretch.ended > oldest {
            let place = (stretch.instance, stretch.from, Reverse(stretch.until));
            self.found.insert(place, (stretch, sheet));
        }
    }

    /// How many have left something.
    pub(crate) fn instances(&self) -> usize {
        let mut instances: Vec<_> = self.found.keys().map(|(instance, ..)| *instance).collect();
        instances.dedup();
        instances.len()
    }

    /// All of it added up.
    pub(crate) fn figures(&self, window: Window) -> WindowFigures {
        let (mut counted, mut all) = (Vec::new(), Sheet::default());
        let mut rest = self.found.values().peekable();
        while let Some((Stretch { instance, .. }, _)) = rest.peek() {
            let (mut until, mut heard, mut sum) = (0, Duration::ZERO, Sheet::default());
            while let Some((stretch, sheet)) = rest.next_if(|(it, _)| it.instance == *instance) {
                // A part of one that is counted already.
                if stretch.from < until {
                    continue;
                }
                (until, heard) = (stretch.until, stretch.ended);
                counted.push((stretch.ended.saturating_sub(stretch.lasted), stretch.ended));
                sum.then(sheet);
            }
            // Whoever is gone has nothing in flight any more.
            if self.now > heard + GONE {
                sum.routes.values_mut().for_each(|row| row.in_flight = 0);
            }
            all.add(&sum);
        }
        WindowFigures::of(window, covered(counted), &all)
    }
}

/// How long these stretches are together, where those that overlap count once: instances that took each other's
/// place cover the time of both.
fn covered(mut stretches: Vec<(Duration, Duration)>) -> Duration {
    stretches.sort_unstable();
    let (mut until, mut covered) = (Duration::ZERO, Duration::ZERO);
    for (began, ended) in stretches {
        covered += ended.saturating_sub(began.max(until));
        until = until.max(ended);
    }
    covered
}

/// An instance that has left nothing for so long is gone, or cut off.
const GONE: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::frame::encoded;
    use crate::metrics::totals::Count;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    /// What `instance` has left of the steps `from .. until`: in each a hit, that ended `ago` seconds before now.
    fn left(instance: u64, (from, until): (u64, u64), ago: f64) -> Vec<u8> {
        let mut sheet = Sheet::default();
        sheet.counts[Count::Hits as usize] = until - from;
        let stretch = Stretch {
            instance,
            from,
            until,
            lasted: Duration::from_secs(10 * (until - from)),
            ended: NOW - Duration::from_secs_f64(ago),
        };
        stretch.encoded(&encoded(&sheet))
    }

    /// How many hits are in all of `these`, and how many seconds they cover.
    fn hits(window: Window, these: &[Vec<u8>]) -> (u64, u64) {
        let mut gathering = Gathering::of(window, NOW);
        these.iter().for_each(|bytes| gathering.take(bytes));
        let figures = gathering.figures(window);
        (figures.figures.cache.hits, figures.covers.as_secs())
    }

    #[test]
    fn instances_that_take_each_others_place_cover_the_time_of_both() {
        // Twelve stretches of five minutes are the hour.
        let frames = |instance, of_hour: std::ops::Range<u64>| {
            let steps = |at| (at * 30, at * 30 + 30);
            of_hour.map(move |at| left(instance, steps(at), 300.0 * (11 - at) as f64))
        };
        // Deployed anew half an hour ago, at once or after ten minutes without any.
        let at_once: Vec<_> = frames(1, 0..6).chain(frames(2, 6..12)).collect();
        assert_eq!(hits(Window::Hour, &at_once), (360, 3600));
        let later: Vec<_> = frames(1, 0..4).chain(frames(2, 6..12)).collect();
        assert_eq!(hits(Window::Hour, &later), (300, 3000));
        let beside: Vec<_> = frames(1, 0..12).chain(frames(2, 0..12)).collect();
        assert_eq!(hits(Window::Hour, &beside), (720, 3600));
    }

    #[test]
    fn what_is_left_again_under_another_time_of_day_counts_once() {
        let these = [
            left(1, (0, 1), 20.0),
            left(1, (1, 2), 10.0),
            // Nobody knew whether that had arrived, and meanwhile the clock was set.
            left(1, (1, 2), 17.5),
            left(1, (1, 2), 2.5),
        ];
        assert_eq!(hits(Window::Minute, &these).0, 2);
    }

    #[test]
    fn a_clock_that_was_set_back_takes_no_frame_away() {
        let these = [
            left(1, (0, 1), 10.0),
            left(1, (1, 2), 0.0),
            left(1, (2, 3), 8.0),
            left(1, (3, 4), 1.0),
        ];
        assert_eq!(hits(Window::Minute, &these).0, 4);
    }

    #[test]
    fn short_frames_count_as_well() {
        let these: Vec<_> = (0..9)
            .map(|at| left(1, (at, at + 1), 9.0 - at as f64))
            .collect();
        assert_eq!(hits(Window::Minute, &these).0, 9);
    }

    #[test]
    fn a_part_of_what_is_counted_is_not_counted_again() {
        let these = [
            left(1, (0, 4), 20.0),
            left(1, (0, 6), 0.0),
            left(1, (4, 5), 10.0),
            left(1, (5, 6), 0.0),
            left(1, (6, 7), 0.0),
        ];
        assert_eq!(hits(Window::FiveMinutes, &these).0, 7);
    }
}
