//! A Redis server of the test's own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ClientConfig;

use super::folder::Folder;
use super::port::free_port;
use super::process::Process;
use super::raw::{Answer, Raw};
use super::wait::{PATIENCE, until, within};

/// Ports may be taken between the look and the start; so often in a row they are not.
const ATTEMPTS: usize = 10;

/// What a connection calls itself that counts the others.
const COUNTING: &str = "counting";

/// A standalone server; the other kinds are made of several. Dropping it kills it.
pub struct TestRedis {
    /// Empty while the server is killed.
    process: Mutex<Option<Process>>,
    plan: Plan,
    arguments: Vec<String>,
    port: u16,
    /// Behind the process: what drops first ends first.
    folder: Folder,
}

/// How a server is started and spoken to.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) password: Option<String>,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl TestRedis {
    /// A server as it comes, except that it keeps nothing on disk.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these words added to its command line: `&["--maxmemory", "2mb"]`.
    pub fn with(options: &[&str]) -> Self {
        Self::launch_with(Plan::default(), options)
    }

    /// A server that wants this password; it is part of [`url`](Self::url).
    pub fn with_password(password: &str) -> Self {
        let plan = Plan {
            password: Some(password.to_owned()),
            ..Plan::default()
        };
        Self::launch_with(plan, &["--requirepass", password])
    }

    /// A replica of this server, in sync with it.
    pub fn replica(&self) -> Self {
        let port = self.port.to_string();
        let mut options = vec!["--replicaof", "127.0.0.1", &port];
        let plan = Plan {
            password: self.plan.password.clone(),
            tls: None,
        };
        let password = self.plan.password.clone();
        if let Some(password) = &password {
            options.extend(["--masterauth", password, "--requirepass", password]);
        }
        let replica = Self::launch_with(plan, &options);
        replica.await_sync();
        replica
    }

    fn await_sync(&self) {
        until("the replica is in sync", || {
            let replication = self.raw().command(&["INFO", "replication"]);
            (replication.line("master_link_status")? == "up").then_some(())
        });
    }

    fn launch_with(plan: Plan, options: &[&str]) -> Self {
        Self::launch_as(plan, |folder, port| arguments(folder, port, options))
    }

    /// Starts a server on a free port, with the arguments made for that port.
    pub(super) fn launch_as(plan: Plan, make: impl Fn(&Folder, u16) -> Vec<String>) -> Self {
        let mut plan = plan;
        for _ in 0..ATTEMPTS {
            let (folder, port) = (Folder::new(), free_port());
            let arguments = make(&folder, port);
            let server = Self {
                process: Mutex::default(),
                plan,
                arguments,
                port,
                folder,
            };
            server.launch();
            if server.is_ready() {
                return server;
            }
            let log = server.log();
            assert!(
                log.contains("in use"),
                "redis-server {:?}:\n{log}",
                server.arguments
            );
            plan = server.plan;
        }
        panic!("every port that was free a moment ago was taken, {ATTEMPTS} times in a row");
    }

    /// `redis://127.0.0.1:PORT`, with the password and the scheme that fit.
    pub fn url(&self) -> String {
        let scheme = if self.plan.tls.is_some() {
            "rediss"
        } else {
            "redis"
        };
        let password = self
            .escaped_password()
            .map(|password| format!(":{password}@"));
        format!(
            "{scheme}://{}127.0.0.1:{}",
            password.unwrap_or_default(),
            self.port
        )
    }

    /// The same server through a Unix socket: `unix:///PATH`, with `?pass=` if it has a password.
    pub fn unix_url(&self) -> String {
        let password = self
            .escaped_password()
            .map(|password| format!("?pass={password}"));
        format!(
            "unix://{}{}",
            self.folder.file("redis.sock"),
            password.unwrap_or_default()
        )
    }

    /// The password as it may stand in a URL.
    fn escaped_password(&self) -> Option<String> {
        let escape = |byte: u8| match char::from(byte) {
            plain if plain.is_ascii_alphanumeric() => plain.to_string(),
            _ => format!("%{byte:02X}"),
        };
        self.plan
            .password
            .as_ref()
            .map(|password| password.bytes().map(escape).collect())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process' number; another after a restart.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process().as_ref().expect("it was killed").pid()
    }

    /// What the server wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// A new connection to the server, with the password given.
    #[track_caller]
    pub fn raw(&self) -> Raw {
        self.try_raw()
            .unwrap_or_else(|error| panic!("{}: {error}", self.port))
    }

    pub(super) fn try_raw(&self) -> std::io::Result<Raw> {
        let mut raw = match &self.plan.tls {
            Some(config) => Raw::connect_tls(self.port, config)?,
            None => Raw::connect(self.port)?,
        };
        if let Some(password) = &self.plan.password {
            raw.try_command(&["AUTH", password])?;
        }
        Ok(raw)
    }

    /// SIGSTOP: connections stay, new ones are still accepted by the system, nothing is answered.
    #[track_caller]
    pub fn stop(&self) {
        self.process().as_ref().expect("it was killed").stop();
    }

    /// SIGCONT: it goes on, and first answers all that came meanwhile.
    #[track_caller]
    pub fn cont(&self) {
        self.process().as_ref().expect("it was killed").cont();
    }

    /// SIGKILL; returns when the process is gone and its port is free.
    pub fn kill(&self) {
        drop(self.process().take());
    }

    /// Starts it again on its port, in its folder, with its options, killing it first if it runs;
    /// returns when it answers.
    pub fn restart(&self) {
        self.launch();
        self.ready();
    }

    /// Starts it again as a replica of this server, which it is from its first moment on; returns when the two
    /// are in sync. Later restarts are as it was made.
    pub fn restart_behind(&self, primary: &Self) {
        let port = primary.port.to_string();
        self.launch_saying(&["--replicaof", "127.0.0.1", &port]);
        self.ready();
        self.await_sync();
    }

    /// Returns when it answers, and has loaded what it had to.
    #[track_caller]
    pub fn ready(&self) {
        assert!(
            self.is_ready(),
            "redis-server {:?}:\n{}",
            self.arguments,
            self.log()
        );
    }

    /// Like [`restart`](Self::restart) without the wait: it may be loading, or come up at any moment.
    pub fn launch(&self) {
        self.launch_saying(&[]);
    }

    /// The same with more words at the end of the command line.
    fn launch_saying(&self, more: &[&str]) {
        let more = more.iter().map(|&word| word.to_owned());
        let arguments: Vec<_> = self.arguments.iter().cloned().chain(more).collect();
        let mut process = self.process();
        drop(process.take());
        *process = Some(Process::spawn(
            &arguments,
            self.folder.path().join("log").as_path(),
        ));
    }

    /// Waits until this very process answers; false if it ended by itself.
    ///
    /// Asked for its number, because another server may have been quicker to take the port.
    fn is_ready(&self) -> bool {
        let answers = || -> std::io::Result<bool> {
            let mut raw = self.try_raw()?;
            let pong = raw.try_command(&["PING"])? == Answer::Simple("PONG".to_owned());
            let info = raw.try_command(&["INFO", "server"])?;
            Ok(pong && info.line("process_id") == Some(self.pid().to_string()))
        };
        let ready = within(PATIENCE, &mut || {
            let ended = self.process().as_mut().is_none_or(Process::has_ended);
            if ended {
                Some(false)
            } else {
                answers().is_ok_and(|yes| yes).then_some(true)
            }
        });
        ready.unwrap_or_else(|| panic!("{PATIENCE:?} and still not ready:\n{}", self.log()))
    }

    /// How many clients are connected, without the one that asks.
    pub fn clients(&self) -> usize {
        self.count_clients(|_| true)
    }

    /// How many clients are connected whose name begins so.
    pub fn clients_named(&self, prefix: &str) -> usize {
        self.count_clients(|name| name.starts_with(prefix))
    }

    fn count_clients(&self, counts: impl Fn(&str) -> bool) -> usize {
        // By name and not by id: a busy server may not have noticed yet that the last one to count is gone.
        let mut raw = self.raw();
        raw.must(&["CLIENT", "SETNAME", COUNTING]);
        let list = raw.must(&["CLIENT", "LIST"]).text();
        let name = |line: &str| -> Option<String> {
            let mut words = line.split(' ');
            words.find_map(|word| Some(word.strip_prefix("name=")?.to_owned()))
        };
        let names = list.lines().filter_map(name);
        names
            .filter(|name| name != COUNTING && counts(name))
            .count()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server's command line. What comes later wins, so the options may say otherwise.
pub(super) fn arguments(folder: &Folder, port: u16, options: &[&str]) -> Vec<String> {
    let (port, socket) = (port.to_string(), folder.file("redis.sock"));
    let dir = folder.file("");
    let usual = [
        ["--port", &port],
        ["--bind", "127.0.0.1"],
        ["--unixsocket", &socket],
        ["--dir", &dir],
        ["--daemonize", "no"],
        ["--save", ""],
        ["--appendonly", "no"],
        // A replica that asks is served at once instead of after 5 s in which others might come.
        ["--repl-diskless-sync-delay", "0"],
    ];
    let words = usual.iter().flatten().chain(options);
    words.map(|&word| word.to_owned()).collect()
}
