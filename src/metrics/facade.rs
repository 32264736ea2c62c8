//! All figures for the recorder of the `metrics` crate, by the same names and labels as in a scrape.
//!
//! The figures are pulled: no request ever meets the recorder, whose calls cost ten times as much as ours. Every
//! so often [`FacadeBridge`] walks through all figures and tells the recorder what is new.
//!
//! - Counters are set to their absolute value, so none is counted twice, whoever else starts or stops.
//! - Gauges are set.
//! - Histograms get as many records as were added to a bucket, at the bucket's mean. Counts are exact; values, and
//!   with them a recorder's sums, are off by 5 % at most.
//!
//! The bridge keeps a handle for each series, and for each histogram what it has told: some 2 KiB per route and method,
//! and no more as time goes by. A recorder may well keep more: that of `metrics-exporter-prometheus` retains 16.5 bytes
//! for each record of a histogram until it is rendered or its `run_upkeep` is called (5 million requests are 80 MiB,
//! which the process does not give back), so let somebody scrape it, or run its upkeep.
//!
//! What is recorded is told once, to the recorder that is there then: one that is installed late, or takes another's
//! place, gets counters and gauges in whole and of histograms what comes from then on. Two stacks in one process would
//! set the same counters and must not both be bridged.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::metrics::engine::Metrics;
use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::visitor::{Family, Kind, Label, Visitor};
use crate::metrics::walk::Walk;

/// How many steps are taken before other tasks of the same thread have their turn: 25 µs of ours, and what the recorder
/// takes for a handful of figures each.
const STEPS: usize = 64;

/// How many records of histograms are told before other tasks of the same thread have their turn. A recorder takes them
/// one by one, some tens of nanoseconds each, and a busy route has hundreds of thousands between two ticks.
const RECORDS: usize = 2_000;

/// The shortest period that a timer takes.
const PERIOD_MIN: Duration = Duration::from_millis(1);

/// Tells a recorder of the `metrics` crate all figures; see its [module's](crate::metrics) setting
/// [`facade`](crate::metrics::MetricsConfig::facade), with which the stack runs one by itself.
#[derive(Debug)]
pub struct FacadeBridge {
    metrics: Metrics,
    told: Told,
}

/// What was told to whom.
#[derive(Debug)]
struct Told {
    /// The recorder's address, so that another one is noticed.
    recorder: usize,
    series: HashMap<String, Series>,
    /// The key of the series at hand, to look it up without allocating.
    key: String,
    /// The family at hand, which lasts from one turn to the next.
    family: Family,
    /// Records that were taken from a histogram and are not told yet: of one step at most, hence few.
    owed: Vec<Owed>,
}

/// Records of one bucket.
#[derive(Debug)]
struct Owed {
    histogram: ::metrics::Histogram,
    seconds: f64,
    count: usize,
}

#[derive(Debug, Default)]
struct Series {
    /// The address of the recorder that the handle is of.
    recorder: usize,
    handle: Handle,
    /// What was told of a histogram.
    told: HistogramSnapshot,
}

#[derive(Debug, Default)]
enum Handle {
    #[default]
    None,
    Counter(::metrics::Counter),
    Gauge(::metrics::Gauge),
    Histogram(::metrics::Histogram),
}

