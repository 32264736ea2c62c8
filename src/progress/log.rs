//! The events of one stream and the rule for reading on from a place in them. Pure: no lock, no
//! clock, no waiting.

use std::collections::VecDeque;

use crate::progress::id::EventId;
use crate::progress::update::{EMPTY, ProgressEvent, ProgressKind};

/// The newest events of a stream, at most a fixed number of them.
#[derive(Debug)]
pub(crate) struct Log {
    events: VecDeque<ProgressEvent>,
    replay_max: usize,
    /// Everything up to and including this id is gone, or was never in this stream.
    floor: EventId,
    last: EventId,
}

/// What a reader finds after its place.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// This event; its id is the reader's new place.
    Event(ProgressEvent),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    End,
}

impl Log {
    /// A log whose events all come after `floor`.
    pub(crate) const fn new(floor: EventId, replay_max: usize) -> Self {
        Self {
            events: VecDeque::new(),
            replay_max,
            floor,
            last: floor,
        }
    }

    /// The id of the newest event, or the floor.
    pub(crate) const fn last(&self) -> EventId {
        self.last
    }

    /// Whether the last event was terminal.
    pub(crate) fn ended(&self) -> bool {
        self.events
            .back()
            .is_some_and(|event| event.kind().is_terminal())
    }

    /// Appends an event that happens at `ms` and returns its id.
    pub(crate) fn push(&mut self, ms: u64, kind: ProgressKind, json: &[u8]) -> EventId {
        self.last = self.last.next(ms);
        if self.events.len() >= self.replay_max
            && let Some(gone) = self.events.pop_front()
        {
            self.floor = gone.id();
        }
        self.events
            .push_back(ProgressEvent::new(self.last, kind, json));
        self.last
    }

    /// The place to begin at for a reader who has seen everything up to `seen`.
    ///
    /// Who has seen nothing begins with the oldest event that is kept. A place ahead of the stream
    /// was given out by another life of it, so it is as good as lost.
    pub(crate) fn place(&self, seen: Option<EventId>) -> EventId {
        match seen {
            None | Some(EventId::ZERO) => self.floor,
            Some(seen) if seen > self.last => EventId::ZERO,
            Some(seen) => seen,
        }
    }

    /// What comes after `place`. O(log n) in the events kept.
    ///
    /// A place below the floor is answered by a resync event, whose id is the floor: a reader that
    /// comes back with it gets everything that is kept, and is not told twice.
    pub(crate) fn after(&self, place: EventId) -> Next {
        if place < self.floor {
            return Next::Event(ProgressEvent::new(self.floor, ProgressKind::Resync, EMPTY));
        }
        let seen = self.events.partition_point(|event| event.id() <= place);
        match self.events.get(seen) {
            Some(event) => Next::Event(event.clone()),
            None if self.ended() => Next::End,
            None => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn id(ms: u64, n: u64) -> EventId {
        EventId { ms, n }
    }

    /// Everything a reader is given, from `seen` on, as ids and kinds.
    fn read(log: &Log, seen: Option<EventId>) -> (Vec<(EventId, ProgressKind)>, Next) {
        let (mut place, mut got) = (log.place(seen), Vec::new());
        loop {
            match log.after(place) {
                Next::Event(event) => {
                    place = event.id();
                    got.push((event.id(), event.kind()));
                }
                end => return (got, end),
            }
        }
    }

    #[test]
    fn a_reader_gets_exactly_what_it_has_not_seen() {
        use ProgressKind::{Finished, Progress, Resync};
        let mut log = Log::new(id(10, 0), 2);
        assert_eq!(read(&log, None), (vec![], Next::Wait));
        for (ms, kind) in [
            (10, Progress),
            (11, Progress),
            (11, Progress),
            (9, Finished),
        ] {
            log.push(ms, kind, EMPTY);
        }
        let kept = [(id(11, 1), Progress), (id(11, 2), Finished)];
        let told = [&[(id(11, 0), Resync)], kept.as_slice()].concat();
        for (seen, expected) in [
            (None, kept.to_vec()),
            (Some(EventId::ZERO), kept.to_vec()),
            (Some(id(11, 0)), kept.to_vec()),
            (Some(id(11, 1)), kept[1..].to_vec()),
            (Some(id(11, 2)), vec![]),
            // Trimmed, from before this stream, and from beyond its end.
            (Some(id(10, 1)), told.clone()),
            (Some(id(3, 0)), told.clone()),
            (Some(id(11, 3)), told),
        ] {
            assert_eq!(read(&log, seen), (expected, Next::End), "{seen:?}");
        }
    }

    proptest! {
        // Readers of any speed: an event follows the reader's place without a gap, or it is a resync;
        // and whoever reads on holds the last event in the end.
        #[test]
        fn no_gap_goes_untold(
            replay_max in 1..6_usize,
            steps in prop::collection::vec((0..4_u64, prop::bool::ANY), 1..60),
        ) {
            let mut log = Log::new(EventId::ZERO, replay_max);
            let (mut ms, mut all, mut place) = (1, vec![EventId::ZERO], EventId::ZERO);
            for (later, reads) in steps {
                ms += later;
                all.push(log.push(ms, ProgressKind::Progress, EMPTY));
                prop_assert!(log.events.len() <= replay_max);
                if reads {
                    place = step(&log, &all, place)?;
                }
            }
            for _ in 0..=replay_max {
                place = step(&log, &all, place)?;
            }
            prop_assert_eq!(place, log.last());
        }
    }

    /// Takes what comes after `place` and returns the place after it.
    fn step(log: &Log, all: &[EventId], place: EventId) -> Result<EventId, TestCaseError> {
        let Next::Event(event) = log.after(place) else {
            return Ok(place);
        };
        prop_assert!(event.id() > place);
        if event.kind() != ProgressKind::Resync {
            let from = all.iter().position(|id| *id == place).unwrap();
            prop_assert_eq!(all[from + 1], event.id());
        }
        Ok(event.id())
    }
}
