//! Hears the channels, in the order in which the connection is read.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc};

use crate::event::Event;
use crate::journal::confirmations::{Confirmations, Owed};
use crate::journal::line::understood;
use crate::journal::marker::Marker;
use crate::journal::message::{Message, understand};
use crate::journal::overseer::Overseer;
use crate::journal::record::Record;
use crate::journal::shard::Shard;
use crate::journal::standing::Unverified;
use crate::journal::witness::Question;
use crate::journal::words::answered;
use crate::store::{Push, PushSink};

/// Hears what is appended.
pub(crate) struct Sink {
    pub(crate) me: u64,
    pub(crate) shard: Arc<Shard>,
    pub(crate) owed: Arc<Owed>,
    /// Wakes the keeper.
    pub(crate) wake: Arc<Notify>,
    /// To whoever answers what others ask.
    pub(crate) questions: mpsc::Sender<Question>,
}

impl PushSink for Sink {
    fn push(&self, push: Push<'_>) {
        match push {
            Push::Subscribed { .. } => {
                self.shard.standing().subscribe();
                // Whatever was said until now on this connection was missed.
                self.shard.doubt(Unverified::Disconnected);
                self.wake.notify_one();
            }
            Push::Lost { .. } => {
                self.shard.standing().unsubscribe();
                self.shard.doubt(Unverified::Disconnected);
                self.wake.notify_one();
            }
            Push::Message { payload, .. } => self.hear(payload),
            _ => {}
        }
    }
}

impl Sink {
    fn hear(&self, payload: &[u8]) {
        match understand(payload) {
            Some(Message::Record {
                inc,
                seq,
                writer,
                confirm,
                record,
            }) => {
                self.hear_record((inc, seq), record);
                if confirm && writer != self.me {
                    self.owed.note(writer, inc, seq);
                }
            }
            Some(Message::Begin { inc }) if inc != self.shard.position().inc => {
                self.shard.change(|mirror, _| mirror.lose());
                self.shard.doubt(Unverified::Replaced);
            }
            Some(Message::Question { asker, rest }) if asker != self.me => {
                // Whoever asks too much is not answered.
                let _ = self.questions.try_send((asker, rest.to_vec()));
            }
            _ => {}
        }
        if !self.shard.is_complete() {
            self.wake.notify_one();
        }
    }
}

impl Sink {
    fn hear_record(&self, (inc, seq): (u64, u64), record: &[u8]) {
        #[cfg(feature = "fault-injection")]
        if self.shard.sabotage.takes_push() {
            self.shard.change(|mirror, _| mirror.overlook(inc, seq));
            return;
        }
        let record = read(&self.shard, record);
        self.shard.hear(inc, seq, &record);
    }
}

/// A record, or where it cannot be read one that names everything.
pub(crate) fn read(shard: &Shard, record: &[u8]) -> Record {
    understood(record).unwrap_or_else(|| {
        let text = "the journal holds a record that this version cannot read, which is taken for one of \
                    everything; are instances of different versions running?";
        shard.events.emit(Event::Warning { text });
        Record::of([Marker::Everything])
    })
}

/// Hears who has carried out what this instance has appended, and what others answer it.
pub(crate) struct Ear {
    pub(crate) confirmations: Arc<Confirmations>,
    pub(crate) overseer: Arc<Overseer>,
}

impl PushSink for Ear {
    fn push(&self, push: Push<'_>) {
        let Push::Message { payload, .. } = push else {
            return;
        };
        match understand(payload) {
            Some(Message::Confirm { instance, inc, seq }) => {
                self.confirmations.hear(instance, inc, seq);
            }
            Some(Message::Answer { probe, rest }) => {
                self.overseer.hear(probe, || answered(rest));
            }
            _ => {}
        }
    }
}
