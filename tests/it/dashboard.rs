//! The dashboard in a real browser: it shows the figures that it is fed, in light and dark and on a phone, by
//! keyboard and by name, and runs nothing that anybody has smuggled into a name. Pictures of it are left in
//! `target/tmp`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_keep::admin::{AdminAuth, AdminService};
use tower_keep::rate_limit::{Quota, Rule};
use tower_keep::tiers::{CacheError, EntryOptions};
use tower_keep::{Keep, Profile};

use crate::browser::Browser;

const TOKEN: &str = "0123456789-of-the-operator";

/// What would run if names were taken for markup.
const SMUGGLED: &str = "<img src=x onerror=\"document.title='owned'\">";

/// A service with traffic, and its dashboard under `/admin`.
struct Site {
    keep: Keep,
    base: String,
    /// Whether streams are refused, as by a proxy that knows none.
    unstreamed: Arc<AtomicBool>,
    /// Whether streams begin and nothing comes, as through a proxy that collects what it should hand on.
    collected: Arc<AtomicBool>,
    /// Whether nothing is answered any more.
    gone: Arc<AtomicBool>,
    _server: JoinSet<()>,
}

fn keep() -> Keep {
    let quota = Quota::requests(40).per(Duration::from_secs(3600));
    Keep::builder(Profile::azure_b1())
        .admin(|admin| admin.token = Some(TOKEN.to_owned()))
        .guard(|guard| guard.memory_budget_bytes = Some(450 << 20))
        .rate_limit(|limits| {
            limits.requests_max = 100_000;
            limits.rules = vec![Rule::new("contacts", quota).route("/contacts/{id}")];
        })
        .build()
        .unwrap()
}

/// The endpoints, with a report and alerts as other rooms tell them.
fn admin(keep: &Keep) -> AdminService {
    let mut sources = keep.admin_sources();
    sources.report = Some(Arc::new(|_| {
        json!({
            "score": 81, "status": "good",
            "penalties": [{"figure": "errors", "points": 19, "reason": "2.6 % of all answers are errors, most of them of /broken"}],
            "recommendations": [
                {"setting": "guard.slots", "now": "64", "proposed": "96", "why": "one in ten waited for a slot"},
                {"setting": SMUGGLED, "now": SMUGGLED, "proposed": SMUGGLED, "why": SMUGGLED},
            ],
        })
    }));
    sources.alerts = Some(Arc::new(|| {
        json!({
            "states": [
                {"rule": "error_rate", "measure": "error_ratio", "route": null, "value": 0.12, "threshold": 0.05,
                 "detail": "error_ratio is 12 %, more than 5 %: look at the slowest", "state": "firing", "severity": "critical", "since_ms": 1_767_225_600_000_u64},
                {"rule": "hit_ratio", "measure": "hit_ratio", "route": null, "value": 0.62, "threshold": 0.7,
                 "detail": "hit_ratio is 62 %, less than 70 %", "state": "pending", "severity": "warning", "since_ms": null},
            ],
            // What was so when it began is not what is so now; and what is amiss again is not over.
            "recent": [
                {"rule": "hit_ratio", "state": "resolved", "severity": "warning", "at_ms": now_ms(), "detail": "over"},
                {"rule": "memory", "state": "resolved", "severity": "warning", "at_ms": now_ms(), "detail": "over"},
                {"rule": "old", "state": "resolved", "severity": "warning", "at_ms": now_ms() - 7_200_000, "detail": "over"},
                {"rule": "error_rate", "state": "firing", "severity": "critical", "at_ms": now_ms(),
                 "detail": "error_ratio is 6 %, more than 5 %: look at the slowest", "advice": "look at the slowest"},
            ],
        })
    }));
    AdminService::new(sources, AdminAuth::new(&keep.config().admin))
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_millis() as u64
}

