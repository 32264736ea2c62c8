//! Makes connections, for the pool that counts them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, RecycleResult};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::store::address::{Endpoint, Login};
use crate::store::classify::unreachable;
use crate::store::farewell::farewell;
use crate::store::hub::{Heard, Hub};
use crate::store::pulse::Pulse;
use crate::store::resolver::Resolver;
use crate::store::sentinel::Sentinels;
use crate::store::status::{DownKind, DownReason};
use crate::store::tls::Tls;
use crate::store::vault::Vault;

/// One open connection, as the pool counts it.
pub(crate) struct Wire {
    pub(crate) lane: MultiplexedConnection,
    pub(crate) id: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) pulse: Arc<Pulse>,
    /// What made it, and asks after it before it is used again.
    maker: deadpool_redis::Manager,
}

/// A connection that is given back when dropped, until it is taken out of the pool for good.
pub(crate) type Held = Object<Connector>;

/// Where to connect to, which may change between two attempts.
pub(crate) enum Way {
    Fixed(Endpoint),
    Sentinels(Box<Sentinels>),
}

impl Way {
    pub(crate) async fn endpoint(&self) -> Result<Endpoint, DownReason> {
        match self {
            Self::Fixed(endpoint) => Ok(endpoint.clone()),
            Self::Sentinels(sentinels) => sentinels.primary().await,
        }
    }

    /// In words, that an attempt to connect came to nothing within `limit`.
    pub(crate) fn unanswered(&self, limit: Duration) -> String {
        let limit = limit.as_millis();
        match self {
            // A plain port takes the first words of TLS for half a command, and waits for the rest.
            Self::Fixed(endpoint) if endpoint.is_tls() => {
                format!("{endpoint}: no TLS handshake within {limit} ms; is it a TLS port?")
            }
            Self::Fixed(endpoint) => format!("{endpoint}: no connection within {limit} ms"),
            Self::Sentinels(_) => {
                format!("no connection to the primary that the Sentinels name within {limit} ms")
            }
        }
    }
}

/// What every connection of a pool has in common.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) login: Login,
    pub(crate) tls: Option<Tls>,
    pub(crate) vault: Option<Vault>,
    pub(crate) resolver: Resolver,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    /// Our name in `CLIENT LIST`.
    pub(crate) client_name: Arc<str>,
    /// The command timeout: a silence of this length ends a connection.
    pub(crate) patience: Duration,
}

impl Access {
    /// Has other credentials fetched before the next attempt, where a server did not take these.
    pub(crate) fn note(&self, reason: &DownReason) {
        if let (DownKind::Authentication, Some(vault)) = (reason.kind(), &self.vault) {
            vault.refused();
        }
    }
}

/// The factory behind a pool: connects, signs in, and sees to it that pushes are heard in read order.
pub(crate) struct Connector {
    pub(crate) way: Way,
    pub(crate) access: Access,
    /// Wakes the supervisor when a connection breaks.
    pub(crate) over: Arc<Notify>,
}

/// Each connection of the process has a number of its own, so that a late push is not taken for one of
/// its successor's.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl managed::Manager for Connector {
    type Type = Wire;
    type Error = DownReason;

    async fn create(&self) -> Result<Wire, DownReason> {
        let endpoint = self.way.endpoint().await?;
        if let Some(vault) = &self.access.vault {
            vault.fresh().await?;
        }
        let failed = |error: &RedisError| named(&endpoint, error);
        let info = endpoint.info(&self.access.login, self.access.tls.as_ref());
        let info = info.map_err(|error| failed(&error))?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let pulse = Arc::new(Pulse::new(
            self.access.clock.clone(),
            self.access.patience,
            Arc::clone(&self.over),
        ));
        let config = self.config(id, &pulse);
        let maker = deadpool_redis::Manager::new_with_config(info, config);
        let maker = maker.map_err(|error| failed(&error))?;
        let mut lane = match maker.create().await {
            Ok(lane) => lane,
            Err(error) => return Err(self.turned_away(&endpoint, failed(&error)).await),
        };
        // Its name is a courtesy to whoever reads CLIENT LIST; a server without it will do.
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(&*self.access.client_name);
        let named = lane.send_packed_command(&name).await;
        named.map_err(|error| failed(&error))?;
        Ok(Wire {
            lane,
            id,
            endpoint,
            pulse,
            maker,
        })
    }

    /// Asked before a bulk connection is used again. The command lane is held throughout its life.
    async fn recycle(&self, wire: &mut Wire, metrics: &Metrics) -> RecycleResult<DownReason> {
        if wire.pulse.is_dead() {
            return Err(managed::RecycleError::Backend(wire.pulse.reason()));
        }
        let asked = wire.maker.recycle(&mut wire.lane, metrics).await;
        asked.map_err(|_| managed::RecycleError::message("the connection does not answer"))
    }
}

impl Connector {
    /// Why a server did not let us in, if it says more than that.
    async fn turned_away(&self, endpoint: &Endpoint, reason: DownReason) -> DownReason {
        self.access.note(&reason);
        if reason.kind() != DownKind::Disconnected {
            return reason;
        }
        let said = farewell(endpoint, &self.access.resolver).await;
        said.map_or(reason, |said| at(endpoint, &said, ""))
    }

    fn config(&self, id: u64, pulse: &Arc<Pulse>) -> AsyncConnectionConfig {
        let (hub, pulse) = (self.access.hub.clone(), Arc::clone(pulse));
        let config = AsyncConnectionConfig::new()
            // Attempts and commands have deadlines of their own, which tell a stall from a silence.
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_dns_resolver(self.access.resolver.clone())
            // Called by the task that reads, before any later reply is handed out.
            .set_push_sender(move |push| {
                match hub.deliver(id, &push) {
                    Heard::Fine => {}
                    Heard::Disconnected => {
                        pulse.end(DownReason::new(
                            DownKind::Disconnected,
                            "the server closed the connection",
                        ));
                        hub.lost(id);
                    }
                    Heard::Unsolicited => {
                        pulse.poison(DownReason::new(
                            DownKind::Protocol,
                            "the server ended a subscription",
                        ));
                        hub.lost(id);
                    }
                }
                Ok::<(), ()>(())
            });
        match &self.access.vault {
            Some(vault) => config.set_credentials_provider(vault.clone()),
            None => config,
        }
    }
}

/// A reason with the address in it: `127.0.0.1:6379: connection refused`.
fn named(endpoint: &Endpoint, error: &RedisError) -> DownReason {
    let reason = unreachable(error);
    // A TLS port hangs up on whoever greets it in plain words, or answers with an alert.
    let rebuffed = error.kind() == ErrorKind::Parse || reason.kind() == DownKind::Disconnected;
    let hint = match endpoint {
        Endpoint::Tcp { tls: false, .. } if rebuffed => "; if it is a TLS port, say rediss://",
        _ => "",
    };
    at(endpoint, &reason, hint)
}

fn at(endpoint: &Endpoint, reason: &DownReason, hint: &str) -> DownReason {
    DownReason::new(reason.kind(), format!("{endpoint}: {reason}{hint}"))
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("id", &self.id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}
