//! How the runtime and the process fare: figures, and when they were taken.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::guard::lag::LagWindow;
use crate::host::ProcessFigures;

/// How the runtime and the process fared lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RuntimeReading {
    /// How late a task was woken the last time, beyond what it had asked for. Up to a millisecond is the
    /// grain of the timer.
    pub lag: Duration,
    /// What 99 of 100 such delays of the last 10 s did not exceed.
    pub lag_p99: Duration,
    /// Whether the runtime lags behind: for 100 ms no task was woken within `guard.lag_target_ms`.
    pub lagging: bool,
    /// The share of their time in which the runtime's workers were busy, 0 to 1, over the last sample.
    pub busy: Option<f32>,
    /// The CPU time that the process took by the time that passed, over the last 5 s: 1 is one core.
    pub cpu: Option<f32>,
    /// How many descriptors (files, sockets) are open.
    pub descriptors: Option<u64>,
    /// How many may be.
    pub descriptors_max: Option<u64>,
}

/// Where the figures are noted by those who take them, and read by everybody else.
#[derive(Debug)]
pub(crate) struct RuntimeHealth {
    lag_nanos: AtomicU64,
    lagging: AtomicBool,
    /// The bits of a share; those of a NaN for "unknown".
    busy: AtomicU32,
    cpu: AtomicU32,
    /// `u64::MAX` for "unknown".
    descriptors: AtomicU64,
    descriptors_max: AtomicU64,
    lags: Mutex<LagWindow>,
}

impl Default for RuntimeHealth {
    fn default() -> Self {
        Self {
            lag_nanos: AtomicU64::new(0),
            lagging: AtomicBool::new(false),
            busy: AtomicU32::new(f32::NAN.to_bits()),
            cpu: AtomicU32::new(f32::NAN.to_bits()),
            descriptors: AtomicU64::new(u64::MAX),
            descriptors_max: AtomicU64::new(u64::MAX),
            lags: Mutex::default(),
        }
    }
}

impl RuntimeHealth {
    /// Notes that at `now` a task was woken `lag` late.
    pub(crate) fn note_lag(&self, now: Moment, lag: Duration, lagging: bool) {
        let nanos = u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX);
        self.lag_nanos.store(nanos, Ordering::Relaxed);
        self.lagging.store(lagging, Ordering::Relaxed);
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        lags.note(now, lag);
    }

    /// Nobody measures any more.
    pub(crate) fn forget_lag(&self) {
        self.lag_nanos.store(0, Ordering::Relaxed);
        self.lagging.store(false, Ordering::Relaxed);
        let mut lags = self.lags.lock().unwrap_or_else(PoisonError::into_inner);
        *lags = LagWindow::default();
    }

    /// All figures. Takes a few microseconds: meant for people and for scrapes.
    pub(crate) fn reading(&self) -> RuntimeReading {
        let share = |bits: &AtomicU32| {
            let share = f32::from_bits(bits.load(Ordering::Relaxed));
            (!share.is_nan()).then_some(share)
        };
        let count = |count: &AtomicU64| {
            let count = count.load(Ordering::Relaxed);
            (count != u64::MAX).then_some(count)
        };
        RuntimeReading {
            lag: Duration::from_nanos(self.lag_nanos.load(Ordering::Relaxed)),
            lag_p99: self
                .lags
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .p99(),
            lagging: self.lagging.load(Ordering::Relaxed),
            busy: share(&self.busy),
            cpu: share(&self.cpu),
            descriptors: count(&self.descriptors),
            descriptors_max: count(&self.descriptors_max),
        }
    }
}

/// Takes the figures that are sampled, each as often as it is worth its price.
#[derive(Debug)]
pub(crate) struct RuntimeSampler {
    process: ProcessFigures,
    busy: Option<(Moment, Duration)>,
    cpu: Option<(Moment, Duration)>,
    listed: Option<Moment>,
    counted: Option<Moment>,
}

impl RuntimeSampler {
    pub(crate) fn new() -> Self {
        Self {
            process: ProcessFigures::open(),
            busy: None,
            cpu: None,
            listed: None,
            counted: None,
        }
    }

    /// Notes in `health` what is due at `now`. `worked` is how long each of the runtime's `workers` has
    /// been busy so far, all together.
    pub(crate) fn sample(
        &mut self,
        now: Moment,
        (workers, worked): (usize, Duration),
        health: &RuntimeHealth,
    ) {
        let busy = self.busy.replace((now, worked));
        if let Some(busy) = busy.and_then(|since| share(since, (now, worked))) {
            let busy = (busy / workers.max(1) as f32).min(1.0);
            health.busy.store(busy.to_bits(), Ordering::Relaxed);
        }
        // The kernel adds up the time of all threads for each reading.
        if due(self.cpu.map(|(at, _)| at), now, CPU_EVERY) {
            let time = self.process.cpu_time().map(|time| (now, time));
            let before = std::mem::replace(&mut self.cpu, time);
            let cpu = before
                .zip(time)
                .and_then(|(since, until)| share(since, until));
            let cpu = cpu.unwrap_or(f32::NAN);
            if time.is_none() || !cpu.is_nan() {
                health.cpu.store(cpu.to_bits(), Ordering::Relaxed);
            }
        }
        if due(self.listed, now, DESCRIPTORS_EVERY) {
            self.listed = Some(now);
            self.sample_descriptors(now, health);
        }
    }

