//! Random lives of a cache against a reference that remembers everything.
//!
//! The origin keeps a version per URL and variant. Whatever requests, changes, invalidations and leaps of
//! the clock come in whatever order, an answer must be of the right URL and variant, must not be older
//! than the directives allow, and must not be from before an invalidation that was acknowledged. Of a part
//! each byte must be that of the version that its tag names, however it was cut and joined.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use tower_keep::cache::CacheTags;
use tower_keep::journal::Marker;
use tower_keep::journal::Receipt;

use crate::cache_room::{
    Cached, Content, Room, Seen, answer, ask, empty, request, room_with, text,
};

const LIFETIME: u64 = 60;
/// How long each content is.
const LEN: usize = 24;
/// What each URL says of itself: its lifetime line and how long past its life it may be served.
const URLS: [(&str, &str, u64); 5] = [
    ("/plain", "max-age=60", 0),
    ("/swr", "max-age=60, stale-while-revalidate=30", 30),
    ("/sie", "max-age=60, stale-if-error=40", 40),
    ("/strict", "max-age=60, must-revalidate", 0),
    ("/asked", "max-age=60, no-cache", 0),
];

#[derive(Clone, Copy, Debug)]
struct Ask {
    url: usize,
    variant: usize,
    head: bool,
    range: Option<(usize, usize)>,
    directives: Directives,
    knows: bool,
    cookie: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Directives {
    None,
    NoCache,
    NoStore,
    MaxAge(u64),
    MinFresh(u64),
    MaxStale(u64),
    OnlyIfCached,
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Ask),
    /// The origin changes; nobody tells the cache.
    Change {
        url: usize,
    },
    /// The origin changes through a request that the cache sees.
    Put {
        url: usize,
    },
    /// The same, and the answer is what a GET would be sent.
    Post {
        url: usize,
        variant: usize,
    },
    Invalidate {
        url: usize,
        how: usize,
    },
    Pass {
        secs: u64,
    },
    Fail {
        failing: bool,
    },
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let url = 0..URLS.len();
    let directives = prop_oneof![
        6 => Just(Directives::None),
        1 => Just(Directives::NoCache),
        1 => Just(Directives::NoStore),
        1 => (0u64..100).prop_map(Directives::MaxAge),
        1 => (0u64..70).prop_map(Directives::MinFresh),
        1 => (0u64..50).prop_map(Directives::MaxStale),
        1 => Just(Directives::OnlyIfCached),
    ];
    // Mostly such as touch each other.
    let range = prop_oneof![
        4 => Just(None),
        3 => (0usize..4, 1usize..3).prop_map(|(at, parts)| Some((at * 6, at * 6 + parts * 6 - 1))),
        1 => (0usize..28, 0usize..12).prop_map(|(first, more)| Some((first, first + more))),
    ];
    let ask = (
        (url.clone(), 0usize..3, range),
        any::<(bool, bool)>(),
        directives,
        0u8..6,
    );
    prop_oneof![
        12 => ask.prop_map(|((url, variant, range), (head, knows), directives, cookie)| {
            let (head, cookie) = (head && knows, cookie == 0);
            Step::Ask(Ask { url, variant, head, range, directives, knows, cookie })
        }),
        2 => url.clone().prop_map(|url| Step::Change { url }),
        1 => url.clone().prop_map(|url| Step::Put { url }),
        1 => (url.clone(), 0usize..3).prop_map(|(url, variant)| Step::Post { url, variant }),
        2 => (url, 0usize..4).prop_map(|(url, how)| Step::Invalidate { url, how }),
        4 => prop_oneof![0u64..10, 25u64..35, 55u64..65, 85u64..110]
            .prop_map(|secs| Step::Pass { secs }),
        1 => any::<bool>().prop_map(|failing| Step::Fail { failing }),
        1 => Just(Step::Clear),
    ]
}

