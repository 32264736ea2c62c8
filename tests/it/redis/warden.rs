//! Sees to it that no server outlives the process that started it.
//!
//! A server ends when its owner is dropped. Nothing is dropped when a test run is killed or aborts,
//! nor does Rust ever drop what lies in a `static`. So one shell per process is told of each server,
//! and reads on until the pipe to it breaks, as it does however the process ends; then it kills what
//! is left and removes its folders.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::folder;

const WATCH: &str = r#"
left=
while read -r deed pid; do
    case $deed in
    began) left="$left $pid" ;;
    ended)
        others=
        for other in $left; do
            [ "$other" = "$pid" ] || others="$others $other"
        done
        left=$others
        ;;
    esac
done
[ -z "$left" ] || kill -KILL $left
rm -rf "$1"*
"#;

/// A server began: it must end with this process.
pub(super) fn began(pid: u32) {
    tell("began", pid);
}

/// A server ended and was waited for: its number may soon be another's, so it must not be killed.
pub(super) fn ended(pid: u32) {
    tell("ended", pid);
}

fn tell(deed: &str, pid: u32) {
    static PIPE: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    let pipe = PIPE.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", WATCH, "warden"])
            .arg(folder::prefix())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C ends the tests, and then there is work for it.
            .process_group(0)
            .spawn();
        let stdin = shell.expect("there is a shell").stdin;
        Mutex::new(stdin.expect("a pipe"))
    });
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(pipe, "{deed} {pid}");
}
