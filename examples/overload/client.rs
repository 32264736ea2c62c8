//! The least HTTP/1.1 client that can load a server: keep-alive connections, as many as are needed.
//!
//! A real client would spend more on a request than the server under test does, and the driver has to keep up with
//! ten times what that can do.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What its body took on the wire.
    pub(crate) bytes: usize,
}

/// Connections to one server. Those that are not in use wait here for the next request.
#[derive(Debug)]
pub(crate) struct Pool {
    address: SocketAddr,
    idle: Mutex<Vec<Connection>>,
    open: Arc<AtomicUsize>,
    most: usize,
}

impl Pool {
    pub(crate) fn new(address: SocketAddr, most: usize) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            open: Arc::default(),
            most,
        }
    }

    /// Sends a GET for `path` and reads the answer. Dropping the future closes the connection.
    ///
    /// # Errors
    ///
    /// Those of the socket; `QuotaExceeded` when all connections that there may be are waiting for answers.
    pub(crate) async fn ask(&self, path: &str) -> Result<Answer> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self).await?,
        };
        let answer = connection.ask(path).await?;
        if connection.is_kept {
            self.idle().push(connection);
        }
        Ok(answer)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection while it lives.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    /// What was read and belongs to the answer under way.
    read: Vec<u8>,
    is_kept: bool,
    _counted: Counted,
}

impl Connection {
    async fn open(pool: &Pool) -> Result<Self> {
        let before = pool.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&pool.open));
        if before >= pool.most {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        let stream = TcpStream::connect(pool.address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::with_capacity(1024),
            is_kept: true,
            _counted: counted,
        })
    }

    async fn ask(&mut self, path: &str) -> Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: overload\r\naccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        let head = loop {
            self.more().await?;
            if let Some(head) = Head::of(&self.read)? {
                break head;
            }
        };
        match head.body {
            Framing::Length(bytes) => {
                while self.read.len() < head.bytes + bytes {
                    self.more().await?;
                }
            }
            // Whoever sends one request at a time finds nothing behind its answer.
            Framing::Chunked => {
                while !self.read.ends_with(b"0\r\n\r\n") {
                    self.more().await?;
                }
            }
        }
        self.is_kept = head.is_kept;
        Ok(Answer {
            status: head.status,
            bytes: self.read.len() - head.bytes,
        })
    }

    async fn more(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// As much of a head as it takes to find the end of the answer.
struct Head {
    bytes: usize,
    status: u16,
    body: Framing,
    is_kept: bool,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Head {
    /// The head at the beginning of `read`; `None` while it is not there as a whole.
    fn of(read: &[u8]) -> Result<Option<Self>> {
        let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let strange = || Error::other("an answer that is no HTTP/1.1");
        let text = std::str::from_utf8(&read[..end]).map_err(|_| strange())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut head = Self {
            bytes: end + 4,
            status: status.and_then(|it| it.parse().ok()).ok_or_else(strange)?,
            body: Framing::Length(0),
            is_kept: true,
        };
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(strange)?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.body = Framing::Length(value.parse().map_err(|_| strange())?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.body = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("connection") {
                head.is_kept = !value.eq_ignore_ascii_case("close");
            }
        }
        Ok(Some(head))
    }
}
