//! Processes of one program that talk to whoever started them, line by line: what several instances of a service
//! are where an example needs them.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tower_keep::journal::JournalStatus;
use tower_keep::{Keep, KeepBuilder};

/// The variable with a process' orders.
const ORDERS: &str = "TOWER_KEEP_EXAMPLE_ORDERS";

/// Those that were started. Dropping it kills them.
pub struct Processes {
    all: Vec<(Child, ChildStdin)>,
    heard: Receiver<(usize, String)>,
    says: Sender<(usize, String)>,
}

impl Processes {
    pub fn new() -> Self {
        let (says, heard) = channel();
        let all = Vec::new();
        Self { all, heard, says }
    }

    /// Starts this program once more and returns its number: they count from 0 on.
    pub fn start(&mut self, orders: &str) -> Result<usize> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ORDERS, orders)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let none = || Error::other("a process without pipes");
        let input = child.stdin.take().ok_or_else(none)?;
        let output = child.stdout.take().ok_or_else(none)?;
        let (number, says) = (self.all.len(), self.says.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more where the example has ended.
                let _ = says.send((number, line));
            }
        });
        self.all.push((child, input));
        Ok(number)
    }

    pub fn tell(&mut self, number: usize, line: &str) -> Result<()> {
        writeln!(self.all[number].1, "{line}")
    }

    /// SIGKILL.
    pub fn kill(&mut self, number: usize) -> Result<()> {
        self.all[number].0.kill()?;
        self.all[number].0.wait().map(drop)
    }

    /// The next line of any of them, and whose it is.
    pub fn hear(&self) -> Result<(usize, String)> {
        let silent = |_| Error::other(format!("nothing heard for {PATIENCE:?}"));
        self.heard.recv_timeout(PATIENCE).map_err(silent)
    }

    /// The next line of this one; what others say before it is lost.
    pub fn hear_of(&self, number: usize) -> Result<String> {
        loop {
            let (who, line) = self.hear()?;
            if who == number {
                return Ok(line);
            }
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (child, _) in &mut self.all {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Far longer than any of them is silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// What this process is to do, if it was started by another one.
pub fn orders() -> Option<String> {
    std::env::var(ORDERS).ok()
}

/// The lines that this process is told. It ends with whoever tells them.
pub fn told() -> UnboundedReceiver<String> {
    let (says, told) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let _ = says.send(line);
        }
        std::process::exit(0);
    });
    told
}

/// An instance that hears the others.
pub async fn instance(
    builder: KeepBuilder,
    url: &str,
) -> std::result::Result<Keep, Box<dyn std::error::Error>> {
    let keep = builder
        .redis(|redis| redis.url = Some(url.to_owned()))
        .build()?;
    while keep.journal().status() != JournalStatus::Verified {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(keep)
}
