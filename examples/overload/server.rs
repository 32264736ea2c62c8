//! The service under test: one worker thread, handlers that burn CPU time, and one of the variants around them.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{BoxError, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower_keep::clock::Clock;
use tower_keep::{Keep, Profile};

/// What stands around the handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Axum,
    Limit,
    Shed,
    Guard,
    Keep,
}

impl Variant {
    pub(crate) const ALL: [Self; 5] =
        [Self::Axum, Self::Limit, Self::Shed, Self::Guard, Self::Keep];

    /// Its name on the command line and in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Limit => "limit",
            Self::Shed => "shed",
            Self::Guard => "guard",
            Self::Keep => "keep",
        }
    }

    /// What it is, for people.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Axum => "axum alone",
            Self::Limit => "tower's GlobalConcurrencyLimitLayer(16)",
            Self::Shed => "tower's LoadShedLayer around a limit of 16",
            Self::Guard => "tower-keep's guard alone, as profile azure_b1 sets it",
            Self::Keep => "tower-keep's whole stack, profile azure_b1, rate limit off",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Guard | Self::Keep)
    }

    /// Whether it turns anybody away.
    pub(crate) const fn refuses(self) -> bool {
        matches!(self, Self::Shed | Self::Guard | Self::Keep)
    }
}

/// How much of [`spin`] takes so long: the same work for every variant, whoever else uses the machine then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) turns_per_ms: u64,
}

impl Pace {
    /// Measures it: the fastest of many short tries, since others can only make it slower.
    pub(crate) fn measured() -> Self {
        const TURNS: u64 = 200_000;
        let clock = Clock::system();
        let tries = (0..200).map(|_| {
            let began = clock.now();
            spin(TURNS);
            clock.now().since(began).as_nanos().max(1)
        });
        let least = tries.min().unwrap_or(1);
        let turns = u128::from(TURNS) * 1_000_000 / least;
        Self {
            turns_per_ms: u64::try_from(turns).unwrap_or(u64::MAX),
        }
    }

    fn burn(self, work: Duration) {
        let micros = u64::try_from(work.as_micros()).unwrap_or(u64::MAX);
        spin(micros.saturating_mul(self.turns_per_ms) / 1000);
    }
}

fn spin(turns: u64) {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..turns {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

/// Serves until whoever started this process has gone.
pub(crate) fn serve(variant: Variant, pace: Pace) -> Result<(), Box<dyn Error>> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    // As `#[tokio::main]` does on a machine of one core.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The layers live in the app; the stack has to live as long as the server does.
        let (app, keep) = app(variant, pace)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        let listener = listener.tap_io(|stream| {
            // A socket that cannot be told so is only slower.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, app).await?;
        drop(keep);
        Ok(())
    })
}

fn app(variant: Variant, pace: Pace) -> Result<(Router, Option<Keep>), Box<dyn Error>> {
    let routes = Router::new()
        .route("/cpu", get(cpu))
        .route("/async", get(sliced))
        .route(CRITICAL[0], get(cpu))
        .route(CRITICAL[1], get(sliced))
        .route("/nothing", get(async || answer()))
        .route("/hold", get(hold))
        .with_state(pace);
    let limit = GlobalConcurrencyLimitLayer::new(16);
    Ok(match variant {
        Variant::Axum => (routes, None),
        Variant::Limit => (routes.layer(limit), None),
        Variant::Shed => {
            let shed = ServiceBuilder::new()
                .layer(HandleErrorLayer::new(async |_: BoxError| {
                    StatusCode::SERVICE_UNAVAILABLE
                }))
                .layer(LoadShedLayer::new())
                .layer(limit);
            (routes.layer(shed), None)
        }
        Variant::Guard => {
            let keep = keep()?;
            (routes.layer(keep.guard_layer()), Some(keep))
        }
        Variant::Keep => {
            let keep = keep()?;
            (routes.layer(keep.layer()), Some(keep))
        }
    })
}

fn keep() -> Result<Keep, Box<dyn Error>> {
    let keep = Keep::builder(Profile::azure_b1())
        .guard(|guard| guard.critical.extend(CRITICAL.map(str::to_owned)))
        // All load comes from one address.
        .rate_limit(|limits| limits.enabled = false)
        .build()?;
    Ok(keep)
}

/// The routes that are to be served before the others.
const CRITICAL: [&str; 2] = ["/critical/cpu", "/critical/async"];

/// What a request's handler is to burn.
#[derive(Debug, Deserialize)]
struct Work {
    us: u64,
}

/// All at once, without a look at anybody else: the runtime's queue grows, and no layer sees it.
async fn cpu(State(pace): State<Pace>, Query(work): Query<Work>) -> impl IntoResponse {
    pace.burn(Duration::from_micros(work.us));
    answer()
}

/// In slices of about a millisecond, with a wait in the middle, as if a database were asked.
async fn sliced(State(pace): State<Pace>, Query(work): Query<Work>) -> impl IntoResponse {
    let slices = work.us.div_ceil(1000).max(1);
    for slice in 0..slices {
        pace.burn(Duration::from_micros(work.us / slices));
        if slice == slices / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    answer()
}

/// Has a slot and does nothing with it, for longer than any trial.
async fn hold() -> impl IntoResponse {
    tokio::time::sleep(Duration::from_secs(600)).await;
    answer()
}

fn answer() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], "done\n")
}
