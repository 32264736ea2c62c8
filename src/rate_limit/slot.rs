//! One slot of the table: 20 bits that tell keys apart, 44 bits of time.
//!
//! 44 bits of microseconds come round every 203 days. Two times are therefore compared around the
//! circle: whatever lies less than half of it (101 days) ahead of now is ahead, all else has passed.
//! That is right as long as no slot is further from now than that; quotas see to the one side, since
//! none may take longer than 62 days to fill ([`FILL_MAX`]), and the table's sweep to the other.

/// How many low bits hold the time.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
const HALF_CIRCLE: u64 = 1 << (TIME_BITS - 1);

/// One day in ticks of 1 µs.
const DAY: u64 = 24 * 60 * 60 * 1_000_000;

/// The longest that a bucket may take to fill: 62 days.
pub(crate) const FILL_MAX: u64 = 62 * DAY;

/// How often the table drops what has expired: every 25 days. An expired time is swept before it is
/// `SWEEP_EVERY + FILL_MAX` = 87 days old, safely less than half the circle.
pub(crate) const SWEEP_EVERY: u64 = 25 * DAY;

const _: () = assert!(FILL_MAX + SWEEP_EVERY + DAY < HALF_CIRCLE);

/// The content of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(u64);

impl Slot {
    /// No key has ever been here, or none since the last sweep.
    pub(crate) const EMPTY: Self = Self(0);

    /// A bucket of the key with this tag that will be full `ahead` ticks after `now`.
    pub(crate) const fn of(tag: Tag, now: u64, ahead: u64) -> Self {
        Self((tag.0 << TIME_BITS) | (now.wrapping_add(ahead) & TIME_MASK))
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    /// Whether this is the key's bucket.
    pub(crate) const fn is_of(self, tag: Tag) -> bool {
        self.0 >> TIME_BITS == tag.0
    }

    /// How many ticks after `now` the bucket is full again; 0 if it is, or if there is none.
    pub(crate) const fn ahead(self, now: u64) -> u64 {
        if self.0 == 0 {
            return 0;
        }
        let distance = self.0.wrapping_sub(now) & TIME_MASK;
        if distance < HALF_CIRCLE { distance } else { 0 }
    }
}

/// What tells the keys of a line apart: never 0, which stands for an empty slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The tag of a key with this hash: its 20 highest bits.
    pub(crate) const fn of(hash: u64) -> Self {
        let tag = hash >> TIME_BITS;
        Self(if tag == 0 { 1 } else { tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_round_the_circle_unnoticed() {
        let tag = Tag::of(0xabcd_e000_0000_0000);
        for now in [
            0,
            1,
            TIME_MASK,
            TIME_MASK + 1,
            40 * TIME_MASK + 17,
            u64::MAX >> 1,
        ] {
            for ahead in [0, 1, DAY, FILL_MAX] {
                let slot = Slot::of(tag, now, ahead);
                assert!(slot.is_of(tag));
                assert_eq!(slot.ahead(now), ahead, "{ahead} ahead of {now}");
                assert_eq!(slot.ahead(now + ahead), 0);
                assert_eq!(slot.ahead(now + ahead + SWEEP_EVERY + FILL_MAX), 0);
            }
        }
    }

    #[test]
    fn an_empty_slot_is_nobodys_and_full() {
        assert!(!Slot::EMPTY.is_of(Tag::of(0)));
        assert_eq!(Slot::EMPTY.ahead(TIME_MASK - 5), 0);
        assert_ne!(Slot::of(Tag::of(0), 0, 0), Slot::EMPTY);
    }
}
