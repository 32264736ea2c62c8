//! All counts at one moment, or those of a stretch of time: what windows, snapshots and fleets are made of.
//!
//! Counts only ever grow, so the counts of a stretch are the difference of two sheets, and those of several
//! stretches or instances are their sum: exactly, histograms included.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::metrics::figures::read;
use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::routes::{ROUTE_COUNTS, Routes};
use crate::metrics::totals::{Count, Time, Totals, Word};

/// The counts of an instance, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sheet {
    pub(crate) counts: [u64; Count::ALL],
    pub(crate) words: BTreeMap<(Word, Arc<str>), u64>,
    pub(crate) times: [HistogramSnapshot; Time::ALL],
    /// Allowed, denied, denied in shadow mode.
    pub(crate) rules: BTreeMap<Arc<str>, [u64; 3]>,
    /// By template, and the method's place among those that are told apart.
    pub(crate) routes: BTreeMap<(Arc<str>, u8), RouteRow>,
}

/// The counts of a route and method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RouteRow {
    /// In the order of `RouteStats::counts`.
    pub(crate) counts: [u64; ROUTE_COUNTS],
    /// As it is at the end of the stretch: no count, so neither subtracted nor summed up over time.
    pub(crate) in_flight: u64,
    pub(crate) latency: HistogramSnapshot,
}

impl Sheet {
    /// Everything so far.
    pub(crate) fn now(routes: &Routes, totals: &Totals) -> Self {
        let mut sheet = Self {
            counts: totals.counts().each_ref().map(read),
            times: totals.times().each_ref().map(|times| times.snapshot()),
            ..Self::default()
        };
        for word in Word::ALL {
            let rows = totals.words(word).into_iter();
            let rows = rows.map(|(name, count)| ((word, name), read(&count)));
            sheet.words.extend(rows);
        }
        let rules = totals.rules().into_iter();
        sheet.rules.extend(rules.map(|(name, rule)| {
            let counts = [&rule.allowed, &rule.denied, &rule.shadow_denied];
            (name, counts.map(read))
        }));
        let rows = routes.rows().into_iter();
        sheet.routes.extend(rows.map(|(route, method, stats)| {
            let counts = stats.counts();
            let row = RouteRow {
                in_flight: stats.in_flight(&counts),
                counts,
                latency: stats.latency.snapshot(),
            };
            ((route, method), row)
        }));
        sheet
    }

    pub(crate) const fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    pub(crate) const fn time(&self, time: Time) -> &HistogramSnapshot {
        &self.times[time as usize]
    }

    /// The counts of one word, by name.
    pub(crate) fn word(&self, word: Word) -> BTreeMap<Arc<str>, u64> {
        let rows = self.words.range((word, Arc::from(""))..);
        let rows = rows.take_while(|((other, _), _)| *other == word);
        rows.map(|((_, name), count)| (Arc::clone(name), *count))
            .collect()
    }

    /// What was counted since `earlier`, a sheet of the same counts. Rows in which nothing happened are left
    /// out.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut sheet = Self {
            counts: less(&self.counts, Some(&earlier.counts)),
            times: std::array::from_fn(|time| self.times[time].since(&earlier.times[time])),
            ..Self::default()
        };
        for (name, count) in &self.words {
            let before = earlier.words.get(name).copied().unwrap_or_default();
            if *count > before {
                sheet.words.insert(name.clone(), count - before);
            }
        }
        for (name, counts) in &self.rules {
            let counts = less(counts, earlier.rules.get(name));
            if counts != [0; 3] {
                sheet.rules.insert(Arc::clone(name), counts);
            }
        }
        for (name, row) in &self.routes {
            let before = earlier.routes.get(name);
            let row = RouteRow {
                counts: less(&row.counts, before.map(|before| &before.counts)),
                in_flight: row.in_flight,
                latency: match before {
                    Some(before) => row.latency.since(&before.latency),
                    None => row.latency.clone(),
                },
            };
            if row != RouteRow::default() {
                sheet.routes.insert(name.clone(), row);
            }
        }
        sheet
    }

    /// Adds the counts of the stretch of time that follows.
    pub(crate) fn then(&mut self, later: &Self) {
        for row in self.routes.values_mut() {
            row.in_flight = 0;
        }
        self.add(later);
    }

    /// Adds the counts of another instance.
    pub(crate) fn add(&mut self, other: &Self) {
        sum(&mut self.counts, &other.counts);
        for (mine, theirs) in self.times.iter_mut().zip(&other.times) {
            mine.merge(theirs);
        }
        for (name, count) in &other.words {
            *self.words.entry(name.clone()).or_default() += count;
        }
        for (name, counts) in &other.rules {
            sum(self.rules.entry(Arc::clone(name)).or_default(), counts);
        }
        for (name, row) in &other.routes {
            let mine = self.routes.entry(name.clone()).or_default();
            sum(&mut mine.counts, &row.counts);
            mine.in_flight += row.in_flight;
            mine.latency.merge(&row.latency);
        }
    }
}

fn less<const N: usize>(now: &[u64; N], before: Option<&[u64; N]>) -> [u64; N] {
    match before {
        Some(before) => std::array::from_fn(|at| now[at].saturating_sub(before[at])),
        None => *now,
    }
}

fn sum<const N: usize>(mine: &mut [u64; N], theirs: &[u64; N]) {
    for (mine, theirs) in mine.iter_mut().zip(theirs) {
        *mine = mine.saturating_add(*theirs);
    }
}
