//! A remote's window, and which of two words about it is right.
//!
//! A remote's answer is true for some moment between when its request was sent and when the answer was
//! heard, and answers overtake each other. So a word about what is left carries both moments. One whose
//! request was sent after the other was heard is newer, and replaces it. Of two that overlap, the one
//! with the later end speaks of a newer window, and within one window the lower count is right, because
//! counts only fall. The script of `sync.rs` goes by the same rules.

use std::time::Duration;

use crate::clock::Moment;
use crate::outbound::fields::Word;

/// One of the remote's windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) name: Box<str>,
    pub(crate) told: Told,
}

/// What the remote said of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What was left.
    pub(crate) left: u64,
    /// The whole.
    pub(crate) limit: Option<u64>,
    /// Until when it holds. `None` for a window that has ended: then `left` is the whole of the next, of
    /// which the remote has not spoken yet.
    pub(crate) ends: Option<Moment>,
    /// When the request was sent that it answers.
    pub(crate) sent: Moment,
    /// When it was heard.
    pub(crate) heard: Moment,
    /// Whether this instance has heard it itself and told no other yet.
    pub(crate) news: bool,
}

impl Told {
    pub(crate) fn heard(word: &Word<'_>, sent: Moment, now: Moment, bound: Duration) -> Self {
        Self {
            left: word.left,
            // A window that is cut short does not begin again when it is cut. And of a whole that is
            // nothing, nobody could ever learn that it is more.
            limit: word.limit.filter(|whole| *whole > 0 && word.lasts <= bound),
            ends: Some(now.plus(word.lasts.min(bound))),
            sent,
            heard: now,
            news: true,
        }
    }

    /// Takes over what is newer; see the file's head.
    pub(crate) fn learn(&mut self, new: Self) {
        let limit = new.limit.or(self.limit);
        if self.is_older_than(&new) {
            *self = new;
        }
        self.limit = limit;
    }

    fn is_older_than(&self, new: &Self) -> bool {
        let (Some(ends), Some(new_ends)) = (self.ends, new.ends) else {
            return self.ends.is_none();
        };
        if new.sent > self.heard {
            true
        } else if new.heard < self.sent || new_ends.plus(SAME_END) < ends {
            false
        } else {
            new_ends > ends.plus(SAME_END) || new.left <= self.left
        }
    }
}

/// Ends are told in whole seconds and heard after some time on the way: within this they are the same.
const SAME_END: Duration = Duration::from_secs(2);
