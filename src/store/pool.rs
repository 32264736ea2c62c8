//! The one pool that everything shared goes through.

use std::fmt::{self, Display};
use std::sync::Arc;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::{ConfigError, Faults};
use crate::event::Events;
use crate::store::address::{Address, Target};
use crate::store::ask;
use crate::store::cluster;
use crate::store::command::{Argument, Batch, Call, Command, Step};
use crate::store::config::RedisConfig;
use crate::store::connect::{Access, Way};
use crate::store::error::StoreError;
use crate::store::figures::RedisFigures;
use crate::store::hub::Hub;
use crate::store::library::Library;
use crate::store::node::{Limits, Node, NodeParts};
use crate::store::parts::StoreParts;
use crate::store::push::PushSink;
use crate::store::reply::{FromReply, Replies, Reply};
use crate::store::resolver::Resolver;
use crate::store::sentinel::Sentinels;
use crate::store::status::{DownKind, DownReason, RedisStatus};
use crate::store::supervisor::supervise;
use crate::store::timed::Stopwatch;
use crate::store::tls::Tls;
use crate::store::topology::Topology;
use crate::store::vault::Vault;
use crate::store::watch::{StatusWatch, told};
use crate::task::Spawner;

/// Commands to Redis over one connection that everybody shares, and no waiting when it is gone. Cheap to
/// clone; all clones are one pool. See the room's head for what it promises.
///
/// ```no_run
/// use tower_keep::store::{Command, RedisPool, StoreError};
///
/// /// How often `page` was looked at; `None` while Redis is away.
/// async fn looked_at(redis: &RedisPool, page: &str) -> Result<Option<u64>, StoreError> {
///     let one_more = Command::new("INCR").key(redis.key(format_args!("looks:{page}")));
///     match redis.run(&one_more).await {
///         Ok(looks) => Ok(Some(looks)),
///         // Nobody waited for this. Where the answer was lost, the look may have been counted.
///         Err(error) if error.is_unavailable() => Ok(None),
///         // Redis said no: the key holds something else, the user may not do this, ..
///         Err(error) => Err(error),
///     }
/// }
/// # use tower_keep::{Keep, Profile};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// // In a service, `keep.redis()` is the pool.
/// let keep = Keep::builder(Profile::azure_b1()).redis_from_env().build()?;
/// let looks = looked_at(keep.redis(), "/contacts").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisPool {
    inner: Arc<Inner>,
}

struct Inner {
    fleet: Fleet,
    hub: Hub,
    prefix: String,
    bulk_bytes: usize,
    status: watch::Sender<RedisStatus>,
    watch: Stopwatch,
}

/// The servers behind a pool.
enum Fleet {
    None,
    Single(Node),
    Cluster(Topology),
}

impl RedisPool {
    /// A pool without a Redis: its status is `Disabled`, and every command fails at once.
    #[must_use]
    pub fn disabled() -> Self {
        Self {
            inner: Arc::new(Inner {
                fleet: Fleet::None,
                hub: Hub::default(),
                prefix: String::new(),
                bulk_bytes: usize::MAX,
                status: watch::Sender::new(RedisStatus::Disabled),
                // Nothing is sent, so it is never asked.
                watch: Stopwatch::new(Clock::manual().0, Events::none()),
            }),
        }
    }

