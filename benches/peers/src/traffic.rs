//! The requests: the same ones, in the same order, for every contender of a case.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::header::{ACCEPT, ACCEPT_ENCODING, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::Failure;

/// An endless sequence of GET requests with four fields. A clone begins at the same place.
#[derive(Clone)]
pub(crate) struct Traffic {
    uris: Arc<[Uri]>,
    /// Which of them comes when; begins anew at its end.
    order: Arc<[u32]>,
    at: usize,
    headers: HeaderMap,
    /// Who sends them, one after the other and then from the first again; nobody knows if empty.
    clients: Arc<[SocketAddr]>,
    client: usize,
}

impl Traffic {
    /// As many different requests as `keys`, the popular ones far more often: Zipf's law with exponent
    /// 0.99, as in YCSB and most papers on caches.
    pub(crate) fn zipf(keys: u32) -> Result<Self, Failure> {
        let mut shares = Vec::new();
        let mut sum = 0.0;
        for rank in 1..=keys {
            sum += f64::from(rank).powf(-0.99);
            shares.push(sum);
        }
        let mut random = SplitMix(SEED);
        let mut draw = || {
            let target = random.share() * sum;
            let rank = shares.partition_point(|below| *below <= target);
            let rank = u64::try_from(rank).unwrap_or(0).min(u64::from(keys) - 1);
            // The popular are spread over all keys, lest they lie side by side in somebody's memory.
            // A prime that is no divisor of the number of keys gives every rank a key of its own.
            u32::try_from(rank * SPREAD % u64::from(keys)).unwrap_or(0)
        };
        let order = (0..DRAWS).map(|_| draw()).collect();
        Self::over(keys, order)
    }

    /// Every key once, and only then the first one again.
    pub(crate) fn each_once(keys: u32) -> Result<Self, Failure> {
        Self::over(keys, (0..keys).collect())
    }

    /// One address, asked for by these clients in turn, whom the server has told by their peer's address.
    pub(crate) fn from_clients(clients: Arc<[SocketAddr]>) -> Result<Self, Failure> {
        let traffic = Self::each_once(1)?;
        Ok(Self { clients, ..traffic })
    }

    /// The number of what is asked for next, for contenders that are asked without a request.
    pub(crate) fn draw(&mut self) -> usize {
        let number = self.order[self.at] as usize;
        self.at = (self.at + 1) % self.order.len();
        number
    }

    fn over(keys: u32, order: Arc<[u32]>) -> Result<Self, Failure> {
        let uri = |key: u32| format!("/items/{key:08}").parse::<Uri>();
        let uris = (0..keys).map(uri).collect::<Result<Arc<[_]>, _>>()?;
        // The first clone of a `Bytes` made from a `Vec` allocates its count, and whoever has the first
        // turn would pay for all.
        uris.iter().for_each(|uri| drop(uri.clone()));
        let mut headers = HeaderMap::with_capacity(4);
        for (name, value) in [
            (HOST, "shop.example"),
            (USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
            (ACCEPT, "application/json, text/html;q=0.9, */*;q=0.8"),
            (ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Ok(Self {
            uris,
            order,
            at: 0,
            headers,
            clients: Arc::default(),
            client: 0,
        })
    }

    /// How many different requests there are.
    pub(crate) fn keys(&self) -> usize {
        self.uris.len()
    }

    /// The next request. Its address was parsed before: parsing is the server's work and not a layer's.
    #[inline]
    pub(crate) fn next(&mut self) -> Request<Body> {
        let key = self.order[self.at] as usize;
        self.at += 1;
        if self.at == self.order.len() {
            self.at = 0;
        }
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.uris[key].clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(client) = self.clients.get(self.client) {
            request.extensions_mut().insert(ConnectInfo(*client));
            self.client += 1;
            if self.client == self.clients.len() {
                self.client = 0;
            }
        }
        request
    }
}

pub(crate) const SEED: u64 = 20_261_120;
const SPREAD: u64 = 7_919;
/// Longer than a batch, so that two batches in a row are different ones.
const DRAWS: usize = 200_003;

/// Steele, Lea and Flood's SplitMix64: fixed numbers on every machine, in four lines.
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// From 0 to 1, without 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to `bound`, without `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (u128::from(self.next()) * bound as u128 >> 64) as usize
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
