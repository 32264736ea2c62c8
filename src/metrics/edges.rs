//! The upper limits of the buckets in which durations are shown.
//!
//! A limit is written as Go writes a float that is told to be one (`3.0`, not `3`), in both formats alike. It is a
//! label's value: written differently it would be another series, and Prometheus before version 3 takes
//! `le="3"` for one.

/// A bucket's upper limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Edge {
    pub(crate) nanos: u64,
    /// The same in seconds, as it is written.
    pub(crate) le: &'static str,
}

const fn micros(micros: u64, le: &'static str) -> Edge {
    let nanos = micros * 1_000;
    Edge { nanos, le }
}

const fn millis(millis: u64, le: &'static str) -> Edge {
    micros(millis * 1_000, le)
}

/// Those of this crate, chosen for what it promises. What memory answers takes microseconds: 10 µs tells such
/// answers from all others, 100 µs still excuses them on a busy core. 1 s is where a request counts as slow by
/// default, and 3 s where the alert fires, so that a rule can ask for exactly that.
pub(crate) const EDGES: &[Edge] = &[
    micros(10, "1e-05"),
    micros(100, "0.0001"),
    micros(500, "0.0005"),
    millis(1, "0.001"),
    micros(2_500, "0.0025"),
    millis(5, "0.005"),
    millis(10, "0.01"),
    millis(25, "0.025"),
    millis(50, "0.05"),
    millis(100, "0.1"),
    millis(250, "0.25"),
    millis(500, "0.5"),
    millis(1_000, "1.0"),
    millis(3_000, "3.0"),
    millis(10_000, "10.0"),
    millis(30_000, "30.0"),
];

/// Those that OpenTelemetry advises for HTTP, and no other: a sum over services whose buckets differ is wrong.
pub(crate) const OPEN_TELEMETRY_EDGES: &[Edge] = &[
    millis(5, "0.005"),
    millis(10, "0.01"),
    millis(25, "0.025"),
    millis(50, "0.05"),
    millis(75, "0.075"),
    millis(100, "0.1"),
    millis(250, "0.25"),
    millis(500, "0.5"),
    millis(750, "0.75"),
    millis(1_000, "1.0"),
    millis(2_500, "2.5"),
    millis(5_000, "5.0"),
    millis(7_500, "7.5"),
    millis(10_000, "10.0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_rise_and_are_written_as_what_they_are() {
        for edges in [EDGES, OPEN_TELEMETRY_EDGES] {
            assert!(edges.windows(2).all(|pair| pair[0].nanos < pair[1].nanos));
            for edge in edges {
                let seconds: f64 = edge.le.parse().unwrap();
                assert_eq!((seconds * 1e9).round() as u64, edge.nanos, "{}", edge.le);
                assert!(edge.le.contains(['.', 'e']), "{} is no float", edge.le);
            }
        }
    }

    #[test]
    fn the_thresholds_of_the_alerts_are_edges() {
        for seconds in [1, 3] {
            let nanos = seconds * 1_000_000_000;
            assert!(EDGES.iter().any(|edge| edge.nanos == nanos));
        }
    }
}
