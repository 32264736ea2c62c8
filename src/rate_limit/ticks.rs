//! The limiter's time: whole microseconds since its clock was built.

use crate::clock::Clock;

/// Now, in ticks of 1 µs.
#[inline]
pub(crate) fn ticks(clock: &Clock) -> u64 {
    clock.now().as_nanos() / 1000
}
