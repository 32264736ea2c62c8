//! Changes a page through one instance of a service and reads it through another at once, again and again: is the
//! old value ever served? `examples/service/pair.sh` starts two instances of the example service, which share
//! one Redis and one database, and runs this against them.
//!
//! `cargo run --release --example read_your_writes -- --rounds 10000 http://127.0.0.1:3000 http://127.0.0.1:3001`
//!
//! Each round writes a new name into `/contacts/7` by one of the two, and reads it by both: by the other one
//! first, which has the old page in its memory. Then both are read once more, so that the next round finds
//! the page stored. Whoever is served something else than the last name has met a violation, and the exit
//! code is 1.

use std::error::Error;
use std::process::ExitCode;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tower_keep::clock::Clock;

const PAGE: &str = "/contacts/7";

/// What the rounds came to.
#[derive(Default)]
struct Tally {
    writes: u64,
    reads: u64,
    hits: u64,
    stale: u64,
    /// How long each write took, in µs.
    took: Vec<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (mut rounds, mut sites) = (1_000_u64, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().unwrap_or_default().parse()?,
            site => sites.push(site.trim_end_matches('/').to_owned()),
        }
    }
    let [one, other] = sites.as_slice() else {
        return Err("read_your_writes [--rounds N] URL URL".into());
    };
    let client = Client::builder(TokioExecutor::new()).build_http();
    let (mut tally, clock) = (Tally::default(), Clock::system());
    for round in 0..rounds {
        let (writer, reader) = if round % 2 == 0 {
            (one, other)
        } else {
            (other, one)
        };
        let name = format!("Round {round}");
        let body =
            format!(r#"{{"organization_id":3,"name":"{name}","email":"round@example.com"}}"#);
        let began = clock.now();
        let (status, ..) = ask(&client, Method::PUT, writer, body).await?;
        tally
            .took
            .push(u64::try_from(clock.now().since(began).as_micros())?);
        tally.writes += 1;
        if status != StatusCode::OK {
            return Err(format!("PUT {writer}{PAGE}: {status}").into());
        }
        for site in [reader, writer, reader, writer] {
            let (status, hit, page) = ask(&client, Method::GET, site, String::new()).await?;
            tally.reads += 1;
            tally.hits += u64::from(hit);
            if status != StatusCode::OK || !page.contains(&format!("\"{name}\"")) {
                tally.stale += 1;
                if tally.stale <= 10 {
                    println!("round {round}, {site}: {status} {page}, but {name:?} was written");
                }
            }
        }
    }
    tally.took.sort_unstable();
    let at = |share: usize| {
        tally
            .took
            .get(tally.took.len() * share / 100)
            .copied()
            .unwrap_or(0)
    };
    println!(
        "{} writes, {} reads, {} of them from memory; old values served: {}",
        tally.writes, tally.reads, tally.hits, tally.stale
    );
    println!(
        "a write took {} us at the median, {} at p99",
        at(50),
        at(99)
    );
    // Without hits nothing would have been shown.
    let shown = tally.hits >= tally.writes;
    Ok(if tally.stale == 0 && shown {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sends one request. Returns the status, whether it was answered from memory, and the body.
async fn ask(
    client: &Client<HttpConnector, Full<Bytes>>,
    method: Method,
    site: &str,
    body: String,
) -> Result<(StatusCode, bool, String), Box<dyn Error>> {
    let request = Request::builder()
        .method(method)
        .uri(format!("{site}{PAGE}"))
        .header("content-type", "application/json")
        .body(Full::from(body))?;
    let (head, body) = client.request(request).await?.into_parts();
    let said = head.headers.get("cache-status").map(|said| said.to_str());
    let hit = said.transpose()?.is_some_and(|said| said.contains("; hit"));
    let page = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    Ok((head.status, hit, page))
}
