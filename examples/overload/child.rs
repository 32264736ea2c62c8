//! Processes on cores of their own, and what they have used.

use std::io::{BufRead, BufReader, Error, Result};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::server::{Pace, Variant};

/// Which core the server has, and which the driver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: Option<usize>,
    pub(crate) driver: Option<usize>,
}

impl Cores {
    /// The last two that this process may use, if there are two and a `taskset`.
    pub(crate) fn found() -> Self {
        let none = Self {
            server: None,
            driver: None,
        };
        let here = Command::new("taskset").arg("-V").output();
        if !here.is_ok_and(|output| output.status.success()) {
            println!(
                "there is no taskset: nothing is pinned, and server and driver disturb each other"
            );
            return none;
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = cores_of(field(&status, "Cpus_allowed_list:").unwrap_or_default());
        let [.., driver, server] = allowed.as_slice() else {
            println!("there is one core: server and driver share it, and the figures mean little");
            return none;
        };
        Self {
            server: Some(*server),
            driver: Some(*driver),
        }
    }

    /// Puts this process on the driver's core, and where it is to be `first` before others there, if that is
    /// permitted: what it starts inherits that. To be called before there are other threads.
    pub(crate) fn pin_driver(self, first: bool) {
        let this = std::process::id().to_string();
        let done = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).arg(&this);
            let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
            silent.status().is_ok_and(|status| status.success())
        };
        if first && !done("renice", &["-n", "-20", "-p"]) {
            println!("no priority: what else runs on this machine takes its share");
        }
        if let Some(core) = self.driver
            && !done("taskset", &["-p", "-c", &core.to_string()])
        {
            println!("the driver could not be pinned");
        }
    }
}

/// `0-2,5` as numbers.
fn cores_of(list: &str) -> Vec<usize> {
    let ranges = list.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ranges.flatten().collect()
}

/// What stands behind a name at the beginning of a line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// How many connections each side can have open, after asking for as many as this process may ask for.
pub(crate) fn connections_most() -> usize {
    let limit = |column: usize| {
        let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let words = field(&text, "Max open files")?;
        words.split_whitespace().nth(column)?.parse::<usize>().ok()
    };
    if let Some(hard) = limit(1) {
        let (to, this) = (format!("--nofile={hard}"), std::process::id().to_string());
        // Without it there are as many as there were.
        let _ = Command::new("prlimit").args(["--pid", &this, &to]).status();
    }
    limit(0)
        .unwrap_or(1024)
        .saturating_sub(100)
        .clamp(100, 8000)
}

/// A server of this program. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts one and waits until it listens.
    pub(crate) fn start(variant: Variant, pace: Pace, cores: Cores) -> Result<Self> {
        let this = std::env::current_exe()?;
        let mut command = match cores.server {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(core.to_string()).arg(this);
                command
            }
            None => Command::new(this),
        };
        let turns = pace.turns_per_ms.to_string();
        let mut process = command
            .args(["--serve", variant.name(), &turns])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let address = said.trim().strip_prefix("listening on ");
        let Some(address) = address.and_then(|it| it.parse().ok()) else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(Error::other(format!("the server says: {said}")));
        };
        Ok(Self { process, address })
    }

    /// The CPU time it has had so far. Zero where there is no `/proc`.
    pub(crate) fn cpu(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.process.id());
        let tasks = std::fs::read_dir(tasks).into_iter().flatten().flatten();
        let nanos = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(nanos.sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
