//! A strict reader of Prometheus' text format 0.0.4 and of OpenMetrics 1.0, for whatever a test has scraped.
//!
//! It refuses more than Prometheus does: families out of order, samples outside of their family,
//! series that are there twice, histograms whose buckets fall or do not end in their count.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of a text, by series as it was written: `name{label="value"}`.
#[derive(Debug, Default)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
    /// The labels that occur with each name of samples.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Scrape {
    /// Reads `text` in the format 0.0.4; panics with the line that breaks it.
    pub fn of(text: &str) -> Self {
        Self::read(text, false)
    }

    /// Reads `text` as OpenMetrics; panics with the line that breaks it.
    pub fn of_open_metrics(text: &str) -> Self {
        let inner = text.strip_suffix("# EOF\n");
        Self::read(inner.expect("the text must end in # EOF"), true)
    }

    fn read(text: &str, open: bool) -> Self {
        let mut scrape = Self::default();
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "the last line must end"
        );
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .unwrap_or_else(|| panic!("a family begins with HELP: {line}"));
            assert!(is_name(name) && !help.is_empty(), "{line}");
            check_help(help, open);
            let fresh = scrape.families.insert(name.to_owned());
            assert!(fresh, "{name} is there twice");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
                .filter(|(typed, _)| *typed == name)
                .map_or_else(|| panic!("TYPE must follow HELP: {line}"), |(_, kind)| kind);
            if let Some(line) = lines.next_if(|line| line.starts_with("# UNIT ")) {
                assert!(open, "only OpenMetrics has units: {line}");
                let unit = line.strip_prefix(&format!("# UNIT {name} "));
                // "In addition, an underscore and the unit MUST be the suffix of the MetricFamily name."
                let suffixed = unit.is_some_and(|unit| name.ends_with(&format!("_{unit}")));
                assert!(suffixed, "{line}");
            }
            let mut family = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                family.push(sample(line));
            }
            check_family(name, kind, &family, open);
            for sample in family {
                let (series, value) = (sample.series(), sample.value);
                let before = scrape.samples.insert(series.clone(), value);
                assert!(before.is_none(), "{series} is there twice");
                let labels = sample.labels.into_iter().map(|(label, _)| label);
                scrape.labels.entry(sample.name).or_default().extend(labels);
            }
        }
        scrape.check_names(open);
        scrape
    }

    /// No family's name is another one's sample.
    fn check_names(&self, open: bool) {
        if !open {
            return;
        }
        for family in &self.families {
            for ending in ["_total", "_created", "_bucket", "_sum", "_count", "_info"] {
                let other = family.strip_suffix(ending);
                let clash = other.is_some_and(|other| self.families.contains(other));
                assert!(!clash, "{family} is a sample of another family");
            }
        }
    }

    /// The value of a series; 0 if it is not there.
    pub fn value(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or(0.0)
    }

    /// The names of all samples, with the labels that occur with them.
    pub const fn labels(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.labels
    }

    /// All samples, by series.
    pub const fn samples(&self) -> &BTreeMap<String, f64> {
        &self.samples
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// All series whose text begins with `prefix`.
    pub fn series(&self, prefix: &str) -> Vec<&str> {
        let keys = self.samples.keys().map(String::as_str);
        keys.filter(|series| series.starts_with(prefix)).collect()
    }
}

struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Sample {
    fn series(&self) -> String {
        let labels = self.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        match &*labels {
            [] => self.name.clone(),
            labels => format!("{}{{{}}}", self.name, labels.join(",")),
        }
    }

    fn without(&self, label: &str) -> Vec<(String, String)> {
        let labels = self.labels.iter().filter(|(name, _)| name != label);
        labels.cloned().collect()
    }
}

/// `name{label="value",..} 12.5`, and nothing more or less than that.
fn sample(line: &str) -> Sample {
    let end = line
        .find(['{', ' '])
        .unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = unescape(after, line);
            labels.push((label.to_owned(), value));
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        number => number.parse().unwrap_or_else(|_| panic!("{line}")),
    };
    Sample {
        name: name.to_owned(),
        labels,
        value,
    }
}

/// The label value up to its closing quote, and what comes after that.
fn unescape<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        value.push(match char {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => '\n',
                Some((_, plain @ ('\\' | '"'))) => plain,
                _ => panic!("unknown escape: {line}"),
            },
            plain => plain,
        });
    }
    panic!("a quote is left open: {line}");
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// A backslash is escaped or escapes a line's end; in OpenMetrics a quote is escaped as well.
fn check_help(help: &str, open: bool) {
    let mut chars = help.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some('n' | '\\') => {}
                Some('"') if open => {}
                _ => panic!("unknown escape: {help}"),
            },
            '"' => assert!(!open, "a quote in a help: {help}"),
            _ => {}
        }
    }
}

