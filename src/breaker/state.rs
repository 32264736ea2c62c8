//! A circuit's state, and how it fits one atomic word.
//!
//! Everything that a transition depends on lies in the word, so that each is one compare-and-exchange: the state,
//! until when it is open, which probes are out. An epoch that grows with each transition keeps what is told late,
//! by a call of an earlier time, from counting.

use crate::clock::Moment;

/// The state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Calls are made.
    Closed,
    /// None is, until then.
    Open { until: Moment },
    /// None is, until somebody closes it by hand.
    ForcedOpen,
    /// A few are, to see.
    HalfOpen {
        /// Probes that were let through and have not failed: those under way, and those that have passed.
        taken: u8,
        /// Probes that have succeeded.
        passed: u8,
        /// When the last one was let through.
        last: Moment,
    },
}

/// A word's two lowest bits.
pub(crate) const KIND: u64 = 0b11;
pub(crate) const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
pub(crate) const FORCED_OPEN: u64 = 3;

/// Then twelve of the epoch: a call would have to last through 4,096 transitions to be taken for a new one.
const EPOCH_AT: u32 = 2;
const EPOCH: u64 = (1 << 12) - 1;

/// What identifies a state's word among others.
pub(crate) const IDENTITY: u64 = KIND | EPOCH << EPOCH_AT;

/// The rest: microseconds, enough for 35 years; or two small numbers and 16 milliseconds' steps for as long.
const REST_AT: u32 = 14;
const MICROS_MAX: u64 = (1 << 50) - 1;
const TAKEN_AT: u32 = 14;
const PASSED_AT: u32 = 21;
const SMALL: u64 = 127;
/// Where it is written how many probes have passed.
pub(crate) const PASSED: u64 = SMALL << PASSED_AT;
const LAST_AT: u32 = 28;
const STEP_BITS: u32 = 14;
const STEPS_MAX: u64 = (1 << 36) - 1;

const fn micros(moment: Moment) -> u64 {
    let micros = moment.as_nanos() / 1000;
    if micros > MICROS_MAX {
        MICROS_MAX
    } else {
        micros
    }
}

const fn moment(micros: u64) -> Moment {
    Moment::from_nanos(micros.saturating_mul(1000))
}

/// Rounded up, so that nobody is given up on too early.
const fn steps(moment: Moment) -> u64 {
    let steps = (micros(moment) + (1 << STEP_BITS) - 1) >> STEP_BITS;
    if steps > STEPS_MAX { STEPS_MAX } else { steps }
}

/// The word of a state in this epoch.
pub(crate) const fn pack(epoch: u64, state: State) -> u64 {
    let epoch = (epoch & EPOCH) << EPOCH_AT;
    match state {
        State::Closed => epoch | CLOSED,
        State::Open { until } => epoch | OPEN | micros(until) << REST_AT,
        State::ForcedOpen => epoch | FORCED_OPEN,
        State::HalfOpen {
            taken,
            passed,
            last,
        } => {
            let numbers = (taken as u64 & SMALL) << TAKEN_AT | (passed as u64 & SMALL) << PASSED_AT;
            epoch | HALF_OPEN | numbers | steps(last) << LAST_AT
        }
    }
}

/// Epoch and state of a word.
pub(crate) const fn unpack(word: u64) -> (u64, State) {
    let epoch = word >> EPOCH_AT & EPOCH;
    let state = match word & KIND {
        CLOSED => State::Closed,
        OPEN => State::Open {
            until: moment(word >> REST_AT),
        },
        HALF_OPEN => State::HalfOpen {
            taken: (word >> TAKEN_AT & SMALL) as u8,
            passed: (word >> PASSED_AT & SMALL) as u8,
            last: moment((word >> LAST_AT) << STEP_BITS),
        },
        _ => State::ForcedOpen,
    };
    (epoch, state)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_state_survives_its_word(epoch in 0_u64..4096, micros in 0_u64..1 << 50, taken in 0_u8..128, passed in 0_u8..128) {
            let until = moment(micros);
            for state in [State::Closed, State::ForcedOpen, State::Open { until }] {
                prop_assert_eq!(unpack(pack(epoch, state)), (epoch, state));
            }
            let word = pack(epoch, State::HalfOpen { taken, passed, last: until });
            let (same, State::HalfOpen { taken: t, passed: p, last }) = unpack(word) else {
                panic!("another state");
            };
            prop_assert_eq!((same, t, p), (epoch, taken, passed));
            prop_assert_eq!(unpack(pack(epoch, State::HalfOpen { taken, passed, last })), (epoch, State::HalfOpen { taken, passed, last }));
            let step = Duration::from_micros(1 << STEP_BITS);
            prop_assert!(last.since(until) < step && until.since(last) <= step, "{last:?} {until:?}");
        }
    }

    #[test]
    fn epochs_come_round_and_moments_saturate() {
        assert_eq!(unpack(pack(4096, State::Closed)).0, 0);
        let until = Moment::from_nanos(u64::MAX);
        let (_, State::Open { until }) = unpack(pack(1, State::Open { until })) else {
            panic!("another state");
        };
        assert!(until.as_nanos() > 35 * 365 * 86_400 * 1_000_000_000);
    }
}
