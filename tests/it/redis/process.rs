//! One `redis-server` process: started, stopped, woken, killed.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::wait::until;
use super::warden;

/// A running server. Dropping it kills it, also while it is stopped, and waits until it is gone.
pub(super) struct Process {
    child: Child,
}

impl Process {
    /// Starts a server that writes what it has to say to the end of the file `log`.
    pub(super) fn spawn(arguments: &[String], log: &Path) -> Self {
        let program = std::env::var("TEST_REDIS_SERVER");
        let program = program.as_deref().unwrap_or("redis-server");
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("its log");
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a second handle"))
            .stdout(out)
            .spawn();
        let child = child.unwrap_or_else(|error| {
            panic!(
                "{program} does not start ({error}). These tests start servers of their own; on \
                 Debian or Ubuntu `apt-get install redis-server` installs what they need."
            )
        });
        warden::began(child.id());
        Self { child }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGSTOP; returns when it does nothing any more.
    pub(super) fn stop(&self) {
        self.signal("STOP");
        until("the server is stopped", || {
            (self.state() == 'T').then_some(())
        });
    }

    /// SIGCONT; returns when it is no longer stopped.
    pub(super) fn cont(&self) {
        self.signal("CONT");
        until("the server goes on", || (self.state() != 'T').then_some(()));
    }

    /// Through the shell, whose own `kill` is there also where the program of that name is not.
    fn signal(&self, name: &str) {
        let order = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &order]).status();
        assert!(status.expect("there is a shell").success(), "{order}");
    }

    /// The state's letter in `/proc/PID/stat`, behind the name in parentheses.
    fn state(&self) -> char {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).unwrap_or_default();
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        state.unwrap_or_else(|| panic!("{path} says: {stat}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL: it needs no SIGCONT before it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        warden::ended(self.pid());
    }
}
