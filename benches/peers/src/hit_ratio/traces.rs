//! Reads the traces.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::GzDecoder;
use foldhash::fast::FixedState;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use crate::Failure;
use crate::hit_ratio::caches::Room;

/// What was asked for, in order.
pub(crate) struct Trace {
    pub(crate) name: String,
    /// Keys, numbered as they first came.
    pub(crate) requests: Vec<u32>,
    /// The size of each key's answer, as it first was; of one where there are no sizes.
    sizes: Vec<u64>,
}

impl Trace {
    pub(crate) fn size(&self, key: u32) -> u64 {
        self.sizes[key as usize]
    }

    /// The same requests for answers of other sizes.
    pub(crate) fn with_sizes(self, size: impl Fn(u32) -> u64) -> Self {
        let sizes = (0..self.sizes.len() as u32).map(size).collect();
        Self { sizes, ..self }
    }

    pub(crate) fn keys(&self) -> usize {
        self.sizes.len()
    }

    /// Room for so much of what is asked for.
    pub(crate) fn room(&self, percent: u64) -> Room {
        let share = |whole: u64| (whole * percent / 100).max(1);
        Room {
            weight: share(self.sizes.iter().sum()),
            items: share(self.keys() as u64) as usize,
            is_sized: self.sizes.iter().any(|size| *size > 1),
        }
    }

    fn of<K: Eq + Hash>(name: &str, requests: impl IntoIterator<Item = (K, u64)>) -> Self {
        let mut numbers = HashMap::with_hasher(FixedState::default());
        let mut sizes = Vec::new();
        let requests = requests.into_iter().map(|(key, size)| {
            let next = sizes.len() as u32;
            let number = *numbers.entry(key).or_insert(next);
            if number == next {
                sizes.push(size);
            }
            number
        });
        Self {
            requests: requests.collect(),
            name: name.to_owned(),
            sizes,
        }
    }
}

/// Those whose answers are all alike.
pub(crate) fn unsized_(folder: &Path) -> Result<Vec<Trace>, Failure> {
    let mut traces = Vec::new();
    let bytes = unpacked(folder, "web07.trace.xz")?;
    let keys = bytes.as_chunks::<4>().0.iter();
    traces.push(Trace::of(
        "web07",
        keys.map(|key| (i32::from_be_bytes(*key), 1)),
    ));
    for name in ["multi3", "sprite", "2_pools"] {
        let text = text(folder, &format!("{name}.trace.gz"))?;
        let keys = text
            .lines()
            .filter_map(|line| line.trim().parse::<u64>().ok());
        traces.push(Trace::of(name, keys.map(|key| (key, 1))));
    }
    let text = text(folder, "P3.lis.zst")?;
    let runs = text.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let mut number = || fields.next()?.parse::<u64>().ok();
        Some((number()?, number()?))
    });
    let keys = runs.flat_map(|(start, count)| start..start + count);
    traces.push(Trace::of("P3", keys.map(|key| (key, 1))));
    Ok(traces)
}

/// The one whose answers differ in size.
pub(crate) fn sized(folder: &Path) -> Result<Trace, Failure> {
    let text = text(folder, "request.trace.xz")?;
    let requests = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        Some((fields.next()?, fields.next()?.parse().ok()?))
    });
    Ok(Trace::of("request", requests))
}

fn text(folder: &Path, name: &str) -> Result<String, Failure> {
    Ok(String::from_utf8(unpacked(folder, name)?)?)
}

fn unpacked(folder: &Path, name: &str) -> Result<Vec<u8>, Failure> {
    let path = folder.join(name);
    let file = File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let packed = BufReader::new(file);
    let mut bytes = Vec::new();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("gz") => GzDecoder::new(packed).read_to_end(&mut bytes)?,
        Some("xz") => XzReader::new(packed, true).read_to_end(&mut bytes)?,
        _ => StreamingDecoder::new(packed)?.read_to_end(&mut bytes)?,
    };
    Ok(bytes)
}