/// One page in one or two variants, asked for in parts: what is joined is joined here.
fn step_of_parts() -> impl Strategy<Value = Step> {
    let variant = prop_oneof![5 => Just(0usize), 1 => Just(1)];
    let range = (0usize..4, 1usize..3).prop_map(|(at, parts)| (at * 6, at * 6 + parts * 6 - 1));
    let range = prop_oneof![4 => range.prop_map(Some), 1 => Just(None)];
    let ask = (variant.clone(), range, 0u8..20);
    prop_oneof![
        12 => ask.prop_map(|(variant, range, rare)| Step::Ask(Ask {
            url: 0,
            variant,
            head: rare == 0,
            range,
            directives: if rare == 1 { Directives::NoCache } else { Directives::None },
            knows: false,
            cookie: rare == 2,
        })),
        2 => Just(Step::Change { url: 0 }),
        1 => Just(Step::Put { url: 0 }),
        1 => variant.prop_map(|variant| Step::Post { url: 0, variant }),
        1 => (0usize..4).prop_map(|how| Step::Invalidate { url: 0, how }),
        1 => prop_oneof![0u64..10, 55u64..65].prop_map(|secs| Step::Pass { secs }),
    ]
}

/// Everything that ever was.
#[derive(Default)]
struct Origin {
    now: u64,
    failing: bool,
    /// Per URL: when each version became current.
    versions: [Vec<u64>; URLS.len()],
    /// Per URL: the version that was current at the last acknowledged invalidation.
    least: [usize; URLS.len()],
}

impl Origin {
    fn current(&self, url: usize) -> usize {
        self.versions[url].len()
    }

    /// When `version` of `url` ceased to be current; `None` if it is.
    fn ended(&self, url: usize, version: usize) -> Option<u64> {
        self.versions[url].get(version).copied()
    }
}

/// Bytes that no two tags have in common for long.
fn content(tag: &str) -> String {
    let mut state = tag.bytes().fold(7_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let letters = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    });
    letters.take(LEN).collect()
}

fn service(room: &Room, origin: &Arc<Mutex<Origin>>) -> Cached {
    let origin = Arc::clone(origin);
    room.answering(move |request| {
        let mut origin = origin.lock().unwrap();
        let url = URLS
            .iter()
            .position(|(path, ..)| *path == request.uri().path())
            .unwrap();
        if matches!(request.method().as_str(), "PUT" | "POST") {
            let now = origin.now;
            origin.versions[url].push(now);
        }
        if request.method() == "PUT" {
            return answer(&[], empty());
        }
        if origin.failing && request.method() != "POST" {
            let mut failed = answer(&[], empty());
            *failed.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return failed;
        }
        let variant = request
            .headers()
            .get("x-variant")
            .map_or("", |v| v.to_str().unwrap());
        let name = format!("{url} {variant} {}", origin.current(url));
        let cookie = request.headers().contains_key("cookie");
        let name = if cookie { format!("{name} hers") } else { name };
        let mut response = page(request, url, &name);
        response
            .extensions_mut()
            .insert(CacheTags::new([format!("tag{url}")]));
        response
    })
}

