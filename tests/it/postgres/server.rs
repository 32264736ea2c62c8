//! A server, and the shell that sees to its end.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::programs;

/// A running server. Dropping it stops it, and waits until it is gone with its folder.
pub struct TestPostgres {
    shell: Child,
    folder: PathBuf,
    port: u16,
}

/// Ports may be taken between the look and the start; so often in a row they are not.
const ATTEMPTS: u16 = 10;

/// `initdb` writes some forty megabytes, and the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// The shell makes the server, waits for its input to end, as it does however this process ends, and stops what
/// it has started. It does not ask for syncing: nothing here is to survive a power cut.
const SHELL: &str = r#"
folder=$1 programs=$2 port=$3
shift 3
umask 077
mkdir "$folder" && cd "$folder" || exit 1
[ $# -eq 0 ] || chown "$SERVER_USER" .
pid=
if "$@" "$programs/initdb" --pgdata="$folder/data" --username=keep --auth=trust --encoding=UTF8 \
    --locale=C --no-sync --no-instructions >log 2>&1; then
    "$@" "$programs/postgres" -D "$folder/data" -p "$port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$folder" -c fsync=off -c full_page_writes=off \
        -c deadlock_timeout=100ms -c max_connections=60 -c shared_buffers=16MB \
        </dev/null >>log 2>&1 &
    pid=$!
else
    echo 'initdb failed' >>log
fi
cat >/dev/null
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    wait "$pid"
fi
cd / && rm -rf "$folder"
"#;

/// Whom the server runs as if the tests run as root, which it refuses to do.
const SERVER_USER: &str = "postgres";

impl TestPostgres {
    /// The one server of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestPostgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let programs = programs::folder();
        for attempt in 0..ATTEMPTS {
            let port = free_port();
            let name = format!("keep-postgres-{}-{attempt}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            // Left behind by a process that had the same number, if it is there at all.
            let _ = fs::remove_dir_all(&folder);
            let mut shell = Command::new("sh");
            shell.args(["-c", SHELL, "postgres"]);
            shell.arg(&folder).arg(&programs).arg(port.to_string());
            if is_root() {
                shell.args(["setpriv", "--init-groups", "--reuid", SERVER_USER]);
                shell.args(["--regid", SERVER_USER]);
            }
            let shell = shell
                .env("SERVER_USER", SERVER_USER)
                .env_remove("PGDATA")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // A group of its own: Ctrl-C ends the tests, and then there is work for it.
                .process_group(0)
                .spawn();
            let server = Self {
                shell: shell.expect("there is a shell"),
                folder,
                port,
            };
            if server.is_ready() {
                return server;
            }
        }
        panic!("every port that was free a moment ago was taken, {ATTEMPTS} times in a row");
    }

    /// Waits until it takes connections. `false` if its port was taken.
    fn is_ready(&self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            if log.contains("ready to accept connections") {
                return true;
            }
            if log.contains("Address already in use") {
                return false;
            }
            let failed = ["initdb failed", "FATAL", "setpriv:"]
                .iter()
                .any(|sign| log.contains(sign));
            assert!(
                !failed && Instant::now() < deadline,
                "PostgreSQL does not start:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `postgres://keep@127.0.0.1:PORT/postgres`: a superuser, without a password.
    pub fn url(&self) -> String {
        self.url_of("keep")
    }

    /// The same for another role.
    pub fn url_of(&self, role: &str) -> String {
        format!(
            "postgres://{role}@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The owner of what this process is, as the system shows it.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// A port that nobody listens on, below those that the system gives to outgoing connections, and beside those of
/// the Redis servers.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() % 1_000;
    (0..1_000)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|step| 31_000 + (u16::try_from(begin).expect("below 1,000") + step) % 1_000)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("a free port")
}
