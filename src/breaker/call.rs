//! A call under way.

use std::fmt;
use std::sync::Arc;

use crate::breaker::circuit::Circuit;
use crate::breaker::machine::Ticket;
use crate::breaker::outcome::Outcome;
use crate::clock::Moment;

/// A call that a [`CircuitBreaker`](crate::breaker::CircuitBreaker) let through and waits to hear of.
///
/// Dropping it without a word is cancelling: a failure if the call has lasted for `cancelled_after_ms`, or if the
/// thread is panicking; else as if it had not been made. Of a half-open circuit's probes it takes several.
#[must_use = "a call that is dropped counts as cancelled"]
pub struct Call {
    circuit: Arc<Circuit>,
    ticket: Ticket,
    began: Moment,
    is_over: bool,
}

impl Call {
    pub(crate) const fn new(circuit: Arc<Circuit>, ticket: Ticket, began: Moment) -> Self {
        Self {
            circuit,
            ticket,
            began,
            is_over: false,
        }
    }

    /// What was called does its work.
    pub fn succeeded(self) {
        self.finish(Outcome::Succeeded);
    }

    /// It does not.
    pub fn failed(self) {
        self.finish(Outcome::Failed);
    }

    /// Tells what came of the call. Costs a look at the clock and an addition; a failure sums up thirty numbers.
    #[inline]
    pub fn finish(mut self, outcome: Outcome) {
        self.is_over = true;
        self.circuit.note(self.ticket, self.began, outcome);
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if std::thread::panicking() {
            self.circuit.note(self.ticket, self.began, Outcome::Failed);
        } else {
            self.circuit.note_cancelled(self.ticket, self.began);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("circuit", &self.circuit.name)
            .field("began", &self.began)
            .finish_non_exhaustive()
    }
}