async fn serve() -> Site {
    let keep = keep();
    let [unstreamed, collected, gone] = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
    let (no_stream, in_vain) = (Arc::clone(&unstreamed), Arc::clone(&collected));
    let away = Arc::clone(&gone);
    let between = move |request: Request, next: Next| {
        let streams = request.uri().path().ends_with("/events");
        let refused = streams && no_stream.load(Ordering::SeqCst);
        let silent = streams && in_vain.load(Ordering::SeqCst);
        let away = Arc::clone(&away);
        async move {
            if silent || away.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            match refused {
                true => StatusCode::BAD_GATEWAY.into_response(),
                false => next.run(request).await,
            }
        }
    };
    let values = keep.cache::<u64>("total");
    let app = Router::new()
        .route("/contacts/{id}", get(async |Path(id): Path<String>| id))
        .route("/reports/{id}", get(report))
        .route(
            "/exports",
            get(async || tokio::time::sleep(Duration::from_millis(120)).await),
        )
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route(
            "/totals",
            get(async move || {
                let compute = || async { Ok::<_, CacheError>(7) };
                let total = values.get_or_compute("all", &EntryOptions::query_result(), compute);
                total
                    .await
                    .map(|total| total.to_string())
                    .unwrap_or_default()
            }),
        )
        .layer(keep.layer())
        .nest("/admin", admin(&keep).router())
        .layer(from_fn(between));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    let service = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    server.spawn(async move { axum::serve(listener, service).await.unwrap() });
    Site {
        keep,
        base,
        unstreamed,
        collected,
        gone,
        _server: server,
    }
}

async fn report(Path(id): Path<String>) -> Response {
    ([("cache-control", "max-age=600")], id).into_response()
}

impl Site {
    fn dashboard(&self) -> String {
        format!("{}/admin/dashboard", self.base)
    }

    async fn traffic(&self) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        for nth in 0..60 {
            for path in [
                format!("/contacts/{nth}"),
                format!("/reports/{}", nth % 7),
                format!("/reports/{}", nth % 3),
                "/totals".to_owned(),
                ["/wp-login.php", "/exports", "/broken"][nth % 3].to_owned(),
            ] {
                let uri = format!("{}{path}", self.base).parse().unwrap();
                let answer = client.get(uri).await.unwrap();
                answer.into_body().collect().await.unwrap();
            }
        }
    }
}

/// Types the token as a person does, and waits for figures.
async fn sign_in(browser: &mut Browser, token: &str) {
    browser.until("document.activeElement.id === 'token'").await;
    browser
        .ask("Input.insertText", json!({"text": token}))
        .await;
    browser.press("Enter").await;
}

const SHOWN: &str = "!document.getElementById('board').hidden && document.querySelectorAll('#routes tbody tr').length > 4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_its_figures_in_light_and_dark_and_on_a_phone() {
    let site = serve().await;
    site.traffic().await;
    let mut browser = Browser::start("looks").await;
    for (name, size, scheme) in [
        ("light", (1280, 900), "light"),
        ("dark", (1280, 900), "dark"),
        ("tablet", (820, 1100), "light"),
        ("phone", (360, 780), "light"),
        ("phone-dark", (360, 780), "dark"),
    ] {
        browser.look(size, scheme).await;
        browser.open(&site.dashboard()).await;
        if name == "light" {
            browser.picture("dashboard-token").await;
            sign_in(&mut browser, TOKEN).await;
        }
        browser.until(SHOWN).await;
        // A second frame, so that there is a line to be drawn.
        site.traffic().await;
        let line = "document.querySelector('#chart .path').getAttribute('d').includes('L')";
        browser.until(line).await;
        let text = browser
            .value("document.getElementById('main').innerText")
            .await;
        let text = text.as_str().unwrap().replace('\u{a0}', " ");
        for figure in [
            "/contacts/{id}",
            "/reports/{id}",
            "unmatched",
            "score 81 of 100",
            "error rate",
            "most of them of /broken",
            "guard.slots 64 → 96: one in ten waited for a slot",
            SMUGGLED,
            "MiB of 450 MiB",
            " of 64",
        ] {
            assert!(
                text.contains(figure),
                "{figure} is missing in {name}:\n{text}"
            );
        }
        let problems = browser.value(PROBLEMS).await;
        assert_eq!(problems, json!([]), "{name}");
        let pale = browser.value(PALE).await;
        assert_eq!(pale, json!([]), "{name}: not enough contrast");
        let wide = browser
            .value("document.documentElement.scrollWidth - innerWidth")
            .await;
        assert!(
            wide.as_i64().unwrap() <= 0,
            "{name} is {wide} pixels too wide"
        );
        browser.picture(&format!("dashboard-{name}")).await;
    }
    assert_eq!(
        browser.value("document.title").await,
        "Dashboard · tower-keep"
    );
    assert_eq!(browser.value("document.images.length").await, 0);
    alerts_are_told_as_they_stand(&mut browser).await;
    let none: [String; 0] = [];
    assert_eq!(browser.complaints, none);
    by_keyboard(&mut browser).await;
    figures_agree(&site, &mut browser).await;
}

