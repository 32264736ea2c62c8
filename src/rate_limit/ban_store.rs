//! Bans that all instances share.

use std::time::Duration;

use crate::rate_limit::ban_script::{BAN, CONFIRM, PARDON};
use crate::rate_limit::script::ban_key;
use crate::rate_limit::shared::{Shared, millis};
use crate::store::{Call, StoreError};

impl Shared {
    /// Bans an owner for so long; never shortens a ban.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn ban(&self, owner: &str, lasts: Duration) -> Result<(), StoreError> {
        let call = Call::new(&BAN).key(ban_key(&self.pool, owner));
        self.pool.call(&call.arg(millis(lasts))).await
    }

    /// Ends a ban, which is known to last for so long at least. Until then Redis remembers that it was lifted.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn unban(&self, owner: &str, lasts: Duration) -> Result<(), StoreError> {
        let call = Call::new(&PARDON).key(ban_key(&self.pool, owner));
        let lasts = match lasts {
            Duration::ZERO => 0,
            lasts => millis(lasts),
        };
        self.pool.call(&call.arg(lasts)).await
    }

    /// Whether a ban still holds. Where Redis has lost one that is known to last for so long, it is spoken anew.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub(crate) async fn confirm(
        &self,
        owner: &str,
        lasts: Option<Duration>,
    ) -> Result<bool, StoreError> {
        let call = Call::new(&CONFIRM).key(ban_key(&self.pool, owner));
        let holds: u64 = self.pool.call(&call.arg(lasts.map_or(0, millis))).await?;
        Ok(holds == 1)
    }
}