    /// A pool that begins to connect in the background. Waits for nothing. Without a URL it is
    /// [`disabled`](Self::disabled).
    ///
    /// # Errors
    ///
    /// Names every setting that cannot be right.
    pub fn new(config: &RedisConfig, parts: &StoreParts) -> Result<Self, ConfigError> {
        let mut faults = Faults::new();
        config.check("redis", &mut faults);
        faults.into_result()?;
        // It was checked just now, so nothing is found any more.
        let target = config.target("redis", &mut Faults::new());
        let in_cluster = |target: &Target| matches!(target.address, Address::Cluster { .. });
        let library = Library::new(&parts.scripts, target.as_ref().is_some_and(in_cluster))?;
        let Some(target) = target else {
            return Ok(Self::disabled());
        };
        let encrypted = target.uses_tls();
        let tls = encrypted
            .then(|| Tls::new("redis.ca_certificate", config.ca_certificate.as_deref()))
            .transpose()?;
        let hub = Hub::default();
        let starting = DownReason::new(DownKind::Starting, "connecting");
        let status = watch::Sender::new(RedisStatus::Down { reason: starting });
        let access = access(config, parts, &target, (tls.clone(), hub.clone()));
        let (vault, resolver) = (access.vault.clone(), access.resolver.clone());
        let node_parts = NodeParts {
            limits: Limits::of(config),
            probe: Some(format!("{}:probe", config.prefix())),
            access,
            library: Arc::new(library),
            subscribe: "SUBSCRIBE",
            channels: Arc::new(Hub::channels),
            told: told(status.clone(), parts.events.clone()),
        };
        let fleet = match target.address {
            Address::Single(endpoint) => single(Way::Fixed(endpoint), node_parts, &parts.spawner)?,
            Address::Sentinel {
                sentinels,
                primary,
                login,
            } => {
                let way = Way::Sentinels(Box::new(Sentinels::new(
                    sentinels,
                    primary,
                    login,
                    (tls, resolver),
                )));
                single(way, node_parts, &parts.spawner)?
            }
            Address::Cluster { seeds } => {
                let node_parts = NodeParts {
                    // A key of ours could belong to another master.
                    probe: None,
                    subscribe: "SSUBSCRIBE",
                    ..node_parts
                };
                Fleet::Cluster(Topology::start(seeds, node_parts, &parts.spawner))
            }
        };
        if let Some(vault) = vault {
            let keeping = async move { vault.keep_fresh().await };
            parts.spawner.spawn_until_stopped(keeping);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                fleet,
                hub,
                prefix: config.prefix().to_owned(),
                bulk_bytes: usize::try_from(config.bulk_bytes).unwrap_or(usize::MAX),
                status,
                watch: Stopwatch::new(parts.clock.clone(), parts.events.clone()),
            }),
        })
    }

    /// How it is, without waiting.
    #[must_use]
    pub fn status(&self) -> RedisStatus {
        self.inner.status.borrow().clone()
    }

    /// Follows the status.
    #[must_use]
    pub fn watch(&self) -> StatusWatch {
        StatusWatch {
            status: self.inner.status.subscribe(),
        }
    }

    /// What all keys of this service begin with, without the colon.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// A key of this service: the configured prefix, a colon, and `rest`. What stands in `rest` between
    /// braces is its hash tag: in a cluster, keys with one tag are on one server.
    #[must_use]
    pub fn key(&self, rest: impl Display) -> String {
        format!("{}:{rest}", self.inner.prefix)
    }

    /// Sends one command and reads its answer.
    ///
    /// Waits at most `redis.command_timeout` (a bulk command: `redis.bulk_timeout`), and not at all while
    /// Redis is away. Dropping the future does not call the command back: it may run all the same.
    ///
    /// # Errors
    ///
    /// See [`StoreError`]; [`may_have_run`](StoreError::may_have_run) tells whether to expect a ghost.
    pub async fn run<T: FromReply>(&self, command: &Command) -> Result<T, StoreError> {
        if let Some(why) = command.unfit() {
            return Err(StoreError::Unfit(why));
        }
        let manner = command.manner(self.inner.bulk_bytes);
        let answer = match &self.inner.fleet {
            Fleet::None => return Err(disabled()),
            Fleet::Single(node) => {
                self.inner
                    .watch
                    .timed(ask::run(node, command, manner))
                    .await?
            }
            Fleet::Cluster(topology) => {
                let step = Step::Command(command.clone());
                self.inner
                    .watch
                    .timed(cluster::run(topology, &step, manner))
                    .await?
            }
        };
        Reply(answer).read()
    }

    /// Calls a script in one round trip. A script that the server has lost is loaded again within the
    /// same deadline.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`StoreError::Unfit`] for a script that the pool was not built with.
    pub async fn call<T: FromReply>(&self, call: &Call) -> Result<T, StoreError> {
        let manner = call.manner(self.inner.bulk_bytes);
        let answer = match &self.inner.fleet {
            Fleet::None => return Err(disabled()),
            Fleet::Single(node) => {
                self.inner
                    .watch
                    .timed(ask::call(node, call, manner))
                    .await?
            }
            Fleet::Cluster(topology) => {
                let step = Step::Call(call.clone());
                self.inner
                    .watch
                    .timed(cluster::run(topology, &step, manner))
                    .await?
            }
        };
        Reply(answer).read()
    }

    /// Publishes a message to a channel, to which sinks of all instances may be
    /// [`subscribe`](Self::subscribe)d. Returns how many connections heard it; in a cluster, on its node.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run). Published twice, it is heard twice.
    pub async fn publish(
        &self,
        channel: impl AsRef<[u8]>,
        payload: impl Argument,
    ) -> Result<u64, StoreError> {
        let verb = match &self.inner.fleet {
            Fleet::Cluster(_) => "SPUBLISH",
            Fleet::None | Fleet::Single(_) => "PUBLISH",
        };
        self.run(&Command::new(verb).key(channel).arg(payload))
            .await
    }

    /// Sends several commands in one round trip and returns their answers in the same order.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run) for the batch as a whole; what the server refuses concerns only its own step.
    pub async fn run_all(&self, batch: &Batch) -> Result<Replies, StoreError> {
        if let Some(why) = batch.unfit() {
            return Err(StoreError::Unfit(why));
        }
        let manner = batch.manner(self.inner.bulk_bytes);
        let answers = match &self.inner.fleet {
            Fleet::None => return Err(disabled()),
            Fleet::Single(node) => {
                let steps: Vec<&Step> = batch.steps().iter().collect();
                self.inner
                    .watch
                    .timed(ask::batch(node, &steps, manner))
                    .await?
            }
            Fleet::Cluster(topology) => {
                self.inner
                    .watch
                    .timed(cluster::batch(topology, batch.steps(), manner))
                    .await?
            }
        };
        let answers = answers.into_iter().map(|answer| answer.map(Reply));
        Ok(Replies(answers.collect::<Vec<_>>().into_iter()))
    }

    /// Hears the messages of a channel, from now on and over every reconnect; see [`PushSink`] for the
    /// order they come in. It is for the pool's life: register a fixed number of channels, not one for
    /// each request. In a cluster the channel is a sharded one (`SSUBSCRIBE`), so publish with
    /// [`publish`](Self::publish), or in a script with its `publish`.
    pub fn subscribe(&self, channel: impl AsRef<[u8]>, sink: Arc<dyn PushSink>) {
        self.inner.hub.subscribe(channel.as_ref(), sink);
        self.nudge();
    }

    /// Hears which keys beginning with `prefix` were changed by anybody (`CLIENT TRACKING`, broadcasting).
    pub fn track(&self, prefix: impl AsRef<[u8]>, sink: Arc<dyn PushSink>) {
        self.inner.hub.track(prefix.as_ref(), sink);
        self.nudge();
    }

    /// Whether keys lie on several servers, so that a script takes only those of one `{hash tag}`.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.inner.fleet, Fleet::Cluster(_))
    }

    fn nodes(&self) -> Vec<Node> {
        match &self.inner.fleet {
            Fleet::None => Vec::new(),
            Fleet::Single(node) => vec![node.clone()],
            Fleet::Cluster(topology) => topology.nodes(),
        }
    }

    fn nudge(&self) {
        self.nodes().iter().for_each(Node::nudge);
    }

    /// What an operator wants to know.
    #[must_use]
    pub fn figures(&self) -> RedisFigures {
        let mut figures = RedisFigures::new(self.status());
        self.nodes().iter().for_each(|node| figures.add(node));
        figures
    }
}

