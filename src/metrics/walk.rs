//! All figures in their order, one step at a time.

use std::sync::Arc;

use crate::clock::Clock;
use crate::metrics::engine::Metrics;
use crate::metrics::families::FAMILIES;
use crate::metrics::gauges::Gauge;
use crate::metrics::http_families::{HttpFamily, Tell, http_families, with_labels};
use crate::metrics::rows::LiveRow;
use crate::metrics::visitor::{Family, Kind, Visitor};

/// A walk through all figures that may rest after any step.
///
/// Holds which routes and gauges there were at its beginning, and none of the figures: those are read on the way.
#[derive(Debug)]
pub(crate) struct Walk {
    metrics: Metrics,
    http: &'static [&'static HttpFamily],
    rows: Vec<LiveRow>,
    gauges: Arc<Vec<Gauge>>,
    next: Place,
}

/// What comes next.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The row of a family about requests; the first one brings the family itself along.
    Http {
        family: usize,
        row: usize,
    },
    Totals(usize),
    Gauge(usize),
}

impl Walk {
    /// At the beginning.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: metrics.clone(),
            http: http_families(metrics.config().names),
            rows: LiveRow::all(metrics),
            gauges: metrics.gauges().all(),
            next: Place::Http { family: 0, row: 0 },
        }
    }

    /// The clock of the metrics.
    pub(crate) fn clock(&self) -> Clock {
        self.metrics.clock().clone()
    }

    /// Tells what comes next, a few figures at most. Returns whether there was anything left. Whatever panics there is
    /// not told again: the next step is behind it.
    pub(crate) fn step(&mut self, visitor: &mut dyn Visitor) -> bool {
        match self.next {
            Place::Http { family, row } => match self.http.get(family) {
                Some(told) => {
                    self.next = self.behind(told, (family, row));
                    self.tell_row(told, row, visitor);
                }
                None => self.next = Place::Totals(0),
            },
            Place::Totals(index) => match FAMILIES.get(index) {
                Some(family) => {
                    self.next = Place::Totals(index + 1);
                    family.tell(self.metrics.totals(), visitor);
                }
                None => self.next = Place::Gauge(0),
            },
            Place::Gauge(index) => {
                let Some(gauge) = self.gauges.get(index) else {
                    return false;
                };
                self.next = Place::Gauge(index + 1);
                visitor.family(&Family {
                    name: gauge.name,
                    help: gauge.help,
                    kind: Kind::Gauge,
                });
                visitor.level(&[], (gauge.read)());
            }
        }
        true
    }

    /// The place behind a row.
    fn behind(&self, told: &HttpFamily, (family, row): (usize, usize)) -> Place {
        match told.tell {
            Tell::Row(_) if row + 1 < self.rows.len() => Place::Http {
                family,
                row: row + 1,
            },
            _ => Place::Http {
                family: family + 1,
                row: 0,
            },
        }
    }

    fn tell_row(&self, told: &HttpFamily, row: usize, visitor: &mut dyn Visitor) {
        if row == 0 {
            visitor.family(&told.family);
        }
        match (&told.tell, self.rows.get(row)) {
            (Tell::All(tell), _) => tell(&self.rows, visitor),
            (Tell::Row(_), None) => {}
            (Tell::Row(tell), Some(figures)) => {
                let names = self.metrics.config().names;
                with_labels(names, figures, |labels| tell(figures, labels, visitor));
            }
        }
    }
}