fn check_family(name: &str, kind: &str, samples: &[Sample], open: bool) {
    match kind {
        "counter" => {
            // In OpenMetrics the family is named without the ending of its samples.
            let total = if open {
                assert!(!name.ends_with("_total"), "{name} is a counter's family");
                format!("{name}_total")
            } else {
                assert!(name.ends_with("_total"), "{name} is a counter");
                name.to_owned()
            };
            for sample in samples {
                assert!(
                    sample.name == total && sample.value >= 0.0,
                    "{}",
                    sample.series()
                );
            }
        }
        "gauge" => assert!(samples.iter().all(|sample| sample.name == name), "{name}"),
        "histogram" => check_histogram(name, samples),
        other => panic!("{name} is of unknown type {other}"),
    }
}

/// Each series of a histogram: rising buckets to +Inf, then the sum, then the count.
fn check_histogram(name: &str, samples: &[Sample]) {
    let mut samples = samples.iter().peekable();
    while let Some(first) = samples.peek() {
        let labels = first.without("le");
        let (mut limit, mut count) = (f64::NEG_INFINITY, 0.0);
        while let Some(bucket) = samples.next_if(|s| s.name == format!("{name}_bucket")) {
            let (label, le) = bucket.labels.last().unwrap();
            assert_eq!(
                (label.as_str(), bucket.without("le")),
                ("le", labels.clone())
            );
            let le = if le == "+Inf" {
                f64::INFINITY
            } else {
                // Prometheus 3 writes limits so, and a limit written otherwise is another series.
                assert!(le.contains(['.', 'e']), "{le} does not look like a float");
                le.parse().unwrap()
            };
            assert!(le > limit && bucket.value >= count, "{}", bucket.series());
            (limit, count) = (le, bucket.value);
        }
        assert_eq!(limit, f64::INFINITY, "{name} ends before +Inf");
        let (sum, total) = (samples.next().unwrap(), samples.next().unwrap());
        assert_eq!((&sum.name, &sum.labels), (&format!("{name}_sum"), &labels));
        assert_eq!(
            (&total.name, &total.labels),
            (&format!("{name}_count"), &labels)
        );
        assert_eq!(total.value, count, "{}", total.series());
    }
}

#[test]
fn the_reader_refuses_what_is_no_exposition() {
    let family = "# HELP a_total h\n# TYPE a_total counter\n";
    for broken in [
        "a_total 1\n".to_owned(),
        format!("{family}a_total 1"),
        format!("{family}a_total 1\na_total 2\n"),
        format!("{family}a_total{{b=\"c}} 1\n"),
        format!("{family}a_total{{b=\"\\x\"}} 1\n"),
        format!("{family}b_total 1\n"),
        format!("{family}{family}"),
        "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_sum 1\nh_count 1\n".to_owned(),
        "# HELP a_seconds h\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n".to_owned(),
        "# HELP a a \\\"quote\\\"\n# TYPE a gauge\n".to_owned(),
    ] {
        let read = std::panic::catch_unwind(|| Scrape::of(&broken));
        assert!(read.is_err(), "was accepted: {broken}");
    }
    let scrape = Scrape::of(&format!("{family}a_total{{b=\"c\\\"d\"}} 1\n"));
    assert_eq!(scrape.value("a_total{b=\"c\\\"d\"}"), 1.0);
}

#[test]
fn the_reader_refuses_what_is_no_open_metrics() {
    let family = "# HELP a h\n# TYPE a counter\n";
    for broken in [
        format!("{family}a_total 1\n"),
        format!("{family}a_total 1\n# EOF"),
        format!("{family}a_total 1\n# EOF\n# EOF\n"),
        format!("{family}a 1\n# EOF\n"),
        "# HELP a_total h\n# TYPE a_total counter\na_total 1\n# EOF\n".to_owned(),
        "# HELP a h\n# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n".to_owned(),
        "# HELP a a \"quote\"\n# TYPE a gauge\n# EOF\n".to_owned(),
        format!("{family}# HELP a_created h\n# TYPE a_created gauge\n# EOF\n"),
    ] {
        let read = std::panic::catch_unwind(|| Scrape::of_open_metrics(&broken));
        assert!(read.is_err(), "was accepted: {broken}");
    }
    let text = format!("{family}a_total{{b=\"c\"}} 1\n# EOF\n");
    let scrape = Scrape::of_open_metrics(&text);
    assert_eq!(scrape.value("a_total{b=\"c\"}"), 1.0);
}
