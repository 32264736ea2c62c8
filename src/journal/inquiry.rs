//! Asks every instance about records, and waits for a record to be everywhere.

use std::sync::Weak;
use std::time::Duration;

use tokio::sync::mpsc;

#[cfg(feature = "redis")]
use crate::journal::chance;
use crate::journal::log::Journal;
use crate::journal::overseer::Sample;
use crate::journal::probe::{Answer, Asked, Tier};
#[cfg(feature = "redis")]
use crate::journal::words::question;

/// What the instances answered.
#[derive(Debug)]
pub(crate) struct Inquiry {
    /// This instance's own answer is the first.
    pub(crate) answers: Vec<Answer>,
    /// How many heard the question and did not answer in time.
    pub(crate) silent: usize,
}

impl Journal {
    /// Makes a tier known whose entries this journal judges, so that it can be checked whether what it would
    /// serve agrees with what was invalidated. It is held weakly: dropping it ends that.
    pub fn watch(&self, tier: Weak<dyn Tier>) {
        self.shared.overseer.add(tier);
    }

    /// One of the records that are appended here, now and then. `None` for the second who asks.
    pub(crate) fn samples(&self, every: Duration) -> Option<mpsc::Receiver<Sample>> {
        self.shared.overseer.tap(every)
    }

    /// Waits until no instance may serve what the sampled record names: until all have confirmed it, or until
    /// their leases have ended. Who is in its grace then says so itself.
    pub(crate) async fn until_everywhere(&self, sample: &Sample) {
        #[cfg(feature = "redis")]
        if let (Some((appended, answered)), Some(line)) = (
            &sample.appended,
            self.shared
                .parts
                .get(sample.shard)
                .and_then(|part| part.line.as_ref()),
        ) {
            let scribe = &line.scribe;
            let (me, clock) = (scribe.line.me, &scribe.line.clock);
            let confirmed = scribe.confirmations.all(me, appended, *answered, clock);
            if scribe.line.waits_for_others() {
                confirmed.await;
            } else {
                tokio::time::sleep(scribe.line.lease()).await;
            }
        }
        let _ = sample;
    }

    /// Asks every instance about records of one shard, and waits for their answers for so long at most.
    /// Dropping it forgets the question.
    pub(crate) async fn inquire(
        &self,
        shard: usize,
        asked: &[Asked],
        within: Duration,
    ) -> Option<Inquiry> {
        let (parts, overseer) = (&self.shared.parts, &self.shared.overseer);
        let part = parts.get(shard)?;
        let place = (&*part.shard, (shard, parts.len()));
        #[cfg(feature = "redis")]
        if let Some(line) = &part.line {
            let line = &line.scribe.line;
            let probe = chance::number();
            let mut open = overseer.open(probe);
            let said = line.say(line.channel(), question(probe, line.me, asked));
            // Where Redis is away, this instance is all that can be asked.
            let others = said.await.map_or(0, |heard| heard.saturating_sub(1));
            let others = usize::try_from(others).unwrap_or(usize::MAX);
            let mut answers = vec![overseer.look(place, asked.to_vec(), line.me).await];
            let rest = async {
                while answers.len() <= others {
                    match open.answers.recv().await {
                        Some(answer) => answers.push(answer),
                        None => return,
                    }
                }
            };
            let _ = tokio::time::timeout(within, rest).await;
            let silent = (others + 1).saturating_sub(answers.len());
            return Some(Inquiry { answers, silent });
        }
        let _ = within;
        Some(Inquiry {
            answers: vec![overseer.look(place, asked.to_vec(), 0).await],
            silent: 0,
        })
    }
}
