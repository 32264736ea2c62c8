//! What is seen of the service from outside while it is flooded: its memory, its level, what it gave back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_keep::clock::{Clock, Moment};

use crate::Flood;
use crate::sandbox::{Service, TOKEN};

/// How often its memory is read.
const SAMPLE: Duration = Duration::from_millis(100);
/// Its figures are asked for once in so many samples.
const ASKS_EVERY: u32 = 2;
/// And a line is printed once in so many.
const TELLS_EVERY: u32 = 100;

/// The levels in order.
const LEVELS: [&str; 6] = [
    "unknown", "normal", "elevated", "high", "severe", "critical",
];
/// From here on memory is given back.
const HIGH: usize = 3;

/// What was seen.
#[derive(Debug)]
pub(crate) struct Watch {
    budget_bytes: u64,
    clock: Clock,
    samples: u64,
    above: u64,
    most_bytes: u64,
    /// The level now, and since when.
    level: usize,
    since: Moment,
    /// How long it was at each level, and how often it came to it.
    at_levels: [(Duration, u64); LEVELS.len()],
    /// When memory was last given back, and at which level, while that has not been left.
    relieved: Option<(Moment, usize)>,
    /// How long levels lasted after that.
    left_after: Vec<Duration>,
    /// The counters that tell what was done, by name and label.
    counters: BTreeMap<String, f64>,
    unanswered: u64,
}

impl Watch {
    pub(crate) fn new(budget_bytes: u64) -> Self {
        let clock = Clock::system();
        Self {
            budget_bytes,
            samples: 0,
            above: 0,
            most_bytes: 0,
            level: 0,
            since: clock.now(),
            at_levels: [(Duration::ZERO, 0); LEVELS.len()],
            relieved: None,
            left_after: Vec::new(),
            counters: BTreeMap::new(),
            unanswered: 0,
            clock,
        }
    }

    /// Watches for so long, or until the service is dead: then it returns `false`.
    pub(crate) async fn over(
        &mut self,
        service: &mut Service,
        lasts: Duration,
        flood: &Flood,
    ) -> bool {
        let began = self.clock.now();
        let mut beat = tokio::time::interval(SAMPLE);
        for number in 0_u32.. {
            beat.tick().await;
            let passed = self.clock.now().since(began);
            if passed >= lasts || !service.is_alive() {
                break;
            }
            let resident = service.resident_bytes().unwrap_or_default();
            self.samples += 1;
            self.above += u64::from(resident > self.budget_bytes);
            self.most_bytes = self.most_bytes.max(resident);
            if number % ASKS_EVERY == 0 {
                self.ask(service).await;
            }
            if number % TELLS_EVERY == 0 {
                println!(
                    "{:>4} s: {:>4} MiB, {}; {}",
                    passed.as_secs(),
                    resident >> 20,
                    LEVELS[self.level],
                    flood.line()
                );
            }
        }
        let alive = service.is_alive();
        self.count_level();
        alive
    }

    /// Asks for the level and the figures. A service too busy to answer is asked again the next time.
    async fn ask(&mut self, service: &Service) {
        let health = fetch(service, "/admin/health/detailed").await;
        let figures = fetch(service, "/metrics").await;
        let (Some(health), Some(figures)) = (health, figures) else {
            self.unanswered += 1;
            return;
        };
        let now = self.clock.now();
        let mut gave = false;
        for line in figures
            .lines()
            .filter(|line| COUNTERS.iter().any(|it| line.starts_with(it)))
        {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let value: f64 = value.parse().unwrap_or_default();
            let before = self.counters.insert(name.to_owned(), value);
            let grew = value > before.unwrap_or_default();
            gave |= grew && (name.contains("evict") || name.contains("purge"));
        }
        let level = level_of(&health).unwrap_or_default();
        if level != self.level {
            self.count_level();
            (self.level, self.since) = (level, now);
            self.at_levels[level].1 += 1;
        }
        match self.relieved {
            Some((at, was)) if level < was => {
                self.left_after.push(now.since(at));
                self.relieved = None;
            }
            None if gave && level >= HIGH => self.relieved = Some((now, level)),
            _ => {}
        }
    }

    fn count_level(&mut self) {
        self.at_levels[self.level].0 += self.clock.now().since(self.since);
        self.since = self.clock.now();
    }

    /// All of it, for people.
    pub(crate) fn text(&self) -> String {
        let (most, budget) = (self.most_bytes >> 20, self.budget_bytes >> 20);
        let mut text = format!(
            "memory: at most {most} MiB resident of {budget}, {} of {} samples above it ({:.2} %)\nlevels:",
            self.above,
            self.samples,
            self.above as f64 / self.samples.max(1) as f64 * 100.0
        );
        for (name, (lasted, times)) in LEVELS.iter().zip(&self.at_levels) {
            if *times > 0 {
                let _ = write!(
                    text,
                    " {name} {times} times, {:.1} s in all;",
                    lasted.as_secs_f64()
                );
            }
        }
        let longest = self.left_after.iter().max();
        let _ = write!(
            text,
            "\nrelief: a level was left {} times after something was evicted or purged, at most {:.1} s later{}",
            self.left_after.len(),
            longest.copied().unwrap_or_default().as_secs_f64(),
            if self.relieved.is_some() {
                "; once it was not"
            } else {
                ""
            },
        );
        for (name, value) in &self.counters {
            if *value > 0.0 {
                let _ = write!(text, "\n  {name} {value}");
            }
        }
        if self.unanswered > 0 {
            let times = self.unanswered;
            let _ = write!(
                text,
                "\n{times} times the service did not tell its figures in time"
            );
        }
        text
    }
}

/// Which counters are shown.
const COUNTERS: [&str; 5] = [
    "keep_guard_pressure_changes_total",
    "keep_memory_relieved_total",
    "keep_memory_leaks_suspected_total",
    "keep_guard_refused_total",
    "keep_runtime_lags_total",
];

/// The level that the memory's part of the health begins with.
fn level_of(health: &str) -> Option<usize> {
    let health: Value = serde_json::from_str(health).ok()?;
    let detail = health["components"]["memory"]["detail"].as_str()?;
    LEVELS.iter().position(|level| detail.starts_with(level))
}

/// The body of an answer, over a connection of its own. `None` if it does not come within a second.
async fn fetch(service: &Service, path: &str) -> Option<String> {
    let asked = async {
        let mut stream = TcpStream::connect(service.address).await.ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: soak\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        Some(body.to_owned())
    };
    tokio::time::timeout(Duration::from_secs(1), asked)
        .await
        .ok()?
}
