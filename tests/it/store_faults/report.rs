//! What a drill comes to: the figures of one fault, and a table's line of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// What callers, the server and the operator saw of one fault.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) fault: &'static str,
    /// How long the first command waited that failed.
    pub(super) first_error: Option<Duration>,
    /// The longest wait of any command.
    pub(super) longest: Duration,
    /// The longest wait of a command that was issued while the status was `Down`, and failed.
    pub(super) longest_down: Duration,
    /// From the server's first answer to the first command that succeeded.
    pub(super) recovery: Option<Duration>,
    pub(super) connections: usize,
    pub(super) memory_kib: i64,
    /// How many commands succeeded, failed, were issued while down, and waited more than 5 ms then.
    pub(super) succeeded: usize,
    pub(super) failed: usize,
    pub(super) down: usize,
    pub(super) down_late: usize,
    /// And how many of these waited more than the millisecond that is promised.
    pub(super) down_over: usize,
    /// How many waited longer than the command timeout and 5 ms.
    pub(super) over: usize,
    /// How often the connection was given up.
    pub(super) trips: usize,
    /// How often events told of it, and in which words the status did.
    pub(super) told: usize,
    pub(super) words: BTreeSet<String>,
    /// How many more commands were tried beside the drill's own.
    pub(super) commands: u32,
    pub(super) errors: BTreeMap<String, usize>,
}

impl Report {
    pub(super) const HEAD: &'static str = "\
| fault | first error ms | longest wait ms | longest while down ms | while down, over 1 ms | recovery ms | connections | memory KiB | ok / failed | over 55 ms | trips / told |
|---|---|---|---|---|---|---|---|---|---|---|";

    pub(super) fn line(&self) -> String {
        let millis = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        let perhaps = |time: Option<Duration>| time.map_or("-".to_owned(), millis);
        let down = (self.down > 0).then_some(self.longest_down);
        let share = format!("{} of {}", self.down_over, self.down);
        let mut line = format!("| {} ", self.fault);
        let _ = write!(
            line,
            "| {} | {} | {} | {share} | {} | {} | {} | {} / {} | {} | {} / {} |",
            perhaps(self.first_error),
            millis(self.longest),
            perhaps(down),
            perhaps(self.recovery),
            self.connections,
            self.memory_kib,
            self.succeeded,
            self.failed,
            self.over,
            self.trips,
            self.told,
        );
        line
    }

    /// What holds for every fault, however busy the machine is: bounds ten times as wide as the
    /// promises, and counts where single timings would be noise.
    #[track_caller]
    pub(super) fn holds(&self) {
        let told = || format!("{self:#?}");
        assert!(self.succeeded > 0, "nothing ever worked: {}", told());
        assert!(self.connections <= 2, "above the cap: {}", told());
        assert!(self.longest < Duration::from_millis(500), "{}", told());
        let all = self.succeeded + self.failed;
        assert!(self.over * 50 <= all + 200, "too many waited: {}", told());
        assert!(
            self.down_late * 50 <= self.down + 100,
            "waited while down: {}",
            told()
        );
    }

    /// The fault was an outage, was told as one of these, and ended by itself.
    #[track_caller]
    pub(super) fn was_outage(&self, words: &[&str]) {
        self.holds();
        let told = || format!("{self:#?}");
        assert!(self.failed > 0 && self.trips > 0, "no fault: {}", told());
        let recovery = self.recovery.expect("it recovered");
        assert!(recovery < Duration::from_secs(5), "{}", told());
        let meant = |said: &String| words.iter().any(|word| said.contains(word));
        assert!(self.words.iter().any(meant), "other words: {}", told());
    }

    /// No caller noticed anything.
    #[track_caller]
    pub(super) fn was_unnoticed(&self) {
        assert_eq!((self.failed, self.trips), (0, 0), "{self:#?}");
        assert!(self.succeeded > 0 && self.connections <= 2, "{self:#?}");
    }
}