/// What the origin answers with the page of this name.
fn page(request: &Request<()>, url: usize, name: &str) -> Response<Content> {
    let tag = format!("\"{name}\"");
    let mut fields = vec![
        ("cache-control", URLS[url].1),
        ("etag", &tag),
        ("vary", "x-variant"),
    ];
    if request.method() == "POST" {
        fields.push(("content-location", URLS[url].0));
    }
    let asked = request.headers();
    if asked
        .get("if-none-match")
        .is_some_and(|known| *known == *tag)
    {
        let mut response = answer(&fields, empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    if request.method() == "HEAD" {
        return answer(&fields, empty());
    }
    // Some services know ranges, and some do not.
    let range = asked.get("range").filter(|_| url.is_multiple_of(2));
    let Some((first, last)) = range.map(|range| span(range.to_str().unwrap())) else {
        return text(&fields, content(name));
    };
    if first >= LEN {
        let mut response = answer(&[("content-range", "bytes */24")], empty());
        *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
        return response;
    }
    let last = last.min(LEN - 1);
    let range = format!("bytes {first}-{last}/{LEN}");
    fields.push(("content-range", &range));
    let mut response = text(&fields, content(name)[first..=last].to_owned());
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    response
}

/// The ends of `bytes=first-last` or `bytes first-last/length`.
fn span(text: &str) -> (usize, usize) {
    let text = text.trim_start_matches("bytes").split('/').next().unwrap();
    let (first, last) = text[1..].split_once('-').unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

/// How old, in whole seconds, the directives and the URL's own terms let an answer be that was not
/// fetched now. A lifetime of a minute ends before its sixtieth second is over.
fn oldest_allowed(ask: &Ask, failing: bool) -> u64 {
    let (path, _, more) = URLS[ask.url];
    let fresh = LIFETIME - 1;
    let own = match path {
        "/swr" => fresh + more,
        "/sie" if failing => fresh + more,
        "/asked" => 0,
        _ => fresh,
    };
    let strict = matches!(path, "/strict" | "/asked");
    match ask.directives {
        Directives::MaxStale(accepted) if !strict => own.max(LIFETIME + accepted),
        // Staleness on error is the origin's leave, above what the client prefers.
        _ if failing && path == "/sie" => own,
        Directives::NoCache | Directives::NoStore => 0,
        Directives::MaxAge(limit) => own.min(limit).min(fresh),
        Directives::MinFresh(wish) => LIFETIME.saturating_sub(wish).min(fresh),
        _ => own,
    }
}

async fn live(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let room = room_with(|config| config.variants_max = 2);
    let origin = Arc::new(Mutex::new(Origin::default()));
    let service = service(&room, &origin);
    let mut last = room.cache.journal().position();
    for step in steps {
        match step {
            Step::Ask(ask) => check(&service, &origin, ask).await?,
            Step::Change { url } => {
                let mut origin = origin.lock().unwrap();
                let now = origin.now;
                origin.versions[url].push(now);
            }
            Step::Put { url } => {
                ask_put(&service, url).await;
                let mut origin = origin.lock().unwrap();
                origin.least[url] = origin.current(url);
            }
            Step::Post { url, variant } => {
                let fields = [("x-variant", &*variant.to_string())];
                ask(&service, request("POST", URLS[url].0, &fields)).await;
                let mut origin = origin.lock().unwrap();
                origin.least[url] = origin.current(url);
            }
            Step::Invalidate { url, how } => {
                let appending = room.cache.journal().append([match how {
                    0 => Marker::key(URLS[url].0),
                    1 => Marker::tag(URLS[url].0),
                    2 => Marker::tag(&format!("tag{url}")),
                    _ => Marker::pattern(
                        tower_keep::pattern::Pattern::parse(&format!("{}*", URLS[url].0)).unwrap(),
                    ),
                }]);
                let Receipt(receipt) = appending.now().unwrap().unwrap();
                prop_assert!(receipt.seq > last.seq);
                last = receipt;
                let mut origin = origin.lock().unwrap();
                origin.least[url] = origin.current(url);
            }
            Step::Pass { secs } => {
                room.hand.advance(Duration::from_secs(secs));
                origin.lock().unwrap().now += secs;
            }
            Step::Fail { failing } => origin.lock().unwrap().failing = failing,
            Step::Clear => room.cache.clear(),
        }
        while room.tasks.spawner().running() > 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

async fn ask_put(service: &Cached, url: usize) {
    ask(service, request("PUT", URLS[url].0, &[])).await;
}

async fn check(
    service: &Cached,
    origin: &Arc<Mutex<Origin>>,
    asked: Ask,
) -> Result<(), TestCaseError> {
    let calls = service.inner().calls();
    let seen = put_the_question(service, asked).await;
    let failing = origin.lock().unwrap().failing;
    match seen.status {
        StatusCode::GATEWAY_TIMEOUT => {
            prop_assert_eq!(asked.directives, Directives::OnlyIfCached);
            return Ok(());
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let beyond = asked.range.is_some_and(|(first, _)| first >= LEN);
            prop_assert!(beyond && !asked.head, "refuses {asked:?}");
            prop_assert_eq!(seen.field("content-range"), "bytes */24");
            return Ok(());
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            prop_assert!(failing, "invents an error");
            return Ok(());
        }
        _ => {}
    }
    if asked.directives == Directives::OnlyIfCached {
        let refreshes = usize::from(seen.said().contains("while-revalidate"));
        let most = calls + refreshes;
        prop_assert!(service.inner().calls() <= most, "asked all the same");
    }
    let version = identify(asked, &seen)?;
    let origin = origin.lock().unwrap();
    let least = origin.least[asked.url];
    prop_assert!(version >= least, "from before an acknowledged invalidation");
    if let Some(ended) = origin.ended(asked.url, version) {
        // It was current until `ended`, so it was fetched then at the latest.
        let age: u64 = seen.field("age").parse().unwrap_or(0);
        prop_assert!(
            origin.now - ended <= age,
            "claims to be younger than it can be"
        );
        let oldest = oldest_allowed(&asked, failing);
        prop_assert!(
            age <= oldest,
            "{age} s, allowed {oldest}: {asked:?} {}",
            seen.said()
        );
    }
    Ok(())
}

async fn put_the_question(service: &Cached, asked: Ask) -> Seen {
    let Ask { url, variant, .. } = asked;
    let variant_text = variant.to_string();
    let mut fields = vec![("x-variant", variant_text.as_str())];
    let line = match asked.directives {
        Directives::None => String::new(),
        Directives::NoCache => "no-cache".into(),
        Directives::NoStore => "no-store".into(),
        Directives::MaxAge(secs) => format!("max-age={secs}"),
        Directives::MinFresh(secs) => format!("min-fresh={secs}"),
        Directives::MaxStale(secs) => format!("max-stale={secs}"),
        Directives::OnlyIfCached => "only-if-cached".into(),
    };
    if !line.is_empty() {
        fields.push(("cache-control", &line));
    }
    let known = format!("\"{url} {variant} 0\"");
    if asked.knows {
        fields.push(("if-none-match", &known));
    }
    if asked.cookie {
        fields.push(("cookie", "a=1"));
    }
    let range = asked
        .range
        .map(|(first, last)| format!("bytes={first}-{last}"));
    fields.extend(range.as_deref().map(|range| ("range", range)));
    let method = if asked.head { "HEAD" } else { "GET" };
    ask(service, request(method, URLS[url].0, &fields)).await
}

/// Which version it is, by its tag, after making sure that it is of the right URL and variant and says
/// what it must.
fn identify(asked: Ask, seen: &Seen) -> Result<usize, TestCaseError> {
    let Ask { url, variant, .. } = asked;
    let tag = seen.field("etag").trim_matches('"').to_owned();
    let parts: Vec<&str> = tag.split(' ').collect();
    prop_assert_eq!(parts[0], url.to_string(), "another URL's");
    prop_assert_eq!(parts[1], variant.to_string(), "another variant's");
    let version: usize = parts[2].parse().unwrap();
    let hers = parts.len() == 4;
    // `must-revalidate` lets the cache share what was asked for with credentials.
    let shared = URLS[url].0 == "/strict";
    prop_assert!(hers == asked.cookie || shared, "somebody else's: {tag}");
    if seen.status == StatusCode::NOT_MODIFIED {
        let has = asked.knows && version == 0 && !hers;
        prop_assert!(has, "304 for what the client does not have");
        return Ok(version);
    }
    let said = seen.said();
    let stored = said.starts_with("hit") || said.contains("304") || said.contains("detail");
    prop_assert!(
        !(asked.knows && version == 0 && !hers && stored),
        "the client has it: {said}"
    );
    let whole = content(&tag);
    let expected = match seen.status {
        _ if asked.head => "",
        StatusCode::PARTIAL_CONTENT => {
            let (first, last) = span(seen.field("content-range"));
            let asked = asked.range.map(|(first, last)| (first, last.min(LEN - 1)));
            prop_assert_eq!(asked, Some((first, last)), "another part");
            &whole[first..=last]
        }
        status => {
            prop_assert_eq!(status, StatusCode::OK);
            &whole
        }
    };
    prop_assert_eq!(seen.text(), expected, "{}", said);
    Ok(version)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_life_makes_the_cache_serve_what_it_must_not(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(steps))?;
    }

    #[test]
    fn no_life_makes_one_part_of_two_versions(
        steps in prop::collection::vec(step_of_parts(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(steps))?;
    }
}
