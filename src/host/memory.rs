//! What is asked about memory, and the budget that is made of the answers.

/// Tells how much memory the process uses.
///
/// # Contract
///
/// - Called from one thread at a time, about once a second, on an async worker: a reading should take
///   microseconds and must not block on anything but the kernel.
/// - `None` means that there is no reading; the guard then refuses nobody for memory. It may be
///   answered at any time, and a later reading may succeed again.
/// - No method panics.
pub trait MemoryProbe: Send + 'static {
    /// The bytes in use that the operating system could not take back without hurting the process.
    fn used_bytes(&mut self) -> Option<u64>;

    /// What the process could use at most; asked once, when the guard is built.
    fn bounds(&mut self) -> Option<MemoryBounds>;

    /// The share of the last ten seconds in which something on this machine, or in the control group
    /// that limits the process, stood still for want of memory: 0 to 100. Asked about every two seconds,
    /// as often as Linux works it out anew. The default knows nothing, as most systems do.
    fn stalled_percent(&mut self) -> Option<f32> {
        None
    }
}

/// What the machine has for the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBounds {
    /// The limit that a control group really sets, in bytes.
    pub limit_bytes: Option<u64>,
    /// The memory of the machine, in bytes.
    pub total_bytes: u64,
    /// What new work could have before the machine swaps, in bytes, at the time of asking.
    pub available_bytes: u64,
}

impl MemoryBounds {
    /// The budget for a process that uses `used_bytes` when it starts.
    ///
    /// A control group's limit is the budget as it is. Where there is none, as on App Service, whose
    /// plans report an endless limit and idle at three quarters of their memory, the budget is a
    /// quarter of the machine, or the present use with half of what is available, whichever is less.
    ///
    /// Such a guess never declares a process short of memory for what it began with: it is at least
    /// four thirds of `used_bytes`, at which a process starts below the first level, and 192 MiB (or
    /// half of a machine that is smaller than twice that). The moment of the start is often the fullest
    /// one, with the instance that is being replaced still beside it.
    #[must_use]
    pub fn budget_bytes(&self, used_bytes: u64) -> u64 {
        if let Some(limit) = self.limit_bytes {
            return limit.min(self.total_bytes);
        }
        let quarter = self.total_bytes / 4;
        let share = used_bytes.saturating_add(self.available_bytes / 2);
        let floor = used_bytes.saturating_add(used_bytes / 3);
        let least = LEAST_GUESS.min(self.total_bytes / 2);
        quarter.min(share).max(floor).max(least)
    }
}

/// Room for a small cache and the requests beside it.
const LEAST_GUESS: u64 = 192 << 20;

/// Knows nothing: for operating systems whose memory this crate cannot read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoProbe;

impl MemoryProbe for NoProbe {
    fn used_bytes(&mut self) -> Option<u64> {
        None
    }

    fn bounds(&mut self) -> Option<MemoryBounds> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_budget_is_the_limit_or_a_careful_guess() {
        let bounds = |limit: Option<u64>, total: u64, available: u64| MemoryBounds {
            limit_bytes: limit.map(|mib| mib * MIB),
            total_bytes: total * MIB,
            available_bytes: available * MIB,
        };
        for (case, bounds, used, budget) in [
            (
                "a limit is the budget",
                bounds(Some(512), 8192, 4000),
                40,
                512,
            ),
            (
                "a limit above the machine",
                bounds(Some(9000), 8192, 4000),
                40,
                8192,
            ),
            ("App Service B1", bounds(None, 1856, 430), 30, 245),
            (
                "a quarter of a large machine",
                bounds(None, 8192, 6000),
                30,
                2048,
            ),
            ("a crowded machine", bounds(None, 8192, 100), 30, 192),
            ("a tiny machine", bounds(None, 256, 100), 10, 128),
            (
                "a process already past its quarter",
                bounds(None, 1800, 900),
                600,
                800,
            ),
        ] {
            assert_eq!(bounds.budget_bytes(used * MIB), budget * MIB, "{case}");
        }
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let bounds = MemoryBounds {
            limit_bytes: None,
            total_bytes: u64::MAX,
            available_bytes: u64::MAX,
        };
        assert_eq!(bounds.budget_bytes(u64::MAX), u64::MAX);
    }
}
