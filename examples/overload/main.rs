//! A service on one core and far more requests than it can answer: how many are still answered in time?
//!
//! ```text
//! cargo run --release --example overload -- [--seconds 8] [--variant axum|limit|shed|guard|keep] [--handler cpu|async]
//!     [--trial goodput|critical|recovery|refusal] [--quick]
//! ```
//!
//! The server is a process of this program, pinned to one core (`taskset`), with one worker thread; the driver has
//! another core. Requests arrive as a Poisson process, whatever becomes of those before them. An answer is good if
//! it is a 200 that is complete within a second of when its request was due; nobody hangs up before.
//!
//! - `goodput`: 0.8, 2 and 10 times what the bare service can do, and the share of capacity that became good
//!   answers: by their number, which hangs by some hundredths on how long the requests of one run happened to be, and
//!   by the work they took, which does not. Where many answers are late, it is the long ones that are: then the
//!   latter is less.
//! - `critical`: 3 times, a fifth of it on a critical route.
//! - `recovery`: 10 s of 5 times on a background of 0.7 times; then, how long until a whole second is good.
//! - `refusal`: all slots are taken for long, and 2,000 requests a second come; the server's CPU time for each.
//!
//! `--quick` shows in some seconds that it works; its figures mean nothing. Without options it takes some six
//! minutes. Figures are as good as the machine is quiet: `core` says how much of its core the server had.
#![allow(
    unreachable_pub,
    missing_debug_implementations,
    reason = "a program of several files, nobody's library"
)]

mod child;
#[expect(dead_code, reason = "the soak uses more of it")]
mod client;
mod load;
mod server;
mod table;
mod trials;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use child::Cores;
use server::{Pace, Variant};
use table::Tables;
use trials::{Handler, Lab};

type Failure = Box<dyn Error>;

const USAGE: &str = "overload [--seconds N] [--variant axum|limit|shed|guard|keep] [--handler cpu|async] \
     [--trial goodput|critical|recovery|refusal] [--quick]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--serve", variant, turns] => serve(variant, turns),
        _ => match Asked::of(words.into_iter()) {
            Some(asked) => measure(&asked),
            None => Err(USAGE.into()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(variant: &str, turns: &str) -> Result<(), Failure> {
    let variant = Variant::named(variant).ok_or(USAGE)?;
    let turns_per_ms = turns.parse()?;
    server::serve(variant, Pace { turns_per_ms })
}

/// What is asked for on the command line.
struct Asked {
    seconds: f64,
    variants: Vec<Variant>,
    handlers: Vec<Handler>,
    trial: Option<String>,
    is_quick: bool,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let (mut seconds, mut variant, mut handler) = (None, None, None);
        let (mut trial, mut is_quick) = (None, false);
        while let Some(word) = words.next() {
            match &*word {
                "--quick" => is_quick = true,
                "--seconds" => {
                    let number: f64 = words.next()?.parse().ok()?;
                    seconds = Some(number).filter(|it| (0.5..=600.0).contains(it));
                    seconds?;
                }
                "--variant" => variant = Some(Variant::named(&words.next()?)?),
                "--handler" => handler = Some(Handler::named(&words.next()?)?),
                "--trial" => {
                    trial = words.next().filter(|it| TRIALS.contains(&&**it));
                    trial.as_ref()?;
                }
                _ => return None,
            }
        }
        // What the smoke test has time for: one that is guarded, one that is not.
        let (variants, handlers) = if is_quick {
            (vec![Variant::Axum, Variant::Guard], vec![Handler::Cpu])
        } else {
            (Variant::ALL.to_vec(), Handler::ALL.to_vec())
        };
        Some(Self {
            seconds: seconds.unwrap_or(if is_quick { 0.6 } else { 8.0 }),
            variants: variant.map_or(variants, |one| vec![one]),
            handlers: handler.map_or(handlers, |one| vec![one]),
            trial,
            is_quick,
        })
    }

    fn has(&self, trial: &str) -> bool {
        self.trial.as_deref().is_none_or(|one| one == trial)
    }
}

const TRIALS: [&str; 4] = ["goodput", "critical", "recovery", "refusal"];

fn measure(asked: &Asked) -> Result<(), Failure> {
    let cores = Cores::found();
    // A short look is taken beside other work, which must not suffer for it.
    cores.pin_driver(!asked.is_quick);
    let seconds = |normal: f64, quick: f64| {
        Duration::from_secs_f64(if asked.is_quick { quick } else { normal })
    };
    let lab = Lab {
        cores,
        pace: Pace::measured(),
        connections: child::connections_most(),
        settle: seconds(2.0, 0.3),
        counts: Duration::from_secs_f64(asked.seconds),
        burst: seconds(10.0, 0.5),
        calm: seconds(10.0, 1.5),
    };
    println!(
        "server on core {}, driver on core {}, {} connections at most, {} turns of work are a millisecond",
        table::core(cores.server),
        table::core(cores.driver),
        lab.connections,
        lab.pace.turns_per_ms,
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut tables = Tables::default();
    runtime.block_on(all(asked, &lab, &mut tables))?;
    println!("\n{}", tables.text());
    Ok(())
}

async fn all(asked: &Asked, lab: &Lab, tables: &mut Tables) -> Result<(), Failure> {
    for &handler in &asked.handlers {
        let (capacity, core) = lab.capacity(handler).await?;
        tables.handler(handler, capacity, core);
        for &variant in asked.variants.iter().filter(|_| asked.has("goodput")) {
            for times in [0.8, 2.0, 10.0] {
                // The extremes show themselves sooner.
                let mut lab = *lab;
                lab.counts = if times == 2.0 {
                    lab.counts
                } else {
                    lab.counts * 3 / 4
                };
                let load = lab.load((variant, handler), (times, capacity), 0.0);
                tables.goodput(variant, (times, capacity), &load.await?);
            }
        }
        // What becomes of the others is known from their goodput.
        let variants = || {
            asked
                .variants
                .iter()
                .filter(|it| it.is_ours() || asked.trial.is_some())
        };
        for &variant in variants().filter(|_| asked.has("critical")) {
            let load = lab.load((variant, handler), (3.0, capacity), 0.2);
            tables.critical(variant, &load.await?);
        }
        let one = |it: &&Variant| asked.variants.len() == 1 || **it != Variant::Keep;
        for &variant in variants().filter(one).filter(|_| asked.has("recovery")) {
            let (after, recovered) = lab.recovery((variant, handler), capacity).await?;
            tables.recovery(variant, &after, recovered);
        }
    }
    let known = |it: &&Variant| **it != Variant::Limit;
    for &variant in asked
        .variants
        .iter()
        .filter(known)
        .filter(|_| asked.has("refusal"))
    {
        let (tally, each) = lab.refusal(variant, 2_000.0).await?;
        tables.refusal(variant, &tally, each);
    }
    Ok(())
}
