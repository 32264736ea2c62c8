//! How long answers take, and why there are none.

use std::future::Future;

use crate::clock::Clock;
use crate::event::{Event, Events};
use crate::store::error::StoreError;

/// Who is told of answers.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: Clock,
    events: Events,
}

impl Stopwatch {
    pub(crate) const fn new(clock: Clock, events: Events) -> Self {
        Self { clock, events }
    }

    /// Tells how long an answer took, or why there was none. What its caller gives up on is not told.
    pub(crate) async fn timed<T>(
        &self,
        asked: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = self.clock.now();
        let answer = asked.await;
        let event = match &answer {
            Ok(_) | Err(StoreError::Refused { .. } | StoreError::Unreadable { .. }) => {
                let took = self.clock.now().since(began);
                Event::RedisAnswered { took }
            }
            // Nothing was sent.
            Err(StoreError::Unavailable(_) | StoreError::Unfit(_)) => return answer,
            Err(StoreError::Crowded) => Event::RedisFailed { why: "crowded" },
            Err(StoreError::Timeout) => Event::RedisFailed { why: "timeout" },
            Err(StoreError::Lost) => Event::RedisFailed { why: "lost" },
        };
        self.events.emit(event);
        answer
    }
}
