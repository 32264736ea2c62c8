//! The text formats that Prometheus scrapes: its own, version 0.0.4, and OpenMetrics 1.0.
//!
//! Written here rather than by a client library, because ours has to write what is counted anyway
//! and a client library wants to count it itself. The formatting machinery of the language is kept off the lines
//! that there are thousands of: a bucket's line takes some 30 ns.

use std::fmt::Write;

use crate::metrics::edges::Edge;
use crate::metrics::histogram::HistogramSnapshot;
use crate::metrics::visitor::{Family, Kind, Label, Visitor};

/// How the text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format, version 0.0.4.
    Text,
    /// OpenMetrics 1.0: counters' families without `_total`, units, an end.
    OpenMetrics,
}

/// A text that is being written.
#[derive(Debug)]
pub(crate) struct Exposition {
    format: Format,
    text: String,
    /// The family that samples belong to now.
    name: &'static str,
    edges: &'static [Edge],
    /// The labels of the histogram that is being written.
    labels: String,
}

impl Exposition {
    pub(crate) const fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            name: "",
            edges: &[],
            labels: String::new(),
        }
    }

    /// Nothing comes any more.
    pub(crate) fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
    }

    /// How much was written and not taken yet.
    pub(crate) const fn len(&self) -> usize {
        self.text.len()
    }

    /// What was written so far; what follows goes into a new text that has room for as much.
    pub(crate) fn take(&mut self) -> String {
        let room = self.text.len();
        std::mem::replace(&mut self.text, String::with_capacity(room))
    }

    /// What was written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// `# HELP name help`, by a keyword.
    fn about(&mut self, keyword: &str, name: &str, what: &str) {
        for part in ["# ", keyword, " ", name, " "] {
            self.text.push_str(part);
        }
        // OpenMetrics escapes quotes in a help as well, the text format does not.
        escape(&mut self.text, what, self.format == Format::OpenMetrics);
        self.text.push('\n');
    }

    /// `name{route="/a",method="GET"} `, up to the value.
    fn begin(&mut self, labels: &[Label<'_>]) {
        self.text.push_str(self.name);
        if !labels.is_empty() {
            self.text.push('{');
            write_labels(&mut self.text, labels);
            self.text.push('}');
        }
        self.text.push(' ');
    }

    /// `_sum{route="/a"} `: a line of a histogram besides its buckets.
    fn begin_of_times(&mut self, ending: &str) {
        self.text.push_str(self.name);
        self.text.push_str(ending);
        if !self.labels.is_empty() {
            self.text.push('{');
            self.text.push_str(&self.labels);
            self.text.push('}');
        }
        self.text.push(' ');
    }

    /// A bucket's line: its limit comes after the other labels.
    fn bucket(&mut self, le: &str, count: u64) {
        self.text.push_str(self.name);
        self.text.push_str("_bucket{");
        if !self.labels.is_empty() {
            self.text.push_str(&self.labels);
            self.text.push(',');
        }
        self.text.push_str("le=\"");
        self.text.push_str(le);
        self.text.push_str("\"} ");
        self.whole(count);
    }

    /// A number and the end of the line.
    fn whole(&mut self, number: u64) {
        self.text.push_str(itoa::Buffer::new().format(number));
        self.text.push('\n');
    }

    /// Seconds to the nanosecond, without zeros at the end, and the end of the line.
    fn seconds(&mut self, nanos: u128) {
        const SECOND: u128 = 1_000_000_000;
        let mut digits = itoa::Buffer::new();
        self.text.push_str(digits.format(nanos / SECOND));
        let rest = nanos % SECOND;
        if rest > 0 {
            // The second in front holds the places of zeros.
            let places = digits.format(SECOND + rest).get(1..).unwrap_or_default();
            self.text.push('.');
            self.text.push_str(places.trim_end_matches('0'));
        }
        self.text.push('\n');
    }
}

impl Visitor for Exposition {
    fn family(&mut self, family: &Family) {
        let (kind, edges): (_, &[Edge]) = match family.kind {
            Kind::Counter => ("counter", &[]),
            Kind::Gauge => ("gauge", &[]),
            Kind::Histogram(edges) => ("histogram", edges),
        };
        (self.name, self.edges) = (family.name, edges);
        let mut name = family.name;
        if self.format == Format::OpenMetrics {
            name = base_name(family);
        }
        self.about("HELP", name, family.help);
        self.about("TYPE", name, kind);
        if self.format == Format::OpenMetrics
            && let Some(unit) = unit(name)
        {
            self.about("UNIT", name, unit);
        }
    }

