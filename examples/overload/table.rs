//! What is printed: a line when a trial has ended, and all of them in tables at the end.

use std::fmt::Write;
use std::time::Duration;

use crate::load::WORK_MEAN;
use crate::server::Variant;
use crate::trials::{Handler, Load, Tally, at_percent};

/// Everything that has come out so far.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    goodput: Vec<String>,
    critical: Vec<String>,
    recovery: Vec<String>,
    refusal: Vec<String>,
    variants: Vec<Variant>,
    /// How late requests were sent, of all loads.
    sent_late: Vec<Duration>,
}

/// A core's number, or that there is none.
pub(crate) fn core(number: Option<usize>) -> String {
    number.map_or_else(|| "any".to_owned(), |number| number.to_string())
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

impl Tables {
    /// Begins with what this handler can do at best.
    pub(crate) fn handler(&mut self, handler: Handler, capacity: f64, core: f64) {
        let (name, text) = (handler.name(), handler.text());
        let per_second = capacity / WORK_MEAN.as_secs_f64();
        let line = format!(
            "{name}: {text}\n  capacity {per_second:.1} requests/s, with {:.0} % of the core",
            core * 100.0
        );
        println!("{line}");
        for table in [&mut self.goodput, &mut self.critical, &mut self.recovery] {
            table.push(line.clone());
        }
    }

    pub(crate) fn goodput(&mut self, variant: Variant, (times, capacity): (f64, f64), load: &Load) {
        self.sent_late.extend(&load.sent_late);
        let (tally, seconds) = (&load.tally, load.lasted.as_secs_f64());
        let line = format!(
            "  {:<8}{:>6}x{:>9.1}{:>12.1} %{:>8.1} %{:>10}{:>10}{:>8}{:>8}{:>8}{:>8}{:>7.0} %",
            variant.name(),
            times,
            tally.good as f64 / seconds,
            tally.good as f64 / seconds * WORK_MEAN.as_secs_f64() / capacity * 100.0,
            tally.work.as_secs_f64() / seconds / capacity * 100.0,
            ms(at_percent(&tally.took, 50)),
            ms(at_percent(&tally.took, 99)),
            tally.asked,
            tally.refused,
            tally.late,
            tally.failed,
            load.core * 100.0,
        );
        self.saw(variant);
        said(&mut self.goodput, line);
    }

    pub(crate) fn critical(&mut self, variant: Variant, load: &Load) {
        self.sent_late.extend(&load.sent_late);
        let (critical, all) = (&load.critical, &load.tally);
        let line = format!(
            "  {:<8}{:>9}{:>13.2} %{:>8}{:>8}{:>8}{:>10}{:>10}{:>12.1} %",
            variant.name(),
            critical.asked,
            critical.good_share() * 100.0,
            critical.refused,
            critical.late,
            critical.failed,
            ms(at_percent(&critical.took, 50)),
            ms(at_percent(&critical.took, 99)),
            (all.good - critical.good) as f64 / (all.asked - critical.asked).max(1) as f64 * 100.0,
        );
        self.saw(variant);
        said(&mut self.critical, line);
    }

    pub(crate) fn recovery(&mut self, variant: Variant, after: &Tally, took: Option<Duration>) {
        let took = took.map_or_else(
            || "not while it was watched".to_owned(),
            |took| format!("{:.1} s", took.as_secs_f64()),
        );
        let line = format!(
            "  {:<8}{took:>26}{:>14.1} %",
            variant.name(),
            after.good_share() * 100.0
        );
        self.saw(variant);
        said(&mut self.recovery, line);
    }

    pub(crate) fn refusal(&mut self, variant: Variant, tally: &Tally, each: Duration) {
        let (what, took) = if variant.refuses() {
            ("refusal", &tally.refused_after)
        } else {
            ("answer of nothing", &tally.took)
        };
        let line = format!(
            "  {:<8}{what:>18}{:>10.1} us{:>8}{:>9}{:>8}{:>10}{:>10}",
            variant.name(),
            each.as_secs_f64() * 1e6,
            tally.asked,
            tally.refused,
            tally.good,
            ms(at_percent(took, 50)),
            ms(at_percent(took, 99)),
        );
        self.saw(variant);
        said(&mut self.refusal, line);
    }

    fn saw(&mut self, variant: Variant) {
        if !self.variants.contains(&variant) {
            self.variants.push(variant);
        }
    }

    /// All of it.
    pub(crate) fn text(mut self) -> String {
        let mut text = String::new();
        let mut table = |title: &str, head: &str, lines: &[String]| {
            // A handler's line alone is no table.
            if lines.iter().any(|line| line.starts_with("  ")) {
                let _ = writeln!(text, "{title}\n{head}\n{}\n", lines.join("\n"));
            }
        };
        table(
            "GOODPUT (good: 200, complete within 1 s; goal: 95 % of capacity at 2x and 10x)",
            "  variant  load   good/s   of capacity   by work    p50 ms    p99 ms   asked refused    late  failed    core",
            &self.goodput,
        );
        table(
            "CRITICAL at 3x, a fifth of it critical (goal: 99.9 % of the critical ones are good)",
            "  variant critical good of those refused    late  failed    p50 ms    p99 ms  others good",
            &self.critical,
        );
        table(
            "RECOVERY after 5x on a background of 0.7x (goal: less than 1 s until a whole second is good)",
            "  variant                 recovered  good after it",
            &self.recovery,
        );
        table(
            "REFUSAL while all slots are held (goal: 50 us of CPU time each)",
            "  variant              what     CPU each   asked  refused    good    p50 ms    p99 ms",
            &self.refusal,
        );
        for variant in Variant::ALL.iter().filter(|it| self.variants.contains(it)) {
            let _ = writeln!(text, "{:<6} {}", variant.name(), variant.text());
        }
        self.sent_late.sort_unstable();
        let (half, most) = (
            at_percent(&self.sent_late, 50),
            at_percent(&self.sent_late, 99),
        );
        let longest = at_percent(&self.sent_late, 100);
        let _ = write!(
            text,
            "the driver sent {} requests {} ms late (median), {} (p99), {} (longest)",
            self.sent_late.len(),
            ms(half),
            ms(most),
            ms(longest)
        );
        text
    }
}

fn said(table: &mut Vec<String>, line: String) {
    println!("{line}");
    table.push(line);
}
