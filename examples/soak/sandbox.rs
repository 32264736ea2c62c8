//! The service as a process, in a control group where that is permitted.

use std::fmt::Write;
use std::io::{BufRead, BufReader, Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Whoever wants to know why the service is as it is brings this along.
pub(crate) const TOKEN: &str = "of-the-operator-0123456789";

/// The service under flood. Dropping it kills it and removes its control group.
#[derive(Debug)]
pub(crate) struct Service {
    process: Child,
    pub(crate) address: SocketAddr,
    group: Option<Group>,
}

impl Service {
    /// Starts it with this budget, and waits until it listens.
    pub(crate) fn start(
        budget_mb: u64,
        cache_mb: Option<u64>,
        sample_ms: Option<u64>,
    ) -> Result<Self> {
        let group = Group::new(budget_mb << 20);
        let is_large = cache_mb.is_some_and(|cache| cache > budget_mb / 2);
        if is_large && group.is_none() {
            return Err(Error::other(
                "a cache of more than half of the budget takes a control group, which only root may make",
            ));
        }
        let this = std::env::current_exe()?;
        let service = this.with_file_name("service");
        let mut command = match &group {
            // The shell moves itself before it becomes the service, so that nothing is counted elsewhere.
            Some(group) => {
                let mut command = Command::new("sh");
                command
                    .args(["-c", r#"echo $$ > "$0" && exec "$1""#])
                    .arg(group.folder.join("cgroup.procs"))
                    .arg(&service);
                command
            }
            None => Command::new(&service),
        };
        command
            .env("PORT", "0")
            .env("KEEP_PROFILE", "azure_b1")
            .env("ENABLE_RATE_LIMITING", "false")
            .env("KEEP_ADMIN_TOKEN", TOKEN)
            .env_remove("REDIS_URL")
            .stdout(Stdio::piped());
        if is_large {
            // The budget is the group's limit, as a container's would be.
            command.env_remove("MEMORY_LIMIT");
        } else {
            command.env("MEMORY_LIMIT", budget_mb.to_string());
        }
        if let Some(cache) = cache_mb {
            command.env("CACHE_MAX_SIZE_MB", cache.to_string());
        }
        if let Some(sample) = sample_ms {
            command.env("KEEP_GUARD_MEMORY_SAMPLE_MS", sample.to_string());
        }
        let mut process = command.spawn().map_err(|error| {
            let text = format!("{}: {error}; build the examples first", service.display());
            Error::new(error.kind(), text)
        })?;
        let said = process.stdout.take().map(BufReader::new);
        let mut lines = said
            .into_iter()
            .flat_map(BufRead::lines)
            .map_while(Result::ok);
        let address =
            lines.find_map(|line| line.strip_prefix("listening on http://")?.parse().ok());
        // What it says further is read to the end, so that it never writes into a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(address) = address else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(Error::other("the service did not start"));
        };
        Ok(Self {
            process,
            address,
            group,
        })
    }

    /// Whether and how it would be killed.
    pub(crate) fn confinement(&self) -> String {
        match &self.group {
            Some(group) => format!("killed beyond it, in {}", group.folder.display()),
            None => "no control group: it would not be killed".to_owned(),
        }
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// What of it is in memory. `None` once it is dead, and where there is no `/proc`.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        let status = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(status).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    }

    /// Asks it to stop if it is `alive`, and tells how it has ended.
    pub(crate) fn end(&mut self, alive: bool) -> Result<String> {
        if alive {
            let id = self.process.id().to_string();
            Command::new("kill").args(["-TERM", &id]).status()?;
        }
        let status = self.process.wait()?;
        let mut text = format!("end: {status}");
        if let Some(group) = &self.group {
            let _ = write!(text, "; {}", group.text());
        }
        Ok(text)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A control group with a limit. Dropping it removes it, once its processes are gone.
#[derive(Debug)]
struct Group {
    folder: PathBuf,
    is_v1: bool,
}

impl Group {
    /// One with this limit; `None` where that is not permitted.
    fn new(limit_bytes: u64) -> Option<Self> {
        let name = format!("tower-keep-soak-{}", std::process::id());
        [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", true),
            ("/sys/fs/cgroup", "memory.max", false),
        ]
        .into_iter()
        .find_map(|(root, limit, is_v1)| {
            // A folder there would be an ordinary one.
            if !Path::new(root).join("cgroup.procs").exists() {
                return None;
            }
            let folder = Path::new(root).join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Self { folder, is_v1 };
            let set = std::fs::write(group.folder.join(limit), limit_bytes.to_string());
            set.ok().map(|()| group)
        })
    }

    fn text(&self) -> String {
        let read = |file| std::fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        let (most, events) = if self.is_v1 {
            ("memory.max_usage_in_bytes", "memory.oom_control")
        } else {
            ("memory.peak", "memory.events")
        };
        let most = read(most).trim().parse::<u64>().unwrap_or_default() >> 20;
        let events = read(events);
        let kills = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        let kills = kills.unwrap_or("an unknown number of");
        format!(
            "the group used {most} MiB at most, pages of files included, and {kills} processes were killed in it"
        )
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.folder);
    }
}
