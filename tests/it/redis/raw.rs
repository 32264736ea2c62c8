//! A client of a few lines that blocks: what a test asks the server itself.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A server that says nothing for so long is stopped or stuck.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server answered (RESP2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `+OK`
    Simple(String),
    /// `-ERR ..`, with its code
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Self>),
}

/// One connection to a server.
pub struct Raw {
    wire: BufReader<Box<dyn Wire>>,
}

trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

impl Answer {
    /// A simple or bulk string.
    #[track_caller]
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no text: {other:?}"),
        }
    }

    #[track_caller]
    pub fn integer(&self) -> i64 {
        match self {
            Self::Integer(integer) => *integer,
            other => panic!("no integer: {other:?}"),
        }
    }

    #[track_caller]
    pub fn array(&self) -> &[Self] {
        match self {
            Self::Array(items) => items,
            other => panic!("no array: {other:?}"),
        }
    }

    /// What follows `name` and its separator in answers made of `name:value` lines.
    pub fn line(&self, name: &str) -> Option<String> {
        let value = |line: &str| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(str::to_owned)
        };
        self.text().lines().find_map(value)
    }
}

impl Raw {
    /// A connection to a port of this machine. Every wait on it ends after 5 s.
    pub fn connect(port: u16) -> Result<Self> {
        Ok(Self::over(dial(port)?))
    }

    /// The same inside TLS.
    pub(super) fn connect_tls(port: u16, config: &Arc<ClientConfig>) -> Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(Error::other)?;
        Ok(Self::over(StreamOwned::new(tls, dial(port)?)))
    }

    fn over(wire: impl Wire + 'static) -> Self {
        Self {
            wire: BufReader::new(Box::new(wire)),
        }
    }

    /// Sends a command and waits for its answer; an error of the server's is an answer.
    #[track_caller]
    pub fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Answer {
        self.try_command(words).unwrap_or_else(|error| {
            let words = words
                .iter()
                .map(|word| String::from_utf8_lossy(word.as_ref()));
            panic!("{}: {error}", words.collect::<Vec<_>>().join(" "))
        })
    }

    /// Like [`command`](Self::command), and anything but an error of the server's is what is expected.
    #[track_caller]
    pub fn must<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Answer {
        match self.command(words) {
            Answer::Error(text) => {
                let words = words
                    .iter()
                    .map(|word| String::from_utf8_lossy(word.as_ref()));
                panic!("{}: {text}", words.collect::<Vec<_>>().join(" "))
            }
            answer => answer,
        }
    }

    /// Like [`command`](Self::command), where the connection itself may fail.
    pub fn try_command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Answer> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            request.extend(format!("${}\r\n", word.len()).into_bytes());
            request.extend(word);
            request.extend(b"\r\n");
        }
        let wire = self.wire.get_mut();
        wire.write_all(&request)?;
        wire.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.wire.read_line(&mut line)?;
        let odd = || Error::new(ErrorKind::InvalidData, format!("no RESP: {line:?}"));
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(if line.is_empty() {
                ErrorKind::UnexpectedEof.into()
            } else {
                odd()
            });
        };
        let (kind, rest) = line.split_at_checked(1).ok_or_else(odd)?;
        let number = || rest.parse::<i64>().map_err(|_| odd());
        Ok(match kind {
            "+" => Answer::Simple(rest.to_owned()),
            "-" => Answer::Error(rest.to_owned()),
            ":" => Answer::Integer(number()?),
            "$" | "*" => match (kind, usize::try_from(number()?)) {
                (_, Err(_)) => Answer::Nil,
                ("$", Ok(length)) => {
                    let mut bytes = vec![0; length + 2];
                    self.wire.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Answer::Bulk(bytes)
                }
                (_, Ok(length)) => {
                    Answer::Array((0..length).map(|_| self.answer()).collect::<Result<_>>()?)
                }
            },
            _ => return Err(odd()),
        })
    }
}

fn dial(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
