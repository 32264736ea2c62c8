//! The text format that Prometheus scrapes, version 0.0.4.
//!
//! Written here rather than by a client library, because ours has to write what is counted anyway
//! and a client library wants to count it itself.

use std::fmt::{self, Display, Write};
use std::time::Duration;

use crate::metrics::histogram::HistogramSnapshot;

/// The upper limits of a histogram's buckets: the customary ones and three below, because an answer
/// from memory is faster than their first.
const LIMITS: [Duration; 14] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// What a family's samples are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label and its value.
pub(crate) type Label<'a> = (&'static str, &'a str);

/// A text that is being written.
#[derive(Debug, Default)]
pub(crate) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, name: &str, help: &str, kind: Kind) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = Escaped {
            text: help,
            quotes: false,
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample. A float is written in full, infinities and not-a-number as Go has them.
    pub(crate) fn sample(&mut self, name: &str, labels: &[Label<'_>], value: f64) {
        if value.is_infinite() {
            let sign = if value > 0.0 { '+' } else { '-' };
            self.line(format_args!("{name}{} {sign}Inf\n", Labels(labels)));
        } else {
            self.line(format_args!("{name}{} {value}\n", Labels(labels)));
        }
    }

    /// One sample that counts.
    pub(crate) fn count(&mut self, name: &str, labels: &[Label<'_>], count: u64) {
        self.line(format_args!("{name}{} {count}\n", Labels(labels)));
    }

    /// The samples of one histogram, in seconds.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        labels: &[Label<'_>],
        histogram: &HistogramSnapshot,
    ) {
        let bucket = |limit, count| Bucket {
            name,
            labels,
            limit,
            count,
        };
        for limit in LIMITS {
            let count = histogram.at_most(limit);
            self.line(format_args!("{}", bucket(Some(limit), count)));
        }
        let count = histogram.count();
        self.line(format_args!("{}", bucket(None, count)));
        let (labels, sum) = (Labels(labels), histogram.sum().as_secs_f64());
        self.line(format_args!("{name}_sum{labels} {sum}\n"));
        self.line(format_args!("{name}_count{labels} {count}\n"));
    }

    /// What was written.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = self.text.write_fmt(line);
    }
}

/// `{route="/a",method="GET"}`, or nothing.
#[derive(Clone, Copy)]
struct Labels<'a>(&'a [Label<'a>]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let value = Escaped {
                text: value,
                quotes: true,
            };
            write!(f, "{before}{name}=\"{value}\"")?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            f.write_char('}')
        }
    }
}

/// A bucket's line: its limit comes after the other labels.
struct Bucket<'a> {
    name: &'a str,
    labels: &'a [Label<'a>],
    limit: Option<Duration>,
    count: u64,
}

impl Display for Bucket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_bucket{{", self.name)?;
        for (name, value) in self.labels {
            let value = Escaped {
                text: value,
                quotes: true,
            };
            write!(f, "{name}=\"{value}\",")?;
        }
        match self.limit {
            Some(limit) => write!(f, "le=\"{}\"", limit.as_secs_f64())?,
            None => write!(f, "le=\"+Inf\"")?,
        }
        writeln!(f, "}} {}", self.count)
    }
}

/// Text in which backslashes and line ends are escaped, and in label values quotes.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.text.chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if self.quotes => f.write_str("\\\"")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::Histogram;

    #[test]
    fn what_would_break_a_line_is_escaped() {
        let mut text = Exposition::default();
        text.family("x", "a \\ and a\nline \"end\"", Kind::Gauge);
        text.sample("x", &[("a", "\\ \" \n é"), ("b", "")], 1.5);
        text.sample("x", &[], f64::INFINITY);
        text.sample("x", &[], f64::NEG_INFINITY);
        text.sample("x", &[], f64::NAN);
        text.sample("x", &[], 1e21);
        assert_eq!(
            text.into_text(),
            "# HELP x a \\\\ and a\\nline \"end\"\n# TYPE x gauge\n\
             x{a=\"\\\\ \\\" \\n é\",b=\"\"} 1.5\nx +Inf\nx -Inf\nx NaN\nx 1000000000000000000000\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_in_the_count() {
        let histogram = Histogram::new();
        for micros in [900, 3_000, 70_000, 20_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut text = Exposition::default();
        text.histogram("t", &[("a", "b")], &histogram.snapshot());
        let text = text.into_text();
        let counts: Vec<u64> = text
            .lines()
            .filter(|line| line.starts_with("t_bucket{a=\"b\",le="))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert_eq!(counts, [0, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert!(text.contains("t_bucket{a=\"b\",le=\"0.0005\"} 0\n"));
        assert!(text.contains("t_bucket{a=\"b\",le=\"+Inf\"} 4\n"));
        assert!(text.ends_with("t_sum{a=\"b\"} 20.0739\nt_count{a=\"b\"} 4\n"));
    }
}
