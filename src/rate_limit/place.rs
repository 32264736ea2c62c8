//! Where in the table a key lives: drawn from its hash, so that nothing about it has to be kept.

use crate::rate_limit::slot::Tag;

/// Slots in a line of 64 bytes.
pub(crate) const SLOTS: usize = 8;

/// Locks for inserting; enough that threads hardly ever meet at one.
pub(crate) const TURNS: usize = 64;

/// An odd number without pattern (2^64 divided by the golden ratio), to draw a second line from the
/// same hash.
const SECOND: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where a key lives, all of it drawn from its hash.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    hash: u64,
    pub(crate) tag: Tag,
}

impl Place {
    pub(crate) const fn of(hash: u64) -> Self {
        let tag = Tag::of(hash);
        Self { hash, tag }
    }

    /// The slot of its first line in which it is at home.
    pub(crate) const fn home(self) -> usize {
        (self.hash >> 32) as usize % SLOTS
    }

    /// Which lock it is inserted under.
    pub(crate) const fn turn(self) -> usize {
        (self.hash >> 32) as usize % TURNS
    }

    /// The first line, of so many.
    pub(crate) const fn first(self, lines: usize) -> usize {
        line_of(self.hash & u32::MAX as u64, lines)
    }

    /// The second line, which is never the first one again.
    pub(crate) const fn second(self, lines: usize) -> usize {
        let first = self.first(lines);
        let second = line_of(self.hash.wrapping_mul(SECOND) >> 32, lines);
        match second == first {
            true if first + 1 == lines => 0,
            true => first + 1,
            false => second,
        }
    }
}

/// Maps 32 bits to one of so many lines, evenly and without a division.
const fn line_of(bits: u64, lines: usize) -> usize {
    ((bits * lines as u64) >> 32) as usize
}