impl FacadeBridge {
    /// A bridge over which nothing went yet.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            told: Told {
                recorder: 0,
                series: HashMap::new(),
                key: String::new(),
                family: NONE,
                owed: Vec::new(),
            },
        }
    }

    /// Tells the current recorder, the thread's own or else the global one, what is new. Takes about 0.4 µs per route and
    /// method, and the recorder's time. Without a recorder, the records of histograms are lost; counters and gauges are told
    /// in whole to one that comes later.
    ///
    /// # Panics
    ///
    /// When the recorder or a gauge does. The next call begins anew.
    pub fn publish(&mut self) {
        let mut walk = Walk::new(&self.metrics);
        while self.told.some_steps(&mut walk) {}
    }

    /// Publishes at once and then once in a `period` of at least 1 ms, for ever. Between some steps it lets other tasks
    /// run. Where the recorder or a gauge panics, that figure is left out, and the first one of a period is reported to
    /// `tracing`. Safe to drop at any await.
    pub async fn run(mut self, period: Duration) {
        let mut ticks = tokio::time::interval(period.max(PERIOD_MIN));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (mut walk, mut panicked) = (Walk::new(&self.metrics), false);
            while self.told.some_steps_or_panic(&mut walk, &mut panicked) {
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Told {
    /// Returns whether there is more to tell. Each panic has passed a step of the walk, or a record that is owed.
    fn some_steps_or_panic(&mut self, walk: &mut Walk, panicked: &mut bool) -> bool {
        let steps = AssertUnwindSafe(|| self.some_steps(walk));
        catch_unwind(steps).unwrap_or_else(|_| {
            if !std::mem::replace(panicked, true) {
                tracing::error!(
                    target: "tower_keep",
                    "the recorder of the metrics crate or a gauge panicked"
                );
            }
            true
        })
    }

    /// Returns whether there is more to tell.
    fn some_steps(&mut self, walk: &mut Walk) -> bool {
        ::metrics::with_recorder(|recorder| {
            self.recorder = std::ptr::from_ref(recorder).cast::<()>().addr();
            let mut telling = Telling {
                told: self,
                recorder,
            };
            let mut left = RECORDS;
            (0..STEPS).all(|_| {
                telling.told.pay(&mut left);
                // Owing still, or about to: the rest has its turn later.
                left == 0 || walk.step(&mut telling)
            })
        })
    }

    /// Tells what is owed, `left` records at most.
    fn pay(&mut self, left: &mut usize) {
        while let (1.., Some(owed)) = (*left, self.owed.last_mut()) {
            let count = owed.count.min(*left);
            if count == 0 {
                self.owed.pop();
                continue;
            }
            // Before they are told: those over which a recorder panics are not told again and again.
            owed.count -= count;
            *left -= count;
            owed.histogram.record_many(owed.seconds, count);
        }
    }
}

/// Some steps of a walk.
struct Telling<'a> {
    told: &'a mut Told,
    recorder: &'a dyn ::metrics::Recorder,
}

/// Before the first family.
const NONE: Family = Family {
    name: "",
    help: "",
    kind: Kind::Gauge,
};

const METADATA: ::metrics::Metadata<'static> =
    ::metrics::Metadata::new("tower_keep", ::metrics::Level::INFO, None);

impl Telling<'_> {
    /// The series with these labels, registered where it is not yet.
    fn series(&mut self, labels: &[Label<'_>]) -> Option<&mut Series> {
        let Told {
            recorder,
            series,
            key,
            family,
            ..
        } = &mut *self.told;
        key.clear();
        key.push_str(family.name);
        for (_, value) in labels {
            // No label's value has a NUL in it: they are templates, methods and words of the program.
            key.push('\0');
            key.push_str(value);
        }
        if !series.contains_key(key.as_str()) {
            series.insert(key.clone(), Series::default());
        }
        let series = series.get_mut(key.as_str())?;
        if series.recorder != *recorder {
            series.handle = register(self.recorder, family, labels);
            series.recorder = *recorder;
        }
        Some(series)
    }
}

fn register(recorder: &dyn ::metrics::Recorder, family: &Family, labels: &[Label<'_>]) -> Handle {
    let label = |(name, value): &Label<'_>| ::metrics::Label::new(*name, (*value).to_owned());
    let labels: Vec<_> = labels.iter().map(label).collect();
    let key = ::metrics::Key::from_parts(family.name, labels);
    match family.kind {
        Kind::Counter => Handle::Counter(recorder.register_counter(&key, &METADATA)),
        Kind::Gauge => Handle::Gauge(recorder.register_gauge(&key, &METADATA)),
        Kind::Histogram(_) => Handle::Histogram(recorder.register_histogram(&key, &METADATA)),
    }
}

impl Visitor for Telling<'_> {
    fn family(&mut self, family: &Family) {
        self.told.family = *family;
        let (name, help) = (family.name.into(), family.help.into());
        // The unit is in the name, and recorders that add it would add it again.
        match family.kind {
            Kind::Counter => self.recorder.describe_counter(name, None, help),
            Kind::Gauge => self.recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => self.recorder.describe_histogram(name, None, help),
        }
    }

    fn count(&mut self, labels: &[Label<'_>], count: u64) {
        match self.series(labels).map(|series| &series.handle) {
            Some(Handle::Counter(counter)) => counter.absolute(count),
            Some(Handle::Gauge(gauge)) => gauge.set(count as f64),
            _ => {}
        }
    }

    fn level(&mut self, labels: &[Label<'_>], level: f64) {
        if let Some(Handle::Gauge(gauge)) = self.series(labels).map(|series| &series.handle) {
            gauge.set(level);
        }
    }

    fn times(&mut self, labels: &[Label<'_>], times: &HistogramSnapshot) {
        let Some(series) = self.series(labels) else {
            return;
        };
        let Handle::Histogram(histogram) = &series.handle else {
            return;
        };
        let histogram = histogram.clone();
        let new = times.since(&series.told);
        let owed = new.means().map(|(mean, count)| Owed {
            histogram: histogram.clone(),
            seconds: mean as f64 / 1e9,
            count: usize::try_from(count).unwrap_or(usize::MAX),
        });
        series.told = times.clone();
        self.told.owed.extend(owed);
    }
}
