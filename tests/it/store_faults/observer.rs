//! What the server sees meanwhile: whether it answers, and how many of our connections it counts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::redis::{Answer, Raw};

/// Threads with plain sockets of their own. Dropping it ends them.
pub(super) struct Observer {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    over: AtomicBool,
    /// Where answers are expected; it moves when the primary does.
    port: AtomicU16,
    answers: Mutex<Answers>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Answers {
    /// Since when an answer counts, and when the first one came.
    expected: Option<Instant>,
    first: Option<Instant>,
}

#[derive(Default)]
struct Connections {
    /// By server, at its last look.
    now: Vec<usize>,
    most: usize,
}

/// Whoever says nothing for so long is asked anew over another connection.
const PATIENCE: Duration = Duration::from_millis(300);
const GLANCE: Duration = Duration::from_millis(2);

impl Observer {
    /// Pings at `way`, which may be a proxy, and counts at the servers themselves.
    pub(super) fn begin(way: u16, servers: &[u16], password: Option<&str>) -> Self {
        let seen = Arc::new(Seen::default());
        seen.port.store(way, Ordering::Relaxed);
        seen.connections.lock().unwrap().now = vec![0; servers.len()];
        let mut threads = Vec::new();
        let (of_pings, login) = (Arc::clone(&seen), password.map(str::to_owned));
        threads.push(std::thread::spawn(move || {
            pings(&of_pings, login.as_deref())
        }));
        for (at, &port) in servers.iter().enumerate() {
            let (seen, login) = (Arc::clone(&seen), password.map(str::to_owned));
            threads.push(std::thread::spawn(move || {
                counts(&seen, at, port, login.as_deref());
            }));
        }
        Self { seen, threads }
    }

    /// Answers count from now on; only the first one is noted.
    pub(super) fn expect(&self, port: Option<u16>) {
        if let Some(port) = port {
            self.seen.port.store(port, Ordering::Relaxed);
        }
        let mut answers = self.seen.answers.lock().unwrap();
        answers.expected = Some(Instant::now());
        answers.first = None;
    }

    /// When the server answered again.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.seen.answers.lock().unwrap().first
    }

    /// The most of our connections that the servers ever counted at a time.
    pub(super) fn most(&self) -> usize {
        self.seen.connections.lock().unwrap().most
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.seen.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pings(seen: &Seen, password: Option<&str>) {
    let mut wire: Option<(u16, TcpStream)> = None;
    while !seen.over.load(Ordering::Relaxed) {
        let port = seen.port.load(Ordering::Relaxed);
        if wire.as_ref().is_none_or(|(to, _)| *to != port) {
            wire = dial(port, password).map(|stream| (port, stream));
        }
        match wire.as_mut().map(|(_, stream)| ping(stream)) {
            Some(Ok(line)) if line == b"+PONG\r\n" => {
                let mut answers = seen.answers.lock().unwrap();
                let now = Instant::now();
                if answers.expected.is_some() && answers.first.is_none() {
                    answers.first = Some(now);
                }
            }
            // Loading or busy; it says so again until it is not.
            Some(Ok(line)) if !line.starts_with(b"-NOAUTH") => {}
            _ => wire = None,
        }
        std::thread::sleep(GLANCE);
    }
}

fn dial(port: u16, password: Option<&str>) -> Option<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    if let Some(password) = password {
        stream
            .write_all(format!("AUTH {password}\r\n").as_bytes())
            .ok()?;
        line(&mut stream).ok()?;
    }
    Some(stream)
}

fn ping(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    stream.write_all(b"PING\r\n")?;
    line(stream)
}

fn line(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut line, mut chunk) = (Vec::new(), [0; 256]);
    while !line.ends_with(b"\n") {
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => line.extend(&chunk[..read]),
        }
    }
    Ok(line)
}

fn counts(seen: &Seen, at: usize, port: u16, password: Option<&str>) {
    let mut wire: Option<Raw> = None;
    while !seen.over.load(Ordering::Relaxed) {
        if wire.is_none() {
            wire = Raw::connect(port).ok();
            if let (Some(raw), Some(password)) = (wire.as_mut(), password) {
                let _ = raw.try_command(&["AUTH", password]);
            }
        }
        let list = wire
            .as_mut()
            .and_then(|raw| raw.try_command(&["CLIENT", "LIST"]).ok());
        let count = match list {
            Some(list @ Answer::Bulk(_)) => Some(ours(&list.text()).len()),
            Some(Answer::Error(no)) if no.starts_with("NOAUTH") => {
                wire = None;
                None
            }
            // Busy, or loading: the number stays as it was.
            Some(_) => None,
            None => {
                wire = None;
                Some(0)
            }
        };
        if let Some(count) = count {
            let mut connections = seen.connections.lock().unwrap();
            connections.now[at] = count;
            connections.most = connections.most.max(connections.now.iter().sum());
        }
        std::thread::sleep(GLANCE);
    }
}

/// The ids of our connections in a `CLIENT LIST`.
pub(super) fn ours(list: &str) -> Vec<String> {
    let of_us = |line: &&str| line.split(' ').any(|word| word == "name=tower-keep");
    let id = |line: &str| Some(line.split(' ').next()?.strip_prefix("id=")?.to_owned());
    list.lines().filter(of_us).filter_map(id).collect()
}
