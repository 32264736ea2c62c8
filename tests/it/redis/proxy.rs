//! A TCP proxy in front of a server, whose network fails on demand.

use std::collections::BTreeSet;
use std::future::pending;
use std::io::{ErrorKind, Result};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::wait::until;

const CHUNK: usize = 64 * 1024;
/// How often a hanging connection is looked at.
const GLANCE: Duration = Duration::from_millis(2);
/// Not RESP, not even its beginning; a line all the same, so that no reader waits for the rest.
const GARBAGE: &[u8] = b"\x00\xff\xfeno server of yours\r\n\x00\x00\r\n";

/// Forwards connections to a port of this machine; every mode holds from the moment the call returns.
///
/// It runs in a thread of its own, whatever runtime, or time, the test runs in. Dropping it ends
/// the thread and closes every connection.
pub struct Proxy {
    port: u16,
    rules: watch::Sender<Rules>,
    open: Arc<Open>,
    thread: Option<JoinHandle<()>>,
}

/// What happens to connections, which are numbered from 1 in the order in which they came.
#[derive(Clone, Copy)]
struct Rules {
    mode: Mode,
    /// Up to this one they are dead for ever, though open.
    dead: u64,
    /// Up to this one they are closed.
    cut: u64,
    over: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Forward,
    Hang,
    Delay(Duration),
    Garbage,
    Refuse,
}

/// The numbers of the open connections.
#[derive(Default)]
struct Open {
    numbers: Mutex<BTreeSet<u64>>,
}

/// One connection as its tasks see it; dropping it takes it off the list.
struct Seat {
    number: u64,
    open: Arc<Open>,
    rules: watch::Receiver<Rules>,
}

