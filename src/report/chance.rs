//! Whether chance alone explains that one share is larger than another.
//!
//! Fisher's exact test: so many hits have come to two sides in all, each as likely as the other; how often are so many
//! or more of them on this side? That needs no guess of the share itself, and holds for sides of any size: a normal
//! approximation takes one error of a hundred for much where the other side had 90 of 100,000.

use std::f64::consts::TAU;

/// A bound from above for the chance that `one` has so many or more hits of those that both have. Each side is hits and
/// trials; more hits than trials count as as many.
///
/// It is exact where few hits are expected, and at three standard deviations of many by a tenth too large.
pub(crate) fn of_as_many(one: (u64, u64), other: (u64, u64)) -> f64 {
    let [(x, n), (y, m)] =
        [one, other].map(|(hits, trials)| (hits.min(trials) as f64, trials as f64));
    // What one more on this side is less likely by, which goes down from one to the next. So the whole tail is at most
    // a geometric series.
    let next = y * (n - x) / ((x + 1.0) * (m - y + 1.0));
    if next >= 1.0 {
        return 1.0;
    }
    let here = ln_choices(n, x) + ln_choices(m, y) - ln_choices(n + m, x + y);
    (here.exp() / (1.0 - next)).min(1.0)
}

/// The logarithm of the number of ways to choose `k` of `n`.
fn ln_choices(n: f64, k: f64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// By Stirling's series, which is right to twelve places from 16 on.
fn ln_factorial(n: f64) -> f64 {
    if n < 16.0 {
        return (2..=n as u32).map(|k| f64::from(k).ln()).sum();
    }
    let more = 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3)) + 1.0 / (1260.0 * n.powi(5));
    n * n.ln() - n + (TAU * n).ln() / 2.0 + more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_are_what_they_are_by_multiplication() {
        let mut sum = 0.0;
        for n in 1..=2000_u32 {
            sum += f64::from(n).ln();
            let far = (ln_factorial(f64::from(n)) - sum).abs();
            assert!(far < 1e-11 * sum.max(1.0), "{n}: {far}");
        }
        assert_eq!(ln_factorial(0.0), 0.0);
    }

    /// Beside the sum of the whole tail, each term of which comes from the one before.
    #[test]
    fn it_is_at_most_a_little_above_the_chance() {
        for (n, m, all, from, above) in [
            (10_u64, 10_u64, 10_u64, 6_u64, 1.3),
            (100, 100_000, 91, 1, 1.1),
            (100, 100_000, 91, 3, 1.001),
            (1000, 1000, 40, 30, 1.05),
            (100_000, 100_000, 100_000, 50_500, 1.15),
        ] {
            let (mut term, mut sum, mut tail) = (1.0_f64, 0.0, 0.0);
            let least = all.saturating_sub(m);
            for x in least..=all.min(n) {
                sum += term;
                if x >= from {
                    tail += term;
                }
                let (x, y) = (x as f64, (all - x) as f64);
                term *= y * (n as f64 - x) / ((x + 1.0) * (m as f64 - y + 1.0));
                if term > 1e200 {
                    (term, sum, tail) = (term / 1e200, sum / 1e200, tail / 1e200);
                }
            }
            let (chance, bound) = (tail / sum, of_as_many((from, n), (all - from, m)));
            assert!(
                (0.999_999..above).contains(&(bound / chance)),
                "{from} of {n} and {} of {m}: {chance} {bound}",
                all - from
            );
        }
    }

    #[test]
    fn odd_counts_have_a_chance_as_well() {
        for (one, other) in [
            ((0, 0), (0, 0)),
            ((7, 3), (0, 3)),
            ((0, 100), (100, 100)),
            ((u64::MAX, u64::MAX), (0, u64::MAX)),
            ((u64::MAX, 1), (1, u64::MAX)),
        ] {
            let chance = of_as_many(one, other);
            assert!((0.0..=1.0).contains(&chance), "{one:?} {other:?}: {chance}");
        }
        assert_eq!(of_as_many((0, 100), (0, 100)), 1.0);
    }
}