async fn alerts_are_told_as_they_stand(browser: &mut Browser) {
    let alerts = "[...document.querySelectorAll('#alerts li')].map((one) => one.textContent.replace(/\\d\\d:.*/, 'T'))";
    assert_eq!(
        browser.value(alerts).await,
        json!([
            "Criticalerror rate: error_ratio is 12 %, more than 5 %: look at the slowest",
            "Pendinghit ratio: hit_ratio is 62 %, less than 70 %",
            "Resolvedmemory: at T",
        ])
    );
}

/// Everything can be reached and done without a mouse.
async fn by_keyboard(browser: &mut Browser) {
    browser
        .value("document.activeElement.blur(), scrollTo(0, 0)")
        .await;
    browser.press("Tab").await;
    let focused = "document.activeElement.className === 'skip' && document.activeElement.getBoundingClientRect().left >= 0";
    browser.until(focused).await;
    browser.press("Enter").await;
    browser.until("document.activeElement.id === 'main'").await;
    let sorted = "document.querySelectorAll('#routes th')[0].getAttribute('aria-sort')";
    browser
        .value("document.querySelectorAll('#routes th button')[0].focus()")
        .await;
    for expected in ["ascending", "descending"] {
        browser.press("Enter").await;
        browser.until(&format!("{sorted} === '{expected}'")).await;
        let routes =
            "[...document.querySelectorAll('#routes tbody th')].map((cell) => cell.textContent)";
        let shown = browser.value(routes).await;
        let mut shown: Vec<String> = serde_json::from_value(shown).unwrap();
        if expected == "descending" {
            shown.reverse();
        }
        assert!(shown.len() > 4 && shown.is_sorted(), "{shown:?}");
    }
    browser
        .value("document.getElementById('theme').focus()")
        .await;
    let scheme = "getComputedStyle(document.documentElement).colorScheme";
    for expected in ["light", "dark"] {
        browser.press("Enter").await;
        browser.until(&format!("{scheme} === '{expected}'")).await;
    }
}