    fn count(&mut self, labels: &[Label<'_>], count: u64) {
        self.begin(labels);
        self.whole(count);
    }

    /// A float is written in full, infinities and not-a-number as Go has them.
    fn level(&mut self, labels: &[Label<'_>], level: f64) {
        self.begin(labels);
        if level.is_infinite() {
            self.text
                .push_str(if level > 0.0 { "+Inf" } else { "-Inf" });
        } else {
            // Writing to a string does not fail.
            let _ = write!(self.text, "{level}");
        }
        self.text.push('\n');
    }

    fn times(&mut self, labels: &[Label<'_>], times: &HistogramSnapshot) {
        self.labels.clear();
        write_labels(&mut self.labels, labels);
        let mut buckets = times.means().peekable();
        let mut count = 0;
        for edge in self.edges {
            // A bucket belongs to the side its mean is on.
            while let Some((_, here)) = buckets.next_if(|(mean, _)| *mean <= edge.nanos) {
                count += here;
            }
            self.bucket(edge.le, count);
        }
        count += buckets.map(|(_, here)| here).sum::<u64>();
        self.bucket("+Inf", count);
        self.begin_of_times("_sum");
        self.seconds(times.sum().as_nanos());
        self.begin_of_times("_count");
        self.whole(count);
    }
}

/// The family's name in OpenMetrics, where only a counter's sample ends in `_total`.
pub(crate) fn base_name(family: &Family) -> &'static str {
    let without = family.name.strip_suffix("_total");
    let counts = matches!(family.kind, Kind::Counter);
    without.filter(|_| counts).unwrap_or(family.name)
}

/// The unit that a name ends in, if it is one.
fn unit(name: &str) -> Option<&'static str> {
    let units = ["seconds", "bytes", "ratio"];
    units.into_iter().find(|unit| {
        let before = name.strip_suffix(unit);
        before.is_some_and(|before| before.ends_with('_'))
    })
}

/// `route="/a",method="GET"`.
fn write_labels(text: &mut String, labels: &[Label<'_>]) {
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        escape(text, value, true);
        text.push('"');
    }
}

/// Writes `what` with backslashes and line ends escaped and, if told so, quotes.
fn escape(text: &mut String, mut what: &str, quotes: bool) {
    let breaks = |c: char| c == '\\' || c == '\n' || (quotes && c == '"');
    while let Some(at) = what.find(breaks) {
        let (plain, rest) = what.split_at(at);
        text.push_str(plain);
        text.push('\\');
        let mut chars = rest.chars();
        match chars.next() {
            Some('\n') => text.push('n'),
            Some(other) => text.push(other),
            None => {}
        }
        what = chars.as_str();
    }
    text.push_str(what);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::edges::EDGES;
    use crate::metrics::histogram::Histogram;

    fn family(name: &'static str, help: &'static str, kind: Kind) -> Family {
        Family { name, help, kind }
    }

    fn odd_levels(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.family(&family("x", "a \\ and a\nline \"end\"", Kind::Gauge));
        text.level(&[("a", "\\ \" \n é"), ("b", "")], 1.5);
        for level in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e21] {
            text.level(&[], level);
        }
        text.end();
        text.into_text()
    }

    #[test]
    fn what_would_break_a_line_is_escaped() {
        let lines = "x{a=\"\\\\ \\\" \\n é\",b=\"\"} 1.5\nx +Inf\nx -Inf\nx NaN\nx 1000000000000000000000\n";
        let help = "# HELP x a \\\\ and a\\nline \"end\"\n# TYPE x gauge\n";
        assert_eq!(odd_levels(Format::Text), format!("{help}{lines}"));
        let help = "# HELP x a \\\\ and a\\nline \\\"end\\\"\n# TYPE x gauge\n";
        assert_eq!(
            odd_levels(Format::OpenMetrics),
            format!("{help}{lines}# EOF\n")
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let histogram = Histogram::new();
        for micros in [900, 3_000, 70_000, 40_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut text = Exposition::new(Format::Text);
        text.family(&family("t", "h", Kind::Histogram(EDGES)));
        text.times(&[("a", "b")], &histogram.snapshot());
        let text = text.into_text();
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("t_bucket{a=\"b\",le="))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        let of_edges = EDGES.iter().map(|edge| {
            let limit = Duration::from_nanos(edge.nanos);
            histogram.snapshot().at_most(limit)
        });
        let of_edges: Vec<u64> = of_edges.chain([4]).collect();
        assert_eq!(counts, of_edges);
        assert!(text.contains("t_bucket{a=\"b\",le=\"0.0005\"} 0\n"));
        assert!(text.contains("t_bucket{a=\"b\",le=\"+Inf\"} 4\n"));
        assert!(text.ends_with("t_sum{a=\"b\"} 40.0739\nt_count{a=\"b\"} 4\n"));
    }

    #[test]
    fn sums_are_written_to_the_nanosecond() {
        for (nanos, written) in [
            (0, "0\n"),
            (1, "0.000000001\n"),
            (111_111_111, "0.111111111\n"),
            (1_000_000_000, "1\n"),
            (1_500_000_000, "1.5\n"),
            (u128::from(u64::MAX), "18446744073.709551615\n"),
        ] {
            let mut text = Exposition::new(Format::Text);
            text.seconds(nanos);
            assert_eq!(text.into_text(), written);
        }
    }

    #[test]
    fn open_metrics_names_families_without_total_and_with_their_unit() {
        let mut text = Exposition::new(Format::OpenMetrics);
        text.family(&family("a_bytes_total", "h", Kind::Counter));
        text.count(&[], 7);
        text.family(&family("bytes", "h", Kind::Gauge));
        assert_eq!(
            text.into_text(),
            "# HELP a_bytes h\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\na_bytes_total 7\n\
             # HELP bytes h\n# TYPE bytes gauge\n"
        );
    }
}