impl Proxy {
    /// A proxy that forwards.
    pub fn to(target: u16) -> Self {
        let start = Rules {
            mode: Mode::Forward,
            dead: 0,
            cut: 0,
            over: false,
        };
        let (rules, seen) = watch::channel(start);
        let open = Arc::<Open>::default();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let list = Arc::clone(&open);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let serve = async { serve(TcpListener::from_std(listener)?, target, seen, list).await };
            runtime
                .and_then(|runtime| runtime.block_on(serve))
                .expect("the proxy serves");
        });
        Self {
            port,
            rules,
            open,
            thread: Some(thread),
        }
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything passes. What hung goes on where it was, except what [`blackhole`](Self::blackhole)
    /// swallowed.
    pub fn forward(&self) {
        self.set(Mode::Forward);
    }

    /// Half-open: connections stay, new ones are accepted, nothing passes in either direction.
    pub fn hang(&self) {
        self.set(Mode::Hang);
    }

    /// As [`hang`](Self::hang), and what is open now stays dead for ever, also after
    /// [`forward`](Self::forward): as if a firewall had forgotten them.
    pub fn blackhole(&self) {
        let newest = self.open.newest();
        self.rules.send_modify(|rules| {
            rules.mode = Mode::Hang;
            rules.dead = rules.dead.max(newest);
        });
    }

    /// The server's bytes pass as late as this, one chunk after the other: a slow server, not a
    /// distant one.
    pub fn delay(&self, by: Duration) {
        self.set(Mode::Delay(by));
    }

    /// Whatever a client sends is answered by nonsense and never reaches the server.
    pub fn garbage(&self) {
        self.set(Mode::Garbage);
    }

    /// New connections are closed as soon as they are accepted; those that are open go on.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Closes every connection; returns when they are closed. What comes next finds the mode as it was.
    pub fn cut(&self) {
        let newest = self.open.newest();
        self.rules
            .send_modify(|rules| rules.cut = rules.cut.max(newest));
        until("all connections are cut", || {
            self.open.none_up_to(newest).then_some(())
        });
    }

    /// How many connections clients hold open right now. One that hangs counts until its client
    /// closes it, which is noticed, and closes the server's side as well.
    pub fn connections(&self) -> usize {
        self.open.numbers().len()
    }

    fn set(&self, mode: Mode) {
        self.rules.send_modify(|rules| rules.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.rules.send_modify(|rules| rules.over = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Open {
    fn numbers(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn newest(&self) -> u64 {
        self.numbers().last().copied().unwrap_or(0)
    }

    fn none_up_to(&self, number: u64) -> bool {
        self.numbers().range(..=number).next().is_none()
    }
}

impl Rules {
    /// What holds for one connection.
    fn mode_of(&self, number: u64) -> Mode {
        if number <= self.dead {
            Mode::Hang
        } else {
            self.mode
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.numbers().remove(&self.number);
    }
}

/// Accepts until the proxy is dropped; the tasks end with the runtime that this runs in.
async fn serve(
    listener: TcpListener,
    target: u16,
    rules: watch::Receiver<Rules>,
    open: Arc<Open>,
) -> Result<()> {
    let mut over = rules.clone();
    let accept = async {
        for number in 1.. {
            let (client, _) = listener.accept().await?;
            if rules.borrow().mode == Mode::Refuse {
                continue;
            }
            open.numbers().insert(number);
            let seat = Seat {
                number,
                open: Arc::clone(&open),
                rules: rules.clone(),
            };
            tokio::spawn(seat.carry(client, target));
        }
        Ok(())
    };
    tokio::select! {
        done = accept => done,
        _ = over.wait_for(|rules| rules.over) => Ok(()),
    }
}

impl Seat {
    /// One connection, from its client's first byte to its end.
    async fn carry(self, client: TcpStream, target: u16) {
        let carried = async {
            client.set_nodelay(true)?;
            self.until(|mode| mode != Mode::Hang).await;
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await?;
            server.set_nodelay(true)?;
            tokio::select! {
                () = self.upwards(&client, &server) => Ok(()),
                done = self.downwards(&server, &client) => done,
            }
        };
        let mut rules = self.rules.clone();
        let cut = async {
            let _ = rules.wait_for(|rules| self.number <= rules.cut).await;
        };
        tokio::select! {
            _ = carried => {}
            () = self.left_while_hung(&client) => {}
            () = cut => {}
        }
    }

    /// From the client to the server, or, in the mode for it, nonsense back. Ends with the client.
    async fn upwards(&self, client: &TcpStream, server: &TcpStream) {
        let mut chunk = vec![0; CHUNK];
        while let Ok(read @ 1..) = self.read(client, &mut chunk).await {
            let written = if self.mode() == Mode::Garbage {
                self.write(client, GARBAGE).await
            } else {
                self.write(server, &chunk[..read]).await
            };
            if written.is_err() {
                // Gone, but its last words may still be on their way: it ends when they are through.
                return pending().await;
            }
        }
    }

    /// From the server to the client. Ends with the server, or with a client that takes nothing more.
    async fn downwards(&self, server: &TcpStream, client: &TcpStream) -> Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.read(server, &mut chunk).await?;
            if read == 0 {
                return Ok(());
            }
            if let Mode::Delay(by) = self.mode() {
                let other = self.until(|mode| mode != Mode::Delay(by));
                let _ = tokio::time::timeout(by, other).await;
            }
            self.write(client, &chunk[..read]).await?;
        }
    }

    /// Reads once, unless all hangs.
    async fn read(&self, from: &TcpStream, chunk: &mut [u8]) -> Result<usize> {
        loop {
            self.until(|mode| mode != Mode::Hang).await;
            from.readable().await?;
            match self.unless_hung(|| from.try_read(chunk)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }

    /// Writes all, as far as it is let.
    async fn write(&self, to: &TcpStream, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            self.until(|mode| mode != Mode::Hang).await;
            to.writable().await?;
            match self.unless_hung(|| to.try_write(bytes)) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => bytes = &bytes[done?..],
            }
        }
        Ok(())
    }

    /// Holds the rules while something is done, so that nothing is under way when they have changed.
    fn unless_hung(&self, deed: impl FnOnce() -> Result<usize>) -> Result<usize> {
        let rules = self.rules.borrow();
        if rules.mode_of(self.number) == Mode::Hang {
            return Err(ErrorKind::WouldBlock.into());
        }
        deed()
    }

    fn mode(&self) -> Mode {
        self.rules.borrow().mode_of(self.number)
    }

    /// Returns when the connection's mode is one of these.
    async fn until(&self, fits: impl Fn(Mode) -> bool + Send + Sync) {
        let mut rules = self.rules.clone();
        let _ = rules
            .wait_for(|rules| fits(rules.mode_of(self.number)))
            .await;
    }

    /// Returns when the client has closed a connection on which nothing is read. Its bytes are left
    /// where they are, so that its send buffer fills as it does when a network is gone.
    async fn left_while_hung(&self, client: &TcpStream) {
        loop {
            self.until(|mode| mode == Mode::Hang).await;
            let closed = client.ready(Interest::READABLE).await;
            if closed.map_or(true, |ready| ready.is_read_closed()) && self.mode() == Mode::Hang {
                return;
            }
            // Unread bytes make it ready at once, again and again.
            tokio::time::sleep(GLANCE).await;
        }
    }
}
