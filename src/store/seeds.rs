//! The addresses by which a cluster is found, and found again when none of its masters is left.

use std::fmt;
use std::time::Duration;

use redis::{AsyncConnectionConfig, RedisError, RedisResult, Value};

use crate::store::address::Endpoint;
use crate::store::classify::unreachable;
use crate::store::connect::Access;
use crate::store::slots::SlotMap;
use crate::store::status::{DownKind, DownReason};

/// Nodes of a cluster, as they were configured. A connection to one of them is opened for one question and
/// closed again; it is none of the pool's.
pub(crate) struct Seeds {
    endpoints: Vec<Endpoint>,
    access: Access,
}

/// How long a server may take to be reached and to tell the map.
const PATIENCE: Duration = Duration::from_millis(400);

impl Seeds {
    pub(crate) const fn new(endpoints: Vec<Endpoint>, access: Access) -> Self {
        Self { endpoints, access }
    }

    /// Whether the cluster's connections are encrypted.
    pub(crate) fn are_tls(&self) -> bool {
        self.endpoints.first().is_some_and(Endpoint::is_tls)
    }

    /// The map, by the first that tells it.
    pub(crate) async fn slots(&self) -> Result<SlotMap, DownReason> {
        let mut reason = DownReason::new(DownKind::Cluster, "no node of the cluster is named");
        for seed in &self.endpoints {
            match self.told_by(seed).await {
                Ok(slots) => return Ok(slots),
                Err(why) => {
                    self.access.note(&why);
                    reason = DownReason::new(why.kind(), format!("{seed}: {why}"));
                }
            }
        }
        Err(reason)
    }

    async fn told_by(&self, seed: &Endpoint) -> Result<SlotMap, DownReason> {
        if let Some(vault) = &self.access.vault {
            vault.fresh().await?;
        }
        let answer = match self.ask(seed).await {
            Ok(Value::ServerError(error)) => Err(RedisError::from(error)),
            answer => answer,
        };
        let answer = answer.map_err(|error| unreachable(&error))?;
        let slots = SlotMap::parse(&answer, seed.host());
        slots.map_err(|error| DownReason::new(DownKind::Cluster, error.to_string()))
    }

    async fn ask(&self, seed: &Endpoint) -> RedisResult<Value> {
        let info = seed.info(&self.access.login, self.access.tls.as_ref())?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_dns_resolver(self.access.resolver.clone());
        if let Some(vault) = &self.access.vault {
            config = config.set_credentials_provider(vault.clone());
        }
        let client = redis::Client::open(info)?;
        let connected = client.get_multiplexed_async_connection_with_config(&config);
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        connected.await?.send_packed_command(&question).await
    }
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.endpoints).finish()
    }
}
