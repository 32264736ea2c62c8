//! Asks Sentinels which server is the primary.

use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::sync::Mutex;

use crate::store::address::{Endpoint, Login};
use crate::store::classify::unreachable;
use crate::store::reply::Reply;
use crate::store::resolver::Resolver;
use crate::store::status::{DownKind, DownReason};
use crate::store::tls::Tls;

/// The Sentinels that watch one primary.
///
/// Their connection is not one of the pool's: it goes to another process, and is one at most.
pub(crate) struct Sentinels {
    endpoints: Vec<Endpoint>,
    primary: String,
    login: Login,
    tls: Option<Tls>,
    resolver: Resolver,
    kept: Mutex<Option<MultiplexedConnection>>,
}

/// How long one Sentinel may take to be reached, and to answer.
const PATIENCE: Duration = Duration::from_millis(200);

impl Sentinels {
    pub(crate) fn new(
        endpoints: Vec<Endpoint>,
        primary: String,
        login: Login,
        (tls, resolver): (Option<Tls>, Resolver),
    ) -> Self {
        Self {
            endpoints,
            primary,
            login,
            tls,
            resolver,
            kept: Mutex::new(None),
        }
    }

    /// Where the primary is, says the Sentinel that answered last, or else the first that answers.
    pub(crate) async fn primary(&self) -> Result<Endpoint, DownReason> {
        let mut kept = self.kept.lock().await;
        if let Some(mut sentinel) = kept.take()
            && let Some(endpoint) = self.ask(&mut sentinel).await
        {
            *kept = Some(sentinel);
            return Ok(endpoint);
        }
        if self.endpoints.is_empty() {
            return Err(DownReason::new(DownKind::NoPrimary, "no Sentinel is named"));
        }
        // All at once: with two of three silent, one after the other would take too long.
        let asked = self
            .endpoints
            .iter()
            .map(|one| Box::pin(self.named_by(one)));
        let (sentinel, primary) = select_ok(asked).await.map(|(first, _)| first)?;
        *kept = Some(sentinel);
        Ok(primary)
    }

    /// One Sentinel, and the primary that it names.
    async fn named_by(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(MultiplexedConnection, Endpoint), DownReason> {
        let trouble = |words: String| {
            DownReason::new(DownKind::NoPrimary, format!("Sentinel {endpoint}: {words}"))
        };
        let connected = self.connect(endpoint).await;
        let mut sentinel = connected.map_err(|error| trouble(unreachable(&error).to_string()))?;
        match self.ask(&mut sentinel).await {
            Some(primary) => Ok((sentinel, primary)),
            None => Err(trouble(format!("knows no primary `{}`", self.primary))),
        }
    }

    async fn connect(&self, endpoint: &Endpoint) -> RedisResult<MultiplexedConnection> {
        let info = endpoint.info(&self.login, self.tls.as_ref())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE))
            .set_dns_resolver(self.resolver.clone());
        let client = redis::Client::open(info)?;
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn ask(&self, sentinel: &mut MultiplexedConnection) -> Option<Endpoint> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.primary);
        let answer = sentinel.send_packed_command(&question).await.ok()?;
        let (host, port): (String, u64) = Reply(answer).read().ok()?;
        let tls = self.endpoints.first().is_some_and(Endpoint::is_tls);
        Some(Endpoint::Tcp {
            host,
            port: u16::try_from(port).ok()?,
            tls,
        })
    }
}