/// What is shown is what is counted.
async fn figures_agree(site: &Site, browser: &mut Browser) {
    let counted = site.keep.metrics().snapshot();
    let total = counted.http.requests;
    let shown = "Number(document.getElementById('rate-more').textContent.split(' · ')[1].replace(/\\D/g, ''))";
    browser.until(&format!("{shown} === {total}")).await;
    let cells = "Object.fromEntries([...document.querySelectorAll('#routes tbody tr')].map((row) => \
         [row.cells[0].textContent + ' ' + row.cells[1].textContent, Number(row.cells[2].textContent.replace(/\\D/g, ''))]))";
    let cells = browser.value(cells).await;
    for route in counted
        .routes
        .iter()
        .filter(|route| route.counts.requests > 0)
    {
        let name = format!("{} {}", route.route, route.method);
        assert_eq!(
            cells[&name],
            json!(route.counts.requests),
            "{name} in {cells}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_and_old_figures_are_told_and_figures_come_without_streams() {
    let site = serve().await;
    site.traffic().await;
    let mut browser = Browser::start("states").await;
    browser.look((1280, 900), "light").await;
    browser.open(&site.dashboard()).await;
    sign_in(&mut browser, "0123456789-of-somebody-else").await;
    let said = "document.getElementById('said').textContent";
    browser.until(&format!("{said}.includes('refused')")).await;
    assert_eq!(
        browser
            .value("document.getElementById('board').hidden")
            .await,
        true
    );
    assert_eq!(
        browser.value("sessionStorage.getItem('keep-token')").await,
        json!(null)
    );

    // A proxy that lets no stream through: the page asks instead.
    site.unstreamed.store(true, Ordering::SeqCst);
    sign_in(&mut browser, TOKEN).await;
    browser.until(SHOWN).await;
    let state = browser
        .value("document.getElementById('state').textContent")
        .await;
    let state = state.as_str().unwrap().to_owned();
    let newer = format!("document.getElementById('state').textContent > {state:?}");
    browser.until(&newer).await;

    // Away, and back again.
    site.gone.store(true, Ordering::SeqCst);
    browser
        .until("document.body.classList.contains('stale')")
        .await;
    let told = browser.value(said).await;
    assert!(
        told.as_str().unwrap().contains("These figures are old"),
        "{told}"
    );
    browser.picture("dashboard-stale").await;
    site.gone.store(false, Ordering::SeqCst);
    browser
        .until("!document.body.classList.contains('stale')")
        .await;
    assert_eq!(browser.value(said).await, "");
    // Answers of 403 and 502 are all that the browser has to complain of.
    for complaint in &browser.complaints {
        let expected = complaint.contains("status of 403") || complaint.contains("status of 502");
        assert!(expected, "{complaint}");
    }
    // Without the token there is nothing to be seen, and none is left behind.
    browser
        .value("document.getElementById('forget').click()")
        .await;
    browser
        .until("document.getElementById('board').hidden && !document.getElementById('ask').hidden")
        .await;
    assert_eq!(
        browser.value("sessionStorage.getItem('keep-token')").await,
        json!(null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_come_although_streams_stand_still() {
    let site = serve().await;
    site.traffic().await;
    site.collected.store(true, Ordering::SeqCst);
    let mut browser = Browser::start("collected").await;
    browser.look((1280, 900), "light").await;
    browser.open(&site.dashboard()).await;
    sign_in(&mut browser, TOKEN).await;
    browser.until(SHOWN).await;
    let said = "document.getElementById('said').textContent";
    assert_eq!(browser.value(said).await, "");
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}

/// What a person who does not see or point could not use.
const PROBLEMS: &str = r#"(() => {
  const wrong = [], all = (of) => [...document.querySelectorAll(of)], tell = (what, one) => wrong.push(what + ": " + one.outerHTML.slice(0, 120));
  if (document.documentElement.lang !== "en") wrong.push("no language");
  for (const of of ["header", "main", "footer", "h1"]) if (all(of).length !== 1) wrong.push(of + ": " + all(of).length);
  const ids = all("[id]").map((one) => one.id);
  ids.filter((id, at) => ids.indexOf(id) !== at).forEach((id) => wrong.push("twice: " + id));
  all("[aria-labelledby]").forEach((one) => document.getElementById(one.getAttribute("aria-labelledby")) || tell("no label", one));
  all("section, [role=region]").forEach((one) => one.hasAttribute("aria-labelledby") || tell("no name", one));
  all("table").forEach((one) => one.caption && one.caption.textContent && one.tHead || tell("no caption or head", one));
  all("th").forEach((one) => ["row", "col"].includes(one.scope) || tell("no scope", one));
  all("tbody tr").forEach((one) => one.cells[0].tagName === "TH" || one.cells[0].className === "none" || tell("no head of row", one));
  all("button, a").forEach((one) => one.textContent.trim() || tell("no text", one));
  all("input").forEach((one) => one.labels.length === 1 || tell("no label", one));
  all("svg").forEach((one) => one.getAttribute("aria-hidden") === "true" || one.getAttribute("role") === "img" && one.getAttribute("aria-label") || tell("no words", one));
  all("[tabindex]").forEach((one) => one.tabIndex > 0 && tell("order of tabs", one));
  all(".scroll").forEach((one) => one.tabIndex === 0 || tell("cannot be scrolled by keyboard", one));
  all("[aria-live], [role=alert], [role=status]").forEach((one) => ["said", "alerts"].includes(one.id) || tell("speaks", one));
  all("header button").forEach((one) => !one.hidden && one.getBoundingClientRect().height < 24 && tell("small", one));
  all("[style]").forEach((one) => one.id === "memory-bar" || tell("style", one));
  let level = 0;
  all("h1, h2, h3").forEach((one) => { const now = Number(one.tagName[1]); if (now > level + 1) tell("level", one); level = now; });
  all(".mark").forEach((one) => one.textContent.trim() && one.querySelector("svg") || tell("by colour alone", one));
  return wrong;
})()"#;

/// Text that is too close to its ground, by WCAG 2.2, 1.4.3: 4.5 to 1.
const PALE: &str = r#"(() => {
  const parse = (text) => { const found = text.match(/[\d.]+/g).map(Number); return { rgb: found.slice(0, 3), alpha: found.length > 3 ? found[3] : 1 }; };
  const light = (rgb) => rgb.map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((all, one, at) => all + one * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => { for (; one; one = one.parentElement) { const found = parse(getComputedStyle(one).backgroundColor); if (found.alpha === 1) return found.rgb; } return [255, 255, 255]; };
  const pale = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE"].includes(one.tagName) || !one.checkVisibility()) continue;
    texts += 1;
    const [a, b] = [light(parse(getComputedStyle(one).color).rgb), light(ground(one))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) pale.add(ratio.toFixed(2) + " " + one.outerHTML.slice(0, 100));
  }
  return texts > 100 ? [...pale] : ["only " + texts + " texts"];
})()"#;
