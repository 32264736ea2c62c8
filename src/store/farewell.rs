//! What a server says to whom it does not let in.
//!
//! A full Redis says so in a line and hangs up without having read a word. Whoever has said something by
//! then, as every client does, finds the connection reset and that line gone. So one who was hung up on
//! knocks once more, and only listens.

use std::io;
use std::time::Duration;

use redis::io::AsyncDNSResolver;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::store::address::Endpoint;
use crate::store::resolver::Resolver;
use crate::store::status::{DownKind, DownReason};

/// A server that has something to say to a stranger says it at once.
const PATIENCE: Duration = Duration::from_millis(50);
/// The line is shorter than this.
const MOST: usize = 256;

/// Why this server lets nobody in, if it says so. Behind TLS it never does.
pub(crate) async fn farewell(endpoint: &Endpoint, resolver: &Resolver) -> Option<DownReason> {
    let heard = tokio::time::timeout(PATIENCE, listen(endpoint, resolver));
    let line = heard.await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&line);
    let text = text.trim_end().trim_start_matches("-ERR ");
    let full = text.starts_with("max number of clients");
    full.then(|| DownReason::new(DownKind::MaxClients, text))
}

async fn listen(endpoint: &Endpoint, resolver: &Resolver) -> io::Result<Vec<u8>> {
    match endpoint {
        Endpoint::Tcp { tls: true, .. } => Err(io::ErrorKind::Unsupported.into()),
        Endpoint::Tcp { host, port, .. } => {
            let found = resolver.resolve(host, *port).await;
            let first = found.ok().and_then(|mut addresses| addresses.next());
            let address = first.ok_or(io::ErrorKind::NotFound)?;
            line(tokio::net::TcpStream::connect(address).await?).await
        }
        #[cfg(unix)]
        Endpoint::Unix(path) => line(tokio::net::UnixStream::connect(path).await?).await,
        #[cfg(not(unix))]
        Endpoint::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
    }
}

async fn line(stream: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.take(MOST as u64).read_to_end(&mut line).await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::task::Tasks;

    /// What is made of a server that says this and hangs up.
    async fn heard(said: &'static [u8]) -> Option<DownReason> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Endpoint::Tcp {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            tls: false,
        };
        let tasks = Tasks::new().unwrap();
        let resolver = Resolver::new(tasks.spawner());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(said).await.unwrap();
        };
        tokio::join!(farewell(&endpoint, &resolver), serving).0
    }

    #[tokio::test]
    async fn a_full_server_is_understood_and_others_say_nothing_of_use() {
        let full = heard(b"-ERR max number of clients reached\r\n")
            .await
            .unwrap();
        assert_eq!(full.kind(), DownKind::MaxClients);
        assert_eq!(full.to_string(), "max number of clients reached");
        for other in [&b""[..], b"220 mail.example", &[b'x'; 4096]] {
            assert!(heard(other).await.is_none());
        }
    }
}