    fn sample_descriptors(&mut self, now: Moment, health: &RuntimeHealth) {
        let known = self.process.descriptors();
        if let Some(descriptors) = known {
            health.descriptors.store(descriptors, Ordering::Relaxed);
        }
        // The limit hardly ever changes, and counting takes a step for each descriptor.
        if due(self.counted, now, COUNT_EVERY) {
            self.counted = Some(now);
            let max = self.process.descriptors_max().unwrap_or(u64::MAX);
            health.descriptors_max.store(max, Ordering::Relaxed);
            if known.is_none() {
                let counted = self.process.count_descriptors().unwrap_or(u64::MAX);
                health.descriptors.store(counted, Ordering::Relaxed);
            }
        }
    }
}

/// The part of the time between two readings that was worked.
fn share((since, worked): (Moment, Duration), (until, more): (Moment, Duration)) -> Option<f32> {
    let passed = until.since(since).as_secs_f32();
    (passed > 0.0).then(|| more.saturating_sub(worked).as_secs_f32() / passed)
}

fn due(last: Option<Moment>, now: Moment, every: Duration) -> bool {
    last.is_none_or(|last| now.since(last) >= every)
}

/// A tick of CPU time is 10 ms, so over less the share would jump.
const CPU_EVERY: Duration = Duration::from_secs(5);

const DESCRIPTORS_EVERY: Duration = Duration::from_secs(10);

const COUNT_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_share_is_that_of_the_last_sample() {
        let (mut sampler, health) = (RuntimeSampler::new(), RuntimeHealth::default());
        let mut busy_at = |second: u64, worked_ms: u64| {
            let now = Moment::from_nanos(second * 1_000_000_000);
            sampler.sample(now, (2, Duration::from_millis(worked_ms)), &health);
            health.reading().busy
        };
        assert_eq!(busy_at(0, 100), None, "there is nothing to compare with");
        assert_eq!(busy_at(1, 1100), Some(0.5));
        assert_eq!(busy_at(1, 1100), Some(0.5), "no time has passed");
        assert_eq!(busy_at(3, 1100), Some(0.0));
        assert_eq!(busy_at(4, 99_000), Some(1.0), "never more than all of it");
        assert_eq!(busy_at(5, 0), Some(0.0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_busy_process_takes_cpu_and_a_file_is_a_descriptor() {
        let (clock, health) = (crate::clock::Clock::system(), RuntimeHealth::default());
        let mut sampler = RuntimeSampler::new();
        let began = clock.now();
        sampler.sample(began, (1, Duration::ZERO), &health);
        let open = health.reading().descriptors.unwrap();
        assert!(
            health
                .reading()
                .descriptors_max
                .is_none_or(|max| max >= open)
        );
        let mut sum = 0_u64;
        while clock.now().since(began) < Duration::from_millis(60) {
            sum = std::hint::black_box((0..1000_u64).fold(sum, u64::wrapping_add));
        }
        // As if that had taken five seconds, or the sampler would not look.
        sampler.sample(began.plus(CPU_EVERY), (1, Duration::ZERO), &health);
        let cpu = health.reading().cpu.unwrap();
        assert!(cpu > 0.0, "{cpu}");
    }

    #[test]
    fn nothing_is_known_before_anything_is_noted() {
        assert_eq!(
            RuntimeHealth::default().reading(),
            RuntimeReading::default()
        );
    }

    /// Goal: 5 µs a second for all of it, the canary's own ten naps aside. In a loop of nothing else the
    /// kernel's part is in the processor's caches, which once a second it is not.
    /// `cargo test --release --lib what_a_second_of_sampling_costs -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement, to be run alone"]
    fn what_a_second_of_sampling_costs() {
        let (clock, hand) = crate::clock::Clock::manual();
        let real = crate::clock::Clock::system();
        let events = crate::event::Events::none();
        let config = crate::guard::GuardConfig::default();
        let guard = crate::guard::Guard::new(&config, clock.clone(), events).unwrap();
        let mut sampler = RuntimeSampler::new();
        // The best of many batches: what else runs on the machine only ever adds to one.
        let batches = (0..50_u64).map(|batch| {
            let began = real.now();
            for second in 0..1000 {
                hand.advance(Duration::from_secs(1));
                guard.sample();
                let worked = (2, Duration::from_millis(batch * 1000 + second));
                sampler.sample(clock.now(), worked, guard.runtime_health());
            }
            real.now().since(began) / 1000
        });
        println!("a second of sampling: {:?}", batches.min());
    }
}
