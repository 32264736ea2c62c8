//! Where locks are: in Redis, or in this process.

use std::time::Duration;

use crate::clock::Clock;
use crate::lock::error::LockError;
use crate::lock::leaving::Leaving;
use crate::lock::memory::Memory;
use crate::lock::name::Name;
use crate::lock::owner::Owner;
#[cfg(feature = "redis")]
use crate::lock::shared::Shared;

/// Gives locks out and takes them back.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) clock: Clock,
    book: Book,
}

/// The twins, which pass the same tests.
#[derive(Debug)]
enum Book {
    Memory(Memory),
    #[cfg(feature = "redis")]
    Shared(Shared),
}

/// What came of asking for a lock.
pub(crate) struct Claimed {
    /// Its token, or why there is none.
    pub(crate) token: Result<u64, LockError>,
    /// Whether the question may be answered yet, with nobody to hear it.
    pub(crate) doubtful: bool,
}

impl Keeper {
    pub(crate) fn in_memory(clock: Clock) -> Self {
        let book = Book::Memory(Memory::new(clock.clone()));
        Self { clock, book }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn shared(clock: Clock, shared: Shared) -> Self {
        let book = Book::Shared(shared);
        Self { clock, book }
    }

    /// Takes a lock that is free, or is the owner's already.
    pub(crate) async fn claim(&self, name: &Name, owner: &Owner, ttl: Duration) -> Claimed {
        let certain = |token| Claimed {
            token,
            doubtful: false,
        };
        match &self.book {
            Book::Memory(memory) => certain(memory.claim(name, owner, ttl)),
            #[cfg(feature = "redis")]
            Book::Shared(shared) => match shared.claim(name, owner, ttl).await {
                Ok(Ok(token)) => certain(Ok(token)),
                Ok(Err(free_in)) => certain(Err(LockError::Held {
                    key: name.shared(),
                    free_in,
                })),
                Err(error) => Claimed {
                    doubtful: error.may_have_run(),
                    token: Err(error.into()),
                },
            },
        }
    }

    /// Puts the end of a lock off. Returns whether it is still the owner's.
    ///
    /// # Errors
    ///
    /// Where Redis cannot say.
    pub(crate) async fn extend(
        &self,
        name: &Name,
        owner: (&Owner, u64),
        ttl: Duration,
    ) -> Result<bool, LockError> {
        match &self.book {
            Book::Memory(memory) => Ok(memory.extend(name, owner, ttl)),
            #[cfg(feature = "redis")]
            Book::Shared(shared) => shared.extend(name, owner, ttl).await,
        }
    }

    /// Frees a lock. Returns whether it was still the owner's; `None` where Redis cannot say.
    pub(crate) async fn release(&self, leaving: &Leaving, token: u64) -> Option<bool> {
        match &self.book {
            Book::Memory(memory) => Some(memory.release(leaving, Some(token))),
            #[cfg(feature = "redis")]
            Book::Shared(shared) => shared.release(leaving, Some(token)).await.ok(),
        }
    }

    /// Frees a lock without anybody waiting for it.
    pub(crate) fn let_go(&self, leaving: &Leaving) {
        match &self.book {
            Book::Memory(memory) => {
                memory.release(leaving, None);
            }
            #[cfg(feature = "redis")]
            Book::Shared(shared) => shared.let_go(leaving),
        }
    }
}
