//! tower-keep beside its peers: the same requests, in one process, in turns, by thread CPU time.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- [room ..]
//! ```
//!
//! Without a room all of them are measured; `rate_limit` stands for all that begin with `rate_limit/`. Each case prints a table for people and lines for programs:
//! `RATIO <room>/<case> ours=<ns> <peer>=<ns> ratio=<ours/peer>`, one peer a line. A ratio below 1 means
//! that tower-keep is cheaper. `floor` is no peer but the least work that could do the job, written by
//! hand: what a ratio to it costs is what the features cost.
//!
//! A further room is a file with a `pub(crate) fn run(bench: &Bench) -> Result<(), Failure>` and a line
//! in [`ROOMS`].

mod allocations;
#[allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "half of it is the tests' harness, of which only a part is used"
)]
mod coherence;
mod drive;
mod guard;
mod hit_ratio;
mod http_cache;
mod measure;
mod metrics;
mod rate_limit;
mod store;
#[path = "../../../tests/it/redis/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "the tests' helper, of which only a part is used"
)]
mod test_redis;
#[expect(dead_code, reason = "the traces use a part of what is shipped")]
mod tiers;
mod traffic;
mod typed;

use std::process::ExitCode;

use crate::measure::Bench;

/// Whatever keeps a room from being measured.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// A name for the command line, and what measures it.
type Room = (&'static str, fn(&Bench) -> Result<(), Failure>);

/// What can be measured, in order.
const ROOMS: [Room; 15] = [
    ("metrics", metrics::run),
    ("cache", http_cache::run),
    ("hit_ratio", hit_ratio::run),
    ("promotion", hit_ratio::promotion),
    ("store", store::run),
    ("rate_limit/memory", rate_limit::memory),
    ("rate_limit/decision", rate_limit::decision),
    ("rate_limit/layer", rate_limit::layer),
    ("rate_limit/redis", rate_limit::redis),
    ("coherence", coherence::run),
    ("tiers/hot", typed::hot),
    ("tiers/warm", typed::warm),
    ("guard/admit", guard::admit),
    ("guard/refuse", guard::refuse),
    ("guard/breaker", guard::breaker),
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let known = ROOMS.map(|(name, _)| name);
    let is_known = |asked: &String| known.iter().any(|name| is_of(name, asked));
    if let Some(unknown) = asked.iter().find(|room| !is_known(room)) {
        eprintln!("there is no room {unknown:?}; rooms: {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    match measure(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Whether whoever asks for `asked` means the room called `name`.
fn is_of(name: &str, asked: &str) -> bool {
    let rest = name.strip_prefix(asked);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn measure(asked: &[String]) -> Result<(), Failure> {
    let bench = Bench::new()?;
    for (name, run) in ROOMS {
        if asked.is_empty() || asked.iter().any(|room| is_of(name, room)) {
            run(&bench)?;
        }
    }
    Ok(())
}
