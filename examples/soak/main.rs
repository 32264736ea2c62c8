//! Floods the example service's cache inside a small budget of memory: does it stay within, and is it ever killed?
//!
//! ```text
//! cargo build --release --examples && target/release/examples/soak [--minutes 10 | --seconds 5] [--budget-mb 450]
//!     [--cache-mb 400] [--sample-ms 4000] [--callers 24]
//! ```
//!
//! It starts `service`, which must be built beside it, with the profile `azure_b1`, and has callers ask for pages
//! that nobody has asked for before, so that all of them are stored. Where it is permitted (root on Linux) the
//! service runs in a control group with the budget as its limit, and would really be killed beyond it. By default the
//! profile's cache fits the budget easily. With `--cache-mb` it can be made far too large for it; that takes the
//! control group, because a budget that is merely set refuses such a cache at the start. Growth then stops at 80 %.
//! With `--sample-ms` the guard looks so seldom at the memory that it is beyond that before it is seen, and something
//! has to be given back. The exit code is 1 if the service was killed or ended by itself.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    reason = "a program, nobody's library"
)]

#[path = "../overload/client.rs"]
mod client;
mod sandbox;
mod watch;

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tower_keep::clock::Clock;

use client::Pool;
use sandbox::Service;
use watch::Watch;

type Failure = Box<dyn Error>;

const USAGE: &str =
    "soak [--minutes N | --seconds N] [--budget-mb N] [--cache-mb N] [--sample-ms N] [--callers N]";

/// What is asked for on the command line.
struct Asked {
    lasts: Duration,
    budget_mb: u64,
    cache_mb: Option<u64>,
    sample_ms: Option<u64>,
    callers: u64,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut asked = Self {
            lasts: Duration::from_secs(600),
            budget_mb: 450,
            cache_mb: None,
            sample_ms: None,
            callers: 24,
        };
        while let Some(word) = words.next() {
            let number: u64 = words.next()?.parse().ok().filter(|number| *number > 0)?;
            match &*word {
                "--minutes" => asked.lasts = Duration::from_secs(60 * number),
                "--seconds" => asked.lasts = Duration::from_secs(number),
                "--budget-mb" => asked.budget_mb = number,
                "--cache-mb" => asked.cache_mb = Some(number),
                "--sample-ms" => asked.sample_ms = Some(number),
                "--callers" => asked.callers = number,
                _ => return None,
            }
        }
        Some(asked)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let done = match Asked::of(std::env::args().skip(1)) {
        Some(asked) => soak(&asked).await,
        None => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the service has lived through it.
async fn soak(asked: &Asked) -> Result<bool, Failure> {
    let mut service = Service::start(asked.budget_mb, asked.cache_mb, asked.sample_ms)?;
    println!(
        "{} callers for {:?}, {} MiB, {}; {}",
        asked.callers,
        asked.lasts,
        asked.budget_mb,
        match asked.cache_mb {
            Some(cache) => format!("a cache of {cache} MiB"),
            None => "the profile's cache".to_owned(),
        },
        service.confinement(),
    );
    let flood = Arc::new(Flood::default());
    let mut callers = JoinSet::new();
    for _ in 0..asked.callers {
        callers.spawn(Arc::clone(&flood).caller(service.address));
    }
    let mut watch = Watch::new(asked.budget_mb << 20);
    let alive = watch.over(&mut service, asked.lasts, &flood).await;
    flood.is_over.store(true, Ordering::Relaxed);
    // Those whose answer never comes are left.
    let rest = async { while callers.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    drop(callers);
    let end = service.end(alive)?;
    println!("\n{}\n{}\n{end}", watch.text(), flood.text(asked.lasts));
    println!(
        "{}",
        if alive {
            "the service has lived through it"
        } else {
            "the service is dead"
        }
    );
    Ok(alive)
}

/// Requests for what is in no cache yet, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    is_over: AtomicBool,
    next: AtomicU64,
    answered: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Flood {
    /// Asks for one page after the other until the flood is over.
    async fn caller(self: Arc<Self>, address: SocketAddr) {
        let pool = Pool::new(address, 1);
        let clock = Clock::system();
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let began = clock.now();
            let counted = match pool.ask(&address_of(number)).await {
                Ok(answer) if answer.status == 200 => {
                    let bytes = answer.bytes as u64;
                    self.bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(answer) if answer.status == 503 => &self.refused,
                _ => &self.failed,
            };
            counted.fetch_add(1, Ordering::Relaxed);
            if clock.now().since(began) < PAUSE {
                // Who is turned away at once comes back, but not a thousand times a second.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    pub(crate) fn line(&self) -> String {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (answered, refused, failed) = (of(&self.answered), of(&self.refused), of(&self.failed));
        let mib = of(&self.bytes) >> 20;
        format!("{answered} answered ({mib} MiB), {refused} refused, {failed} failed")
    }

    fn text(&self, lasted: Duration) -> String {
        let each = self.answered.load(Ordering::Relaxed) as f64 / lasted.as_secs_f64();
        format!("requests: {}, {each:.0} answers/s", self.line())
    }
}

const PAUSE: Duration = Duration::from_millis(10);

/// The number makes it an address of its own. Most are of organizations, which take little to find, with queries
/// so long that what is stored is largely its key, as somebody would send who means ill; of the others a list of
/// 50 contacts takes about 10 KB, a search somewhat less.
fn address_of(number: u64) -> String {
    match number % 8 {
        0 => {
            let letters = b"aeioulnrst";
            let letter =
                |at: u64| char::from(letters[usize::try_from(at % 10).unwrap_or_default()]);
            let (one, other) = (letter(number / 8), letter(number / 80));
            format!("/search?q={one}{other}&n={number}")
        }
        1 => format!("/contacts?page={}&n={number}", number % 100 + 1),
        _ => format!("/organizations/{}?n={number:x>4000}", number % 500 + 1),
    }
}
