//! Whose requests they are: addresses in the order in which they come.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::traffic::{SEED, SplitMix};

/// As many different keys as the largest cases have.
pub(crate) const MILLION: usize = 1 << 20;

/// How many of these cases' keys there are and how they are drawn.
#[derive(Clone, Copy)]
pub(crate) enum Spread {
    /// The same key over and over.
    One,
    /// 10,000 keys, each as likely as any other.
    TenThousand,
    /// A million keys, each once in a turn and in no order.
    Million,
    /// A million keys by Zipf's law with exponent 1, of which some 227,000 come at all.
    MillionZipf,
}

impl Spread {
    pub(crate) const ALL: [Self; 4] = [
        Self::One,
        Self::TenThousand,
        Self::Million,
        Self::MillionZipf,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::TenThousand => "10k",
            Self::Million => "1m",
            Self::MillionZipf => "1m_zipf",
        }
    }

    /// How many different keys may come.
    pub(crate) const fn keys(self) -> usize {
        match self {
            Self::One => 1,
            Self::TenThousand => 10_000,
            Self::Million | Self::MillionZipf => MILLION,
        }
    }

    /// The keys of one turn, in order: the same ones every time.
    pub(crate) fn turn(self) -> Vec<IpAddr> {
        let mut random = SplitMix(SEED);
        let order: Vec<usize> = match self {
            Self::One => vec![0; 1 << 18],
            Self::TenThousand => (0..1 << 18).map(|_| random.below(10_000)).collect(),
            Self::Million => shuffled(MILLION, &mut random),
            Self::MillionZipf => zipf(MILLION, &mut random),
        };
        order.into_iter().map(address).collect()
    }

    /// The same as peers of connections.
    pub(crate) fn peers(self) -> Arc<[SocketAddr]> {
        let turn = self.turn().into_iter();
        turn.map(|ip| SocketAddr::new(ip, 50_000)).collect()
    }
}

/// A public address for each number below 2^24, in no order.
pub(crate) fn address(number: usize) -> IpAddr {
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1) & 0x00ff_ffff;
    IpAddr::V4(Ipv4Addr::from_bits(45 << 24 | mixed))
}

fn shuffled(count: usize, random: &mut SplitMix) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for at in (1..count).rev() {
        order.swap(at, random.below(at + 1));
    }
    order
}

fn zipf(count: usize, random: &mut SplitMix) -> Vec<usize> {
    let mut sum = 0.0;
    let shares = (1..=count).map(|rank| {
        sum += 1.0 / rank as f64;
        sum
    });
    let shares: Vec<f64> = shares.collect();
    let draw = |_| {
        let target = random.share() * sum;
        shares
            .partition_point(|below| *below <= target)
            .min(count - 1)
    };
    (0..count).map(draw).collect()
}
