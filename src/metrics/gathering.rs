//! What several instances have counted, put together.

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
    /// Its end, since 1970.
    pub(crate) ended: Duration,
    pub(crate) lasted: Duration,
}

impl Stretch {
    /// The frame of these bytes with what is to be known of it.
    pub(crate) fn encoded(&self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(frame.len() + 24);
        number(&mut bytes, self.instance);
        number(&mut bytes, self.ended.as_millis() as u64);
        number(&mut bytes, self.lasted.as_millis() as u64);
        bytes.extend_from_slice(frame);
        bytes
    }

    fn decoded(bytes: &[u8]) -> Option<(Self, Sheet)> {
        let mut reader = Reader::of(bytes);
        let stretch = Self {
            instance: reader.number()?,
            ended: Duration::from_millis(reader.number()?),
            lasted: Duration::from_millis(reader.number()?),
        };
        Some((stretch, decoded(reader.rest())?))
    }
}

/// The frames of several instances that belong to one window.
#[derive(Debug)]
pub(crate) struct Gathering {
    window: Window,
    now: Duration,
    /// By instance, level and end.
    found: BTreeMap<(u64, usize, Duration), (Duration, Sheet)>,
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

    /// Takes what an instance has left, of a level: 0 for ten seconds, 1 for a minute, 2 for five. What is no
    /// frame, or too old for the window, is left aside.
    pub(crate) fn take(&mut self, level: usize, bytes: &[u8]) {
        let Some((stretch, sheet)) = Stretch::decoded(bytes) else {
            return;
        };
        let oldest = self.now.saturating_sub(self.window.length());
        if stretch.ended > oldest {
            let place = (stretch.instance, level, stretch.ended);
            self.found.insert(place, (stretch.lasted, sheet));
        }
    }

    /// How many have left something.
    pub(crate) fn instances(&self) -> usize {
        let mut instances: Vec<_> = self.found.keys().map(|(instance, ..)| *instance).collect();
        instances.dedup();
        instances.len()
    }

    /// All of it added up. For each instance the longest frames first, and then the shorter ones that follow
    /// them.
    pub(crate) fn figures(&self, window: Window) -> WindowFigures {
        let (mut covers, mut all) = (Duration::ZERO, Sheet::default());
        let mut rest = self.found.iter().peekable();
        while let Some(((instance, ..), _)) = rest.peek() {
            let instance = *instance;
            let mut own = Vec::new();
            while let Some(((_, level, ended), frame)) =
                rest.next_if(|((it, ..), _)| *it == instance)
            {
                own.push((*level, *ended, frame));
            }
            own.sort_by_key(|(level, ended, _)| (std::cmp::Reverse(*level), *ended));
            let (mut until, mut lasted, mut sum) =
                (Duration::ZERO, Duration::ZERO, Sheet::default());
            for (_, ended, (lasts, sheet)) in own {
                // A longer frame ends with the last of those that it was made of, as its instance reads the clock.
                if ended <= until + TOLERANCE {
                    continue;
                }
                (until, lasted) = (ended, lasted + *lasts);
                sum.then(sheet);
            }
            // Whoever is gone has nothing in flight any more.
            if self.now > until + GONE {
                sum.routes.values_mut().for_each(|row| row.in_flight = 0);
            }
            covers = covers.max(lasted);
            all.add(&sum);
        }
        WindowFigures::of(window, covers, &all)
    }
}

/// An instance that has left nothing for so long is gone, or cut off.
const GONE: Duration = Duration::from_secs(25);
/// How far apart the same end may be put down, where the time of day was set meanwhile: less than the half of the
/// shortest frame.
const TOLERANCE: Duration = Duration::from_secs(4);
