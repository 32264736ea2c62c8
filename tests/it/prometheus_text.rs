//! A strict reader of Prometheus' text format 0.0.4, for whatever a test has scraped.
//!
//! It refuses more than Prometheus does: families out of order, samples outside of their family,
//! series that are there twice, histograms whose buckets fall or do not end in their count.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of a text, by series as it was written: `name{label="value"}`.
#[derive(Debug, Default)]
pub struct Scrape {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
}

impl Scrape {
    /// Reads `text`; panics with the line that breaks the format.
    pub fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        assert!(text.ends_with('\n'), "the last line must end");
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let (name, help) = line
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .unwrap_or_else(|| panic!("a family begins with HELP: {line}"));
            assert!(is_name(name) && !help.is_empty(), "{line}");
            let fresh = scrape.families.insert(name.to_owned());
            assert!(fresh, "{name} is there twice");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
                .filter(|(typed, _)| *typed == name)
                .map_or_else(|| panic!("TYPE must follow HELP: {line}"), |(_, kind)| kind);
            let mut family = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                family.push(sample(line));
            }
            check_family(name, kind, &family);
            for sample in family {
                let (series, value) = (sample.series(), sample.value);
                let before = scrape.samples.insert(series.clone(), value);
                assert!(before.is_none(), "{series} is there twice");
            }
        }
        scrape
    }

    /// The value of a series; 0 if it is not there.
    pub fn value(&self, series: &str) -> f64 {
        self.samples.get(series).copied().unwrap_or(0.0)
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

fn check_family(name: &str, kind: &str, samples: &[Sample]) {
    match kind {
        "counter" => {
            assert!(name.ends_with("_total"), "{name} is a counter");
            for sample in samples {
                assert!(
                    sample.name == name && sample.value >= 0.0,
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
        "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n".to_owned(),
    ] {
        let read = std::panic::catch_unwind(|| Scrape::of(&broken));
        assert!(read.is_err(), "was accepted: {broken}");
    }
    let scrape = Scrape::of(&format!("{family}a_total{{b=\"c\\\"d\"}} 1\n"));
    assert_eq!(scrape.value("a_total{b=\"c\\\"d\"}"), 1.0);
}