/// What all connections have in common.
fn access(
    config: &RedisConfig,
    parts: &StoreParts,
    target: &Target,
    (tls, hub): (Option<Tls>, Hub),
) -> Access {
    let vault = |provider| Vault::new(provider, parts.clock.clone(), parts.events.clone());
    Access {
        login: target.login.clone(),
        tls,
        vault: parts.credentials.clone().map(vault),
        resolver: Resolver::new(parts.spawner.clone()),
        hub,
        clock: parts.clock.clone(),
        client_name: config.client_name.as_str().into(),
        patience: config.command_timeout,
    }
}

fn single(way: Way, parts: NodeParts, spawner: &Spawner) -> Result<Fleet, ConfigError> {
    let node = Node::new(way, parts)
        .map_err(|words| ConfigError::one("redis.max_connections", "the pool", words))?;
    supervise(node.clone(), spawner);
    Ok(Fleet::Single(node))
}

fn disabled() -> StoreError {
    StoreError::Unavailable(DownReason::new(
        DownKind::Disabled,
        "no Redis is configured",
    ))
}

impl fmt::Debug for RedisPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPool")
            .field("prefix", &self.inner.prefix)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreParts")
            .field("scripts", &self.scripts.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::slots::NodeAddress;
    use crate::task::Tasks;

    #[tokio::test]
    async fn a_guest_that_is_one_too_many_leaves_nothing_behind() {
        let tasks = Tasks::new().unwrap();
        let config = RedisConfig {
            url: Some("redis-cluster://127.0.0.1:1".to_owned()),
            ..RedisConfig::default()
        };
        let pool = RedisPool::new(&config, &StoreParts::new(tasks.spawner())).unwrap();
        let Fleet::Cluster(topology) = &pool.inner.fleet else {
            panic!("no cluster");
        };
        let is_invited = |port: &u16| {
            let (host, port) = ("127.0.0.1".into(), *port);
            topology.invite(&NodeAddress { host, port }).is_some()
        };
        assert_eq!((1..=20).filter(is_invited).count(), 16);
        // Nothing has run yet: there is one task for each guest, and one that reads the map.
        assert_eq!(tasks.spawner().running(), 17);
    }
}
