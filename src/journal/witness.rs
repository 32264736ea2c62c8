//! Answers what other instances ask about this one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::journal::line::Line;
use crate::journal::overseer::Overseer;
use crate::journal::shard::Shard;
use crate::journal::words::{answer, questioned};

/// Answers for one shard.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) line: Line,
    pub(crate) shard: Arc<Shard>,
    pub(crate) overseer: Arc<Overseer>,
    pub(crate) shards: usize,
    pub(crate) questions: mpsc::Receiver<Question>,
}

/// Who asks, and what, as it came.
pub(crate) type Question = (u64, Vec<u8>);

/// So many may wait; who asks beyond that gets no answer.
pub(crate) const QUESTIONS_WAITING: usize = 16;

/// How long to rest for each look of a hundred nanoseconds: a hundred times as long, so that answering takes
/// no more than a hundredth of a processor, whoever asks and however often.
const REST_PER_LOOK: Duration = Duration::from_micros(10);

/// And for what a question costs besides.
const REST: Duration = Duration::from_millis(2);

/// Nobody waits for longer than that.
const REST_MAX: Duration = Duration::from_secs(5);

impl Witness {
    /// Answers for ever.
    pub(crate) async fn answer(&mut self) {
        while let Some((asker, question)) = self.questions.recv().await {
            let Some((probe, asked)) = questioned(&question) else {
                continue;
            };
            let place = (usize::from(self.line.shard), self.shards);
            let look = self
                .overseer
                .look((&self.shard, place), asked, self.line.me);
            let said = look.await;
            let to = self.line.channel_of(asker);
            // If that is lost, the other counts this instance among the silent.
            let _ = self.line.say(&to, answer(probe, &said)).await;
            let looks = u32::try_from(said.work).unwrap_or(u32::MAX);
            let rest = REST + REST_PER_LOOK.saturating_mul(looks);
            tokio::time::sleep(rest.min(REST_MAX)).await;
        }
    }
}
