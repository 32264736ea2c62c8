//! The engine: the numbers every pool shares, and the stopwatch around a query.

use std::sync::Arc;

use ::sqlx::pool::{Pool, PoolConnection, PoolOptions};

use crate::clock::{Clock, Moment};
use crate::database::DatabaseConfig;
use crate::error::{ConfigError, Faults};
use crate::event::{Event, Events};

/// Makes pools and times queries. Cheap to clone; holds no connection itself.
#[derive(Clone, Debug)]
pub struct Database {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: DatabaseConfig,
    clock: Clock,
    events: Events,
}

impl Database {
    /// An engine with these numbers. Connects to nothing.
    ///
    /// # Errors
    ///
    /// Every number in `config` that cannot be meant.
    pub fn new(config: &DatabaseConfig, clock: Clock, events: Events) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("database", &mut faults);
        faults.into_result()?;
        Ok(Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                clock,
                events,
            }),
        })
    }

    /// Runs `query` and tells [`Event::QueryFinished`] under `name` how long it took, whatever became
    /// of it: an answer, an error, or the caller's giving up.
    ///
    /// The time begins when the future is first polled and includes the wait for a connection, if
    /// `query` runs on a pool. `name` should be one of a fixed set (`contacts.list`), never text from
    /// a request. Costs two readings of the clock and the recorders' work, some tens of nanoseconds
    /// together, and allocates nothing.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops `query`, and tells the event with the time until then.
    pub async fn timed<F: Future>(&self, name: &str, query: F) -> F::Output {
        let _stopwatch = Stopwatch {
            database: self,
            name,
            began: self.shared.clock.now(),
        };
        query.await
    }

    /// A connection of `pool`, and [`Event::DatabaseWaited`] with how long it took, whatever became of it.
    ///
    /// Where queries run on the pool itself, the wait is part of [`timed`](Self::timed)'s time and is not told
    /// by itself. Dropping the future gives up the place in the pool's queue.
    ///
    /// # Errors
    ///
    /// As [`Pool::acquire`]: above all, none was free within `acquire_timeout`.
    pub async fn acquire<DB: ::sqlx::Database>(
        &self,
        pool: &Pool<DB>,
    ) -> Result<PoolConnection<DB>, ::sqlx::Error> {
        let mut wait = Wait {
            database: self,
            began: self.shared.clock.now(),
            served: false,
        };
        let connection = pool.acquire().await;
        wait.served = connection.is_ok();
        connection
    }

    /// The numbers that all kinds of pools share.
    pub(crate) fn pool_options<DB: ::sqlx::Database>(&self) -> PoolOptions<DB> {
        let config = &self.shared.config;
        PoolOptions::new()
            .max_connections(config.connections_max)
            .acquire_timeout(config.acquire_timeout)
            .idle_timeout(config.idle_timeout)
            .max_lifetime(config.max_lifetime)
    }

    /// The numbers it was made with.
    #[must_use]
    pub fn config(&self) -> &DatabaseConfig {
        &self.shared.config
    }
}

/// Tells how long somebody waited for a connection when it is dropped.
struct Wait<'a> {
    database: &'a Database,
    began: Moment,
    served: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Shared { clock, events, .. } = &*self.database.shared;
        let (waited, served) = (clock.now().since(self.began), self.served);
        events.emit(Event::DatabaseWaited { waited, served });
    }
}

/// Tells how long a query took when it is dropped, so that a query that was given up counts too: it
/// is the slow ones that are given up.
struct Stopwatch<'a> {
    database: &'a Database,
    name: &'a str,
    began: Moment,
}

impl Drop for Stopwatch<'_> {
    fn drop(&mut self) {
        let Shared {
            config,
            clock,
            events,
        } = &*self.database.shared;
        let took = clock.now().since(self.began);
        let slow = took >= config.slow_query;
        events.emit(Event::QueryFinished {
            name: self.name,
            took,
            slow,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use crate::clock::ManualClock;
    use crate::event::Recorder;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(String, Duration, bool)>>);

    impl Recorder for Heard {
        fn record(&self, event: &Event<'_>) {
            if let Event::QueryFinished { name, took, slow } = event {
                self.0
                    .lock()
                    .unwrap()
                    .push(((*name).to_owned(), *took, *slow));
            }
        }
    }

    fn listened() -> (Database, ManualClock, Arc<Heard>) {
        let heard = Arc::new(Heard::default());
        let (clock, hand) = Clock::manual();
        let events = Events::to(vec![Arc::<Heard>::clone(&heard)]);
        let database = Database::new(&DatabaseConfig::default(), clock, events).unwrap();
        (database, hand, heard)
    }

    #[tokio::test]
    async fn a_query_is_timed_and_slow_from_the_threshold_on() {
        let (database, hand, heard) = listened();
        for millis in [99, 100] {
            let took = Duration::from_millis(millis);
            let query = async {
                hand.advance(took);
                Err::<(), _>("no such table")
            };
            assert_eq!(
                database.timed("contacts.list", query).await,
                Err("no such table")
            );
            let last = heard.0.lock().unwrap().pop();
            assert_eq!(
                last,
                Some(("contacts.list".to_owned(), took, millis == 100))
            );
        }
    }

    #[test]
    fn a_query_that_is_given_up_is_told_as_well_and_one_never_begun_is_not() {
        let (database, hand, heard) = listened();
        drop(database.timed("never", ready(())));
        {
            let mut query = pin!(database.timed("report", pending::<()>()));
            assert!(
                query
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()))
                    .is_pending()
            );
            hand.advance(Duration::from_secs(2));
        }
        let expected = ("report".to_owned(), Duration::from_secs(2), true);
        assert_eq!(*heard.0.lock().unwrap(), [expected]);
    }

    #[test]
    fn absurd_numbers_are_refused_by_name() {
        let config = DatabaseConfig {
            connections_max: 0,
            ..DatabaseConfig::default()
        };
        let error = Database::new(&config, Clock::system(), Events::none()).unwrap_err();
        assert!(
            error.to_string().contains("database.connections_max = 0"),
            "{error}"
        );
    }
}
