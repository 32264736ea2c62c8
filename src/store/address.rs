//! Where Redis is, and how one logs in there.
//!
//! No `Debug` or `Display` of this file shows a user name or a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo,
    RedisResult,
};

use crate::store::tls::Tls;

/// What a URL leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: Address,
    /// Of the servers that hold the data.
    pub(crate) login: Login,
}

/// How the servers are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// There is one.
    Single(Endpoint),
    /// Sentinels know which one is the primary of this name.
    Sentinel {
        sentinels: Vec<Endpoint>,
        primary: String,
        /// Of the sentinels, which have users of their own.
        login: Login,
    },
    /// Each of these knows all the others.
    Cluster { seeds: Vec<Endpoint> },
}

/// One place to connect to. Shown as `host:port`, or as the socket's path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Tcp {
        /// A name or an address; IPv6 without brackets.
        host: String,
        port: u16,
        tls: bool,
    },
    Unix(PathBuf),
}

/// Who one is there, and in which database.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) database: u32,
}

impl Target {
    /// Whether any connection is encrypted.
    pub(crate) fn uses_tls(&self) -> bool {
        let endpoints = match &self.address {
            Address::Single(endpoint) => std::slice::from_ref(endpoint),
            Address::Sentinel { sentinels, .. } => sentinels,
            Address::Cluster { seeds } => seeds,
        };
        endpoints
            .iter()
            .any(|endpoint| matches!(endpoint, Endpoint::Tcp { tls: true, .. }))
    }
}

impl Endpoint {
    /// Whether connections to it are encrypted.
    pub(crate) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tcp { tls: true, .. })
    }

    /// Its name or address; empty for a socket.
    pub(crate) fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "",
        }
    }

    /// What redis-rs wants to know of a connection: always RESP3, because pushes and commands share it, and
    /// no Nagle, which costs two fifths of the throughput at a round trip of 1 ms.
    ///
    /// # Errors
    ///
    /// None in practice: redis-rs takes any address.
    pub(crate) fn info(&self, login: &Login, tls: Option<&Tls>) -> RedisResult<ConnectionInfo> {
        let address = match self {
            Self::Unix(path) => ConnectionAddr::Unix(path.clone()),
            Self::Tcp {
                host,
                port,
                tls: false,
            } => ConnectionAddr::Tcp(host.clone(), *port),
            Self::Tcp {
                host,
                port,
                tls: true,
            } => match tls {
                Some(tls) => tls.address(host, *port),
                None => crate::store::tls::address(host, *port),
            },
        };
        // The heartbeat finds a dead peer much sooner. This is for connections that nobody uses any more
        // but that a late reply still holds.
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL);
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive);
        let info = address.into_connection_info()?;
        Ok(info.set_tcp_settings(tcp).set_redis_settings(login.info()))
    }
}

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

impl Login {
    fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            .set_db(i64::from(self.database));
        if let Some(username) = &self.username {
            info = info.set_username(username);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "(hidden)");
        f.debug_struct("Login")
            .field("username", &hidden(&self.username))
            .field("password", &hidden(&self.password))
            .field("database", &self.database)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, tls: bool) -> Endpoint {
        Endpoint::Tcp {
            host: host.to_owned(),
            port: 6380,
            tls,
        }
    }

    #[test]
    fn an_endpoint_is_shown_as_it_is_written() {
        assert_eq!(tcp("cache.example", true).to_string(), "cache.example:6380");
        assert_eq!(tcp("::1", false).to_string(), "[::1]:6380");
        let socket = Endpoint::Unix("/run/redis.sock".into());
        assert_eq!(socket.to_string(), "/run/redis.sock");
    }

    #[test]
    fn a_connection_speaks_resp3_without_delay_and_says_who_it_is() {
        let login = Login {
            username: Some("u".to_owned()),
            password: Some("p".to_owned()),
            database: 7,
        };
        let info = tcp("h", false).info(&login, None).unwrap();
        assert_eq!(*info.addr(), ConnectionAddr::Tcp("h".to_owned(), 6380));
        assert!(info.tcp_settings().nodelay());
        let redis = info.redis_settings();
        assert_eq!(redis.protocol(), ProtocolVersion::RESP3);
        assert_eq!(redis.lib_name(), Some("tower-keep"));
        assert_eq!((redis.username(), redis.password()), (Some("u"), Some("p")));
        assert_eq!(redis.db(), 7);

        let info = tcp("h", true).info(&Login::default(), None).unwrap();
        assert!(matches!(
            info.addr(),
            ConnectionAddr::TcpTls {
                insecure: false,
                tls_params: None,
                ..
            }
        ));
        assert_eq!(info.redis_settings().password(), None);
        let socket = Endpoint::Unix("/run/r".into());
        let info = socket.info(&login, None).unwrap();
        assert_eq!(*info.addr(), ConnectionAddr::Unix("/run/r".into()));
    }

    #[test]
    fn a_login_shows_neither_name_nor_password() {
        let login = Login {
            username: Some("somebody".to_owned()),
            password: Some("secret".to_owned()),
            database: 3,
        };
        let shown = format!("{login:?}");
        assert!(shown.contains("database: 3"), "{shown}");
        assert!(!shown.contains("somebody") && !shown.contains("secret"));
    }
}
