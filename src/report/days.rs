//! The days of all instances, in Redis: one hash for each, which expires by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::report::date::Date;
use crate::report::sums::Sums;
use crate::store::{Batch, Command, Pairs, RedisPool, StoreError};

/// Where the days are.
#[derive(Clone, Debug)]
pub(crate) struct Days {
    pool: RedisPool,
    kept: u32,
}

impl Days {
    pub(crate) const fn new(pool: RedisPool, kept: u32) -> Self {
        Self { pool, kept }
    }

    fn key(&self, date: Date) -> String {
        self.pool.key(format_args!("trend:{}", date.compact()))
    }

    /// Adds to the days in one round trip. Returns what surely was not added; what may have been is not in it.
    pub(crate) async fn add(&self, more: &BTreeMap<Date, Sums>) -> BTreeMap<Date, Sums> {
        let mut batch = Batch::new();
        let mut asked = Vec::new();
        for (date, sums) in more {
            let key = self.key(*date);
            for (name, sum) in sums.named() {
                let add = Command::new("HINCRBY").key(&key).arg(&name).arg(sum);
                batch = batch.command(add);
                asked.push(Some((*date, name, sum)));
            }
            let kept = u64::from(self.kept) * DAY.as_secs();
            batch = batch.command(Command::new("EXPIRE").key(&key).arg(kept));
            asked.push(None);
        }
        let mut refused: BTreeMap<Date, Sums> = BTreeMap::new();
        let answers = match self.pool.run_all(&batch).await {
            Ok(answers) => answers,
            Err(error) if error.may_have_run() => return refused,
            Err(_) => return more.clone(),
        };
        for (answer, asked) in answers.zip(asked) {
            if let (Err(error), Some((date, name, sum))) = (answer, asked)
                && !error.may_have_run()
            {
                refused.entry(date).or_default().add_named(&name, sum);
            }
        }
        refused
    }

    /// The sums of these days, in one round trip; zeros where nothing is known.
    pub(crate) async fn read(&self, dates: &[Date]) -> Result<Vec<Sums>, StoreError> {
        let mut batch = Batch::new();
        for date in dates {
            batch = batch.command(Command::new("HGETALL").key(self.key(*date)));
        }
        // A month is some 10 KB, a year 120.
        let batch = if dates.len() > 31 {
            batch.bulk()
        } else {
            batch
        };
        let mut answers = self.pool.run_all(&batch).await?;
        let read = |_: &Date| {
            let Pairs(pairs): Pairs<String, u64> = answers.read()?;
            let mut sums = Sums::default();
            for (name, sum) in pairs {
                sums.add_named(&name, sum);
            }
            Ok(sums)
        };
        dates.iter().map(read).collect()
    }
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
