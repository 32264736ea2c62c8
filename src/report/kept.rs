//! Baselines by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::report::baseline::Baseline;
use crate::report::error::ReportError;
#[cfg(feature = "redis")]
use crate::store::{Command, RedisPool, RedisStatus};

/// Baselines by name: of all instances in Redis, or of this process in its memory. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Baselines {
    #[cfg(feature = "redis")]
    pool: Option<RedisPool>,
    here: Arc<Mutex<BTreeMap<String, Baseline>>>,
}

/// How many there may be without Redis.
const HERE_MAX: usize = 32;

/// How long Redis keeps one after it was saved: 400 days.
#[cfg(feature = "redis")]
const KEPT_SECONDS: u64 = 400 * 24 * 60 * 60;

impl Baselines {
    /// None yet, in the memory of this process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those in the Redis of `pool`, if it is one.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn shared(pool: &RedisPool) -> Self {
        let pool = (pool.status() != RedisStatus::Disabled).then(|| pool.clone());
        Self {
            pool,
            here: Arc::default(),
        }
    }

    /// Keeps `baseline` under `name`, in the place of an earlier one. In Redis for 400 days, without it for as
    /// long as the process lives, and then at most 32 of them.
    ///
    /// # Errors
    ///
    /// A name that is none, the store's error (saving it again does no harm), or too many.
    pub async fn save(&self, name: &str, baseline: &Baseline) -> Result<(), ReportError> {
        check(name)?;
        #[cfg(feature = "redis")]
        if let Some(pool) = &self.pool {
            let written = serde_json::to_string(baseline)
                .map_err(|error| ReportError::Unreadable(error.to_string()))?;
            let set = Command::new("SET").key(key(pool, name)).arg(&written);
            let set = set.arg("EX").arg(KEPT_SECONDS);
            return Ok(pool.run::<()>(&set).await?);
        }
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        if here.len() >= HERE_MAX && !here.contains_key(name) {
            return Err(ReportError::Full(HERE_MAX));
        }
        here.insert(name.to_owned(), baseline.clone());
        Ok(())
    }

    /// What was saved under `name`, if anything.
    ///
    /// # Errors
    ///
    /// A name that is none, the store's error, or something else than a baseline under its key.
    pub async fn load(&self, name: &str) -> Result<Option<Baseline>, ReportError> {
        check(name)?;
        #[cfg(feature = "redis")]
        if let Some(pool) = &self.pool {
            let get = Command::new("GET").key(key(pool, name));
            let found: Option<Vec<u8>> = pool.run(&get).await?;
            let read = found
                .map(|written| serde_json::from_slice(&written))
                .transpose();
            return read.map_err(|error| ReportError::Unreadable(error.to_string()));
        }
        let here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(here.get(name).cloned())
    }
}

#[cfg(feature = "redis")]
fn key(pool: &RedisPool, name: &str) -> String {
    pool.key(format_args!("report:baseline:{name}"))
}

fn check(name: &str) -> Result<(), ReportError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match !name.is_empty() && name.len() <= 64 && name.bytes().all(fits) {
        true => Ok(()),
        false => Err(ReportError::Name(name.chars().take(80).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Window;
    use crate::report::observed::Observed;
    use crate::report::verdict::judge;

    #[tokio::test]
    async fn without_redis_they_are_kept_in_memory_up_to_a_limit() {
        let kept = Baselines::new();
        let baseline = judge(&Observed::nothing(Window::Hour)).baseline();
        assert_eq!(kept.load("release-1").await, Ok(None));
        for at in 0..HERE_MAX {
            kept.save(&format!("release-{at}"), &baseline)
                .await
                .unwrap();
        }
        assert_eq!(
            kept.save("more", &baseline).await,
            Err(ReportError::Full(HERE_MAX))
        );
        kept.save("release-1", &baseline).await.unwrap();
        assert_eq!(kept.load("release-1").await, Ok(Some(baseline)));
    }

    #[tokio::test]
    async fn a_name_is_a_name() {
        let kept = Baselines::new();
        for name in ["", "a b", "a:b", "{a}", "../a/b", "\u{e4}", &"x".repeat(65)] {
            assert!(
                matches!(kept.load(name).await, Err(ReportError::Name(_))),
                "{name}"
            );
        }
        assert_eq!(kept.load(&"x".repeat(64)).await, Ok(None));
    }
}
