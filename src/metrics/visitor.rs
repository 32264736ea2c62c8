//! Who is told all figures, one family after the other: a text that is written, a recorder that is fed.

use crate::metrics::edges::Edge;
use crate::metrics::histogram::HistogramSnapshot;

/// A label and its value.
pub(crate) type Label<'a> = (&'static str, &'a str);

/// What a family's figures are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// What only rises. Its name ends in `_total`.
    Counter,
    Gauge,
    /// Durations, shown with these limits where they are shown in buckets.
    Histogram(&'static [Edge]),
}

/// Figures of one name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
}

/// Is told a family, then its figures, then the next family.
pub(crate) trait Visitor {
    fn family(&mut self, family: &Family);
    /// A whole figure, of a counter or a gauge.
    fn count(&mut self, labels: &[Label<'_>], count: u64);
    /// A figure of a gauge.
    fn level(&mut self, labels: &[Label<'_>], level: f64);
    /// A figure of a histogram.
    fn times(&mut self, labels: &[Label<'_>], times: &HistogramSnapshot);
}
