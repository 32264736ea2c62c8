//! What has passed each bucket, from which follows what may not have: another way to hold the limiter to its
//! promise than the decisions one by one.

use std::collections::HashMap;

use crate::rate_limit_reference::{Amount, Bucket, Charge};

#[derive(Default)]
pub struct Passed(HashMap<Bucket, Flow>);

/// Of one bucket: when, and what it was worth.
#[derive(Default)]
struct Flow {
    /// The quotas that it was held against.
    amounts: Vec<Amount>,
    taken: Vec<(i128, i128)>,
    given_back: Vec<(i128, i128)>,
}

impl Passed {
    /// Somebody was held against these quotas, whatever came of it.
    pub fn held_against(&mut self, charges: &[Charge]) {
        for charge in charges {
            let flow = self.0.entry(charge.bucket.clone()).or_default();
            if !flow.amounts.contains(&charge.amount) {
                flow.amounts.push(charge.amount);
            }
        }
    }

    pub fn take(&mut self, now: i128, charges: &[Charge]) {
        for charge in charges {
            let flow = self.0.entry(charge.bucket.clone()).or_default();
            flow.taken.push((now, charge.amount.worth(charge.cost)));
        }
    }

    pub fn give_back(&mut self, now: i128, charges: &[Charge]) {
        for charge in charges {
            let flow = self.0.entry(charge.bucket.clone()).or_default();
            flow.given_back
                .push((now, charge.amount.worth(charge.cost)));
        }
    }

    /// Whatever moment one begins to count at.
    pub fn nobody_got_too_much(&self) {
        for (bucket, flow) in &self.0 {
            // Where callers change their plans there is no one number.
            let [amount] = flow.amounts[..] else {
                continue;
            };
            for (at, (from, _)) in flow.taken.iter().enumerate() {
                let mut taken = 0;
                for (until, worth) in &flow.taken[at..] {
                    taken += worth;
                    let back = flow.given_back.iter();
                    let back = back.filter(|(when, _)| (from..=until).contains(&when));
                    let back: i128 = back.map(|(_, worth)| worth).sum();
                    let grown = match amount {
                        Amount::Rolling { .. } => until - from,
                        Amount::Calendar { .. } => 0,
                    };
                    let most = amount.whole() + grown + back;
                    assert!(
                        taken <= most,
                        "{taken} of {most} from {from} to {until}: {bucket:?}"
                    );
                }
            }
        }
    }
}
