//! Asks Sentinels which server is the primary.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tokio::sync::Mutex;

use crate::store::address::{Endpoint, Login};
use crate::store::reply::Reply;
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
    kept: Mutex<Option<MultiplexedConnection>>,
}

/// How long one Sentinel may take to be reached, and to answer.
const PATIENCE: Duration = Duration::from_millis(200);

impl Sentinels {
    pub(crate) fn new(
        endpoints: Vec<Endpoint>,
        primary: String,
        login: Login,
        tls: Option<Tls>,
    ) -> Self {
        Self {
            endpoints,
            primary,
            login,
            tls,
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
        let mut words = String::from("no Sentinel was asked");
        for endpoint in &self.endpoints {
            match self.connect(endpoint).await {
                Ok(mut sentinel) => {
                    if let Some(primary) = self.ask(&mut sentinel).await {
                        *kept = Some(sentinel);
                        return Ok(primary);
                    }
                    words = format!("Sentinel {endpoint} knows no primary `{}`", self.primary);
                }
                Err(error) => words = format!("Sentinel {endpoint}: {error}"),
            }
        }
        Err(DownReason::new(DownKind::NoPrimary, words))
    }

    async fn connect(&self, endpoint: &Endpoint) -> RedisResult<MultiplexedConnection> {
        let info = endpoint.info(&self.login, self.tls.as_ref())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
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
