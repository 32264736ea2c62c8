//! A journal of one process: what it costs to ask whether an entry holds.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use criterion::Criterion;
use tower_keep::clock::Clock;
use tower_keep::event::Events;
use tower_keep::journal::{Checked, Journal, JournalConfig, Marker, Stamp, Subject, Verdict};
use tower_keep::pattern::Pattern;

use crate::goals::{measure, nanos, note};

const MARKERS: u64 = 100_000;
const PATTERNS: u64 = 100_000;
/// More than the processor's nearest caches hold.
const ENTRIES: u64 = 10_000;

/// A journal in which every tag was invalidated, and entries that were born after that.
pub(crate) fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/check");
    let journal = journal();
    (0..MARKERS).for_each(|at| invalidate(&journal, Marker::tag(&format!("tag:{at}"))));
    let born = journal.position();
    let tags = |at: u64| {
        [0, 1, 2, 3].map(|n| Arc::from(format!("tag:{}", (at * 7919 + n * 31_337) % MARKERS)))
    };
    let entries: Vec<Subject> = (0..ENTRIES)
        .map(|at| Subject::of(format!("report:{at}"), &tags(at)))
        .collect();
    let now = Clock::system().now();
    let (epoch, until, checked) = (AtomicU64::new(7), AtomicU64::new(u64::MAX), 7_u64);
    let floor = measure(&mut group, "floor: two loads", || {
        let until = black_box(&until).load(Ordering::Acquire);
        let epoch = black_box(&epoch).load(Ordering::Acquire);
        black_box(black_box(now).as_nanos() < until && black_box(checked) == epoch);
    });
    let (hot, subject) = (Checked::at(born), &entries[0]);
    let seen = measure(&mut group, "nothing changed", || {
        let verdict = black_box(&journal).judge(born, black_box(&hot), subject, black_box(now));
        assert!(verdict == Verdict::Fresh);
    });
    println!("check of a hot hit: {seen:.2} ns, floor {floor:.2} ns");
    note("check of a hot hit, nothing changed", seen, 3.0, "ns");
    // Something else was invalidated since, so every entry has to be judged.
    invalidate(&journal, Marker::key("something else"));
    let mut at = 0;
    let seen = measure(&mut group, "100k markers, 4 tags", || {
        at = (at + 1) % entries.len();
        let verdict = journal.judge(born, &Checked::at(born), &entries[at], now);
        assert!(verdict == Verdict::Fresh);
    });
    note(
        "the same, 100k markers and 4 tags to check again",
        seen,
        500.0,
        "ns",
    );
    group.finish();
}

/// The pattern of a number, and a key that only the pattern of its number matches.
type Shape = (&'static str, fn(u64) -> String, fn(u64) -> String);

const SHAPES: [Shape; 4] = [
    (
        "segments",
        |at| format!("report:*:{at}:*"),
        |at| format!("report:acme:{at}:summary.pdf"),
    ),
    (
        "begins",
        |at| format!("/users/{at:06}*"),
        |at| format!("/users/{at:06}/orders/7"),
    ),
    (
        "ends",
        |at| format!("*-{at:06}.json"),
        |at| format!("/exports/daily-{at:06}.json"),
    ),
    (
        "anywhere",
        |at| format!("*x{at:06}y*"),
        |at| format!("/a/bx{at:06}yc/list?page=2"),
    ),
];

pub(crate) fn patterns(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal/patterns");
    let now = Clock::system().now();
    for (shape, text, key) in SHAPES {
        let journal = journal();
        let born = Stamp::stored(journal.position().inc, 0);
        let entries: Vec<Subject> = (PATTERNS..PATTERNS + ENTRIES)
            .map(|at| Subject::of(key(at), &[]))
            .collect();
        let judge = |entry: &Subject| {
            let verdict = journal.judge(born, &Checked::at(born), entry, now);
            assert!(verdict == Verdict::Fresh, "{}", entry.key());
        };
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % entries.len();
            judge(&entries[at]);
        };
        invalidate(&journal, Marker::key("something else"));
        let without = nanos(&mut next);
        (0..PATTERNS).for_each(|at| invalidate(&journal, pattern(&text(at))));
        let seen = measure(&mut group, shape, &mut next);
        // Such an entry is computed anew, beside which this is nothing.
        let named: Vec<Subject> = (0..ENTRIES)
            .map(|at| Subject::of(key(at * 10), &[]))
            .collect();
        let mut at = 0;
        let gone = nanos(|| {
            at = (at + 1) % named.len();
            let verdict = journal.judge(born, &Checked::at(born), &named[at], now);
            assert!(verdict == Verdict::Gone);
        });
        let list: Vec<Pattern> = (0..PATTERNS)
            .map(|at| Pattern::parse(&text(at)).expect("a pattern"))
            .collect();
        let begun = Instant::now();
        for entry in entries.iter().take(20) {
            assert!(!list.iter().any(|pattern| pattern.matches(entry.key())));
        }
        let linear = begun.elapsed().as_nanos() as f64 / 20.0;
        println!(
            "{shape}: {seen:.0} ns, {without:.0} ns of it without patterns, {gone:.0} ns where one matches; a list takes {linear:.0} ns, {:.0} times as long",
            linear / seen
        );
        note(
            format!("check against 100k patterns, {shape}"),
            seen,
            200.0,
            "ns",
        );
    }
    group.finish();
}

pub(crate) fn journal() -> Journal {
    let config = JournalConfig {
        markers_max: 1 << 20,
        patterns_max: 1 << 17,
        ..JournalConfig::default()
    };
    Journal::new(&config, Events::none()).expect("settings")
}

pub(crate) fn invalidate(journal: &Journal, marker: Marker) {
    let done = journal.append([marker]).now();
    assert!(matches!(done, Some(Ok(_))), "alone, it is done at once");
}

pub(crate) fn pattern(text: &str) -> Marker {
    Marker::pattern(Pattern::parse(text).expect("a pattern"))
}
