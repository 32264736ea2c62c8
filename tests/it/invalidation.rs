//! Invalidation around bare services, and around axum over real connections.

use std::convert::Infallible;
use std::future::{pending, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::extract::Path;
use axum::routing::{get, put};
use axum::{Extension, Router};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_keep::event::{Event, Events, Recorder};
use tower_keep::invalidation::{
    Invalidate, InvalidateLayer, InvalidateService, InvalidationConfig, InvalidationEntity,
    InvalidationRule, Invalidator, Variables,
};
use tower_keep::journal::{Checked, Journal, JournalConfig, Stamp, Subject};

/// What one test looks at: the layer, the journal it writes to, and the warnings it told.
struct Bench {
    layer: InvalidateLayer,
    invalidator: Invalidator,
    journal: Journal,
    born: Stamp,
    warnings: Arc<Warnings>,
}

#[derive(Debug, Default)]
struct Warnings(Mutex<Vec<String>>);

impl Recorder for Warnings {
    fn record(&self, event: &Event<'_>) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push((*text).to_owned());
        }
    }
}

/// A layer with one rule: what changes a contact purges its path and the lists.
fn bench() -> Bench {
    bench_of(&InvalidationConfig {
        rules: vec![
            InvalidationRule::new("/contacts/{id}")
                .paths(["/contacts/{{id}}"])
                .tags(["lists"])
                .patterns(["/search?*"]),
        ],
        ..InvalidationConfig::default()
    })
}

fn bench_of(config: &InvalidationConfig) -> Bench {
    let journal = Journal::new(&JournalConfig::default(), Events::none()).unwrap();
    let warnings = Arc::new(Warnings::default());
    let events = Events::to(vec![Arc::<Warnings>::clone(&warnings)]);
    let invalidator = Invalidator::new(config, &[], journal.clone(), events).unwrap();
    Bench {
        layer: InvalidateLayer::new(invalidator.clone()),
        invalidator,
        born: journal.position(),
        journal,
        warnings,
    }
}

impl Bench {
    /// Whether an entry of this key with this tag, older than the test, is still good.
    fn holds(&self, key: &str, tag: &str) -> bool {
        let path = key.split('?').next().unwrap();
        let subject = Subject::of(key, &[path.into(), tag.into()]);
        self.journal
            .holds(self.born, &Checked::at(self.born), &subject)
    }

    /// How many records there are.
    fn records(&self) -> u64 {
        self.journal.position().seq
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.0.lock().unwrap().clone()
    }

    /// The answer of a service that answers `response` to everything.
    async fn answer(&self, request: Request<()>, response: Response<()>) -> Response<()> {
        let mut response = Some(response);
        let inner =
            service_fn(move |_: Request<()>| ready(Ok::<_, Infallible>(response.take().unwrap())));
        self.layer.layer(inner).oneshot(request).await.unwrap()
    }
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(())
        .unwrap()
}

fn status(code: u16) -> Response<()> {
    Response::builder().status(code).body(()).unwrap()
}

fn saying(said: Invalidate, code: u16) -> Response<()> {
    let mut response = status(code);
    response.extensions_mut().insert(said);
    response
}

#[tokio::test]
async fn a_write_purges_by_rule_before_its_answer_is_there_and_in_one_record() {
    let bench = bench();
    let answer = bench
        .answer(request(Method::PUT, "/contacts/7?notify=1"), status(204))
        .await;
    assert_eq!(answer.status(), 204);
    assert!(!bench.holds("/contacts/7", ""));
    assert!(!bench.holds("/contacts/7?full=1", ""));
    assert!(!bench.holds("/contacts?page=3", "lists"));
    assert!(!bench.holds("/search?q=ada", ""));
    assert!(bench.holds("/contacts/8", ""));
    assert!(bench.holds("/contacts/70", ""));
    assert_eq!(bench.records(), 1);
}

#[tokio::test]
async fn what_is_stored_after_the_purge_holds() {
    let bench = bench();
    bench
        .answer(request(Method::PUT, "/contacts/7"), status(200))
        .await;
    let reborn = bench.journal.position();
    let subject = Subject::of("/contacts/7", &["/contacts/7".into()]);
    assert!(bench.journal.holds(reborn, &Checked::at(reborn), &subject));
}

#[tokio::test]
async fn a_client_error_purges_nothing_and_every_other_status_purges() {
    for (code, purges) in [
        (200, true),
        (201, true),
        (303, true),
        (400, false),
        (401, false),
        (404, false),
        (408, true),
        (422, false),
        (500, true),
        (503, true),
    ] {
        let bench = bench();
        bench
            .answer(request(Method::DELETE, "/contacts/7"), status(code))
            .await;
        assert_eq!(bench.holds("/contacts/7", ""), !purges, "{code}");
        assert_eq!(bench.records(), u64::from(purges), "{code}");
    }
}

#[tokio::test]
async fn an_unmatched_route_and_a_safe_method_purge_nothing() {
    for (method, path) in [
        (Method::PUT, "/organizations/7"),
        (Method::PUT, "/contacts"),
        (Method::PUT, "/contacts/7/notes"),
        (Method::GET, "/contacts/7"),
        (Method::HEAD, "/contacts/7"),
        (Method::OPTIONS, "/contacts/7"),
        (Method::from_bytes(b"MERGE").unwrap(), "/contacts/7"),
    ] {
        let bench = bench();
        bench
            .answer(request(method.clone(), path), status(200))
            .await;
        assert_eq!(bench.records(), 0, "{method} {path}");
    }
}

#[tokio::test]
async fn an_error_of_the_service_purges_and_stays_the_same_error() {
    let bench = bench();
    let inner = service_fn(|_: Request<()>| ready(Err::<Response<()>, _>("broken pipe")));
    let error = bench
        .layer
        .layer(inner)
        .oneshot(request(Method::PUT, "/contacts/7"))
        .await
        .unwrap_err();
    assert_eq!(error, "broken pipe");
    assert!(!bench.holds("/contacts/7", ""));
}

/// A handler that never answers.
fn stuck(bench: &Bench) -> InvalidateService<impl Stuck> {
    bench
        .layer
        .layer(service_fn(|_: Request<()>| pending::<Answer>()))
}

type Answer = Result<Response<()>, Infallible>;

trait Stuck: Service<Request<()>, Response = Response<()>, Error = Infallible> {}

impl<S: Service<Request<()>, Response = Response<()>, Error = Infallible>> Stuck for S {}

#[tokio::test]
async fn a_request_that_is_dropped_midway_purges_whether_or_not_it_was_polled() {
    for polled in [true, false] {
        let bench = bench();
        let mut future = Box::pin(stuck(&bench).call(request(Method::PUT, "/contacts/7")));
        if polled {
            tokio::select! {
                biased;
                _ = &mut future => panic!("it never answers"),
                () = ready(()) => {}
            }
        }
        assert_eq!(bench.records(), 0, "nothing is purged while it runs");
        drop(future);
        assert!(!bench.holds("/contacts/7", ""), "polled: {polled}");
        assert_eq!(bench.records(), 1);
    }
}

#[tokio::test]
async fn a_dropped_request_of_no_rule_purges_nothing() {
    let bench = bench();
    drop(stuck(&bench).call(request(Method::PUT, "/organizations/7")));
    drop(stuck(&bench).call(request(Method::GET, "/contacts/7")));
    assert_eq!(bench.records(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_outside_of_the_layer_purges() {
    let bench = bench();
    let late = tokio::time::timeout(
        Duration::from_secs(1),
        stuck(&bench).call(request(Method::PUT, "/contacts/7")),
    );
    assert!(late.await.is_err());
    assert!(!bench.holds("/contacts/7", ""));
}

#[tokio::test]
async fn what_a_handler_does_while_it_is_torn_down_comes_before_the_record() {
    struct Teardown(Journal, Arc<Mutex<Option<u64>>>);
    impl Drop for Teardown {
        fn drop(&mut self) {
            *self.1.lock().unwrap() = Some(self.0.position().seq);
        }
    }
    let (bench, seen) = (bench(), Arc::<Mutex<Option<u64>>>::default());
    let (journal, told) = (bench.journal.clone(), Arc::clone(&seen));
    let inner = service_fn(move |_: Request<()>| {
        let teardown = Teardown(journal.clone(), Arc::clone(&told));
        async move {
            let _teardown = teardown;
            pending::<Answer>().await
        }
    });
    drop(
        bench
            .layer
            .layer(inner)
            .call(request(Method::PUT, "/contacts/7")),
    );
    assert_eq!(*seen.lock().unwrap(), Some(0));
    assert_eq!(bench.records(), 1);
}

#[tokio::test]
async fn a_handler_that_panics_purges() {
    async fn broken(_: Request<()>) -> Answer {
        panic!("after the commit")
    }
    let bench = bench();
    let future = bench
        .layer
        .layer(service_fn(broken))
        .oneshot(request(Method::PUT, "/contacts/7"));
    assert!(tokio::spawn(future).await.unwrap_err().is_panic());
    assert!(!bench.holds("/contacts/7", ""));
    // And one that panics before there is a future.
    let other = bench_of(&InvalidationConfig {
        rules: vec![InvalidationRule::new("/contacts/{id}").tags(["lists"])],
        ..InvalidationConfig::default()
    });
    #[expect(
        unreachable_code,
        reason = "the type of the answer has to be said somewhere"
    )]
    let inner = service_fn(|_: Request<()>| {
        panic!("in call");
        ready(Answer::Ok(status(200)))
    });
    let future = other
        .layer
        .layer(inner)
        .oneshot(request(Method::PUT, "/contacts/7"));
    assert!(tokio::spawn(future).await.unwrap_err().is_panic());
    assert!(!other.holds("/x", "lists"));
}

#[tokio::test]
async fn a_handler_says_more_whatever_the_method_and_the_status() {
    for (method, code) in [(Method::GET, 200), (Method::POST, 404), (Method::PUT, 500)] {
        let bench = bench();
        let said = Invalidate::tag("a").and_tag("b").and_path("/x");
        let answer = bench
            .answer(request(method, "/elsewhere"), saying(said, code))
            .await;
        assert!(!bench.holds("/1", "a"));
        assert!(!bench.holds("/2", "b"));
        assert!(!bench.holds("/x?y", ""));
        assert!(bench.holds("/3", "c"));
        assert_eq!(bench.records(), 1);
        let left = answer.extensions().get::<Invalidate>();
        assert!(left.is_none(), "it was carried out, so it is taken out");
    }
}

#[tokio::test]
async fn rule_and_handler_make_one_record_and_a_client_error_keeps_the_handlers_part() {
    let bench = bench();
    let put = || request(Method::PUT, "/contacts/7");
    bench.answer(put(), saying(Invalidate::tag("a"), 404)).await;
    assert_eq!(bench.records(), 1);
    assert!(!bench.holds("/1", "a"));
    assert!(bench.holds("/contacts/7", ""));
    bench.answer(put(), saying(Invalidate::tag("b"), 200)).await;
    assert_eq!(bench.records(), 2);
    assert!(!bench.holds("/1", "b"));
    assert!(!bench.holds("/contacts/7", ""));
}

#[tokio::test]
async fn a_response_that_names_too_much_purges_everything_and_is_warned_of_once() {
    let bench = bench();
    let many = (0..65).fold(Invalidate::default(), |said, at| {
        said.and_tag(&at.to_string())
    });
    for _ in 0..2 {
        let get = request(Method::GET, "/");
        bench.answer(get, saying(many.clone(), 200)).await;
    }
    assert!(!bench.holds("/never/named", ""));
    assert_eq!(bench.records(), 2);
    let told = bench.warnings();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("more than 64"), "{told:?}");
}

#[tokio::test]
async fn a_missing_value_leaves_its_target_out_and_is_warned_of_once() {
    let bench = bench_of(&InvalidationConfig {
        rules: vec![
            InvalidationRule::new("/contacts/{id}").tags(["{{header.x-tenant}}:lists", "all"]),
        ],
        ..InvalidationConfig::default()
    });
    let put = || request(Method::PUT, "/contacts/7");
    bench.answer(put(), status(200)).await;
    bench.answer(put(), status(200)).await;
    assert!(bench.holds("/1", "acme:lists"));
    assert!(!bench.holds("/1", "all"));
    assert_eq!(bench.warnings().len(), 1, "{:?}", bench.warnings());
    let mut told = put();
    told.headers_mut()
        .insert("x-tenant", "acme".parse().unwrap());
    bench.answer(told, status(200)).await;
    assert!(!bench.holds("/1", "acme:lists"));
}

#[tokio::test]
async fn a_layer_that_is_off_touches_nothing_but_calls_still_purge() {
    let bench = bench_of(&InvalidationConfig {
        enabled: false,
        rules: vec![InvalidationRule::new("/contacts/{id}").tags(["lists"])],
        ..InvalidationConfig::default()
    });
    let answer = bench
        .answer(
            request(Method::PUT, "/contacts/7"),
            saying(Invalidate::tag("a"), 200),
        )
        .await;
    assert!(answer.extensions().get::<Invalidate>().is_some());
    drop(stuck(&bench).call(request(Method::PUT, "/contacts/7")));
    assert_eq!(bench.records(), 0);
    drop(bench.invalidator.purge_tag("lists").unwrap());
    assert!(!bench.holds("/1", "lists"));
}

#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let bench = bench();
    let (inner, mut handle) = tower_test::mock::pair::<Request<()>, Response<()>>();
    let mut service = tower_test::mock::Spawn::new(bench.layer.layer(inner));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let answer = tokio::spawn(service.call(request(Method::PUT, "/contacts/7")));
    let (_, answering) = handle.next_request().await.unwrap();
    assert_eq!(bench.records(), 0);
    answering.send_response(status(200));
    answer.await.unwrap().unwrap();
    assert_eq!(bench.records(), 1);
    handle.send_error("broken");
    let Poll::Ready(Err(error)) = service.poll_ready() else {
        panic!("the inner service is broken")
    };
    assert_eq!(error.to_string(), "broken");
}

/// A contact's change is its organization's, which only the service can tell, and that the region's.
fn cascading() -> InvalidationConfig {
    let entities = [
        (
            "contact",
            InvalidationEntity::new(["id", "organization_id"])
                .tags(["contact:{{id}}"])
                .cascade("organization", [("id", "{{organization_id}}")]),
        ),
        (
            "organization",
            InvalidationEntity::new(["id"])
                .tags(["organization:{{id}}"])
                .patterns(["/search?*organization={{id}}&*"])
                .cascade("region", [("name", "eu")]),
        ),
        (
            "region",
            InvalidationEntity::new(["name"]).paths(["/regions/{{name}}"]),
        ),
    ];
    InvalidationConfig {
        rules: vec![
            InvalidationRule::new("/contacts/{id}")
                .supplied(["organization_id"])
                .changes("contact", []),
        ],
        entities: entities
            .map(|(name, entity)| (name.to_owned(), entity))
            .into(),
        ..InvalidationConfig::default()
    }
}

fn put_contact() -> Request<()> {
    request(Method::PUT, "/contacts/7")
}

fn telling(variables: Variables, code: u16) -> Response<()> {
    let mut response = status(code);
    response.extensions_mut().insert(variables);
    response
}

/// The organizations, of some, whose entries are gone.
fn gone(bench: &Bench) -> Vec<&'static str> {
    ["3", "4", "5", "7", "x"]
        .into_iter()
        .filter(|id| !bench.holds("/x", &format!("organization:{id}")))
        .collect()
}

#[tokio::test]
async fn what_a_response_tells_leads_a_cascade_on_and_all_of_it_is_one_record() {
    let bench = bench_of(&cascading());
    let told = telling(Variables::new().set("organization_id", 3), 200);
    let answer = bench.answer(put_contact(), told).await;
    assert_eq!(bench.records(), 1, "the whole cascade");
    assert!(!bench.holds("/x", "contact:7"));
    assert_eq!(gone(&bench), ["3"]);
    assert!(!bench.holds("/search?q=a&organization=3&page=2", ""));
    assert!(bench.holds("/search?q=a&organization=33&page=2", ""));
    assert!(!bench.holds("/regions/eu?page=2", ""));
    assert!(bench.holds("/regions/us", ""));
    assert!(bench.warnings().is_empty(), "{:?}", bench.warnings());
    let left = answer.extensions().get::<Variables>();
    assert!(
        left.is_some(),
        "a layer further out may have rules of its own"
    );
}

#[tokio::test]
async fn a_cascade_and_what_the_handler_names_are_one_record() {
    let bench = bench_of(&cascading());
    let mut told = telling(Variables::new().set("organization_id", "3"), 200);
    told.extensions_mut().insert(Invalidate::tag("more"));
    bench.answer(put_contact(), told).await;
    assert_eq!(bench.records(), 1);
    assert!(!bench.holds("/x", "more"));
    assert_eq!(gone(&bench), ["3"]);
}

#[tokio::test]
async fn response_closure_request_and_path_decide_in_this_order() {
    let mut config = cascading();
    // A variable that the field of a request tells, unless somebody else does.
    config.rules = vec![
        InvalidationRule::new("/contacts/{organization_id}")
            .changes("organization", [("id", "{{organization_id}}")]),
        InvalidationRule::new("/notes")
            .changes("organization", [("id", "{{header.x-organization}}")]),
    ];
    let set = |id: &str| Variables::new().set("organization_id", id);
    // Whether the response, the closure and the request's extensions tell it.
    for (response, closure, extensions, expected) in [
        (true, true, true, "3"),
        (false, true, true, "4"),
        (false, false, true, "5"),
        (false, false, false, "7"),
        (true, false, false, "3"),
        (true, false, true, "3"),
    ] {
        let bench = bench_of(&config);
        let invalidator =
            bench.invalidator.clone().variables(
                move |_, _| {
                    if closure { set("4") } else { Variables::new() }
                },
            );
        let layer = InvalidateLayer::new(invalidator);
        let mut request = put_contact();
        if extensions {
            request.extensions_mut().insert(set("5"));
        }
        let inner = service_fn(move |_: Request<()>| {
            let told = if response { set("3") } else { Variables::new() };
            ready(Answer::Ok(telling(told, 204)))
        });
        layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(gone(&bench), [expected]);
        assert_eq!(bench.records(), 1);
    }
    let bench = bench_of(&config);
    let mut noted = request(Method::POST, "/notes");
    noted
        .headers_mut()
        .insert("x-organization", "x".parse().unwrap());
    bench.answer(noted, status(201)).await;
    assert_eq!(gone(&bench), ["x"]);
}

#[tokio::test]
async fn the_closure_sees_the_request_as_it_came_and_its_answer() {
    let bench = bench_of(&cascading());
    let invalidator = bench.invalidator.clone().variables(|request, response| {
        assert_eq!(request.method, Method::PUT);
        assert_eq!(request.uri, "/contacts/7?quiet=1");
        let tenant = request.extensions.get::<u64>().unwrap();
        assert_eq!(
            (*tenant, &request.headers["x-kind"]),
            (9, &"b".parse().unwrap())
        );
        assert_eq!(response.status, 200);
        let id = response.headers["x-organization"].to_str().unwrap();
        Variables::new().set("organization_id", id)
    });
    let mut request = request(Method::PUT, "/contacts/7?quiet=1");
    request.extensions_mut().insert(9_u64);
    request.headers_mut().insert("x-kind", "b".parse().unwrap());
    let inner = service_fn(|mut request: Request<()>| {
        // What becomes of the request on its way in is nothing to the closure.
        request.headers_mut().clear();
        let response = Response::builder().header("x-organization", "4");
        ready(Answer::Ok(response.body(()).unwrap()))
    });
    let layer = InvalidateLayer::new(invalidator);
    layer.layer(inner).oneshot(request).await.unwrap();
    assert_eq!(gone(&bench), ["4"]);
    assert_eq!(bench.records(), 1);
}

#[tokio::test]
async fn the_closure_is_called_only_where_a_rule_speaks_and_something_may_have_changed() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let bench = bench_of(&cascading());
    let told = Arc::clone(&asked);
    let invalidator = bench
        .invalidator
        .clone()
        .variables(move |request, response| {
            let what = format!(
                "{} {} {}",
                request.method,
                request.uri,
                response.status.as_u16()
            );
            told.lock().unwrap().push(what);
            Variables::new()
        });
    let layer = InvalidateLayer::new(invalidator);
    for (method, path, code) in [
        (Method::PUT, "/contacts/7", 404),
        (Method::GET, "/contacts/7", 200),
        (Method::PUT, "/organizations/7", 200),
        (Method::PUT, "/contacts/7", 200),
        (Method::DELETE, "/contacts/8", 408),
        (Method::PUT, "/contacts/9", 503),
    ] {
        let inner = service_fn(move |_: Request<()>| ready(Answer::Ok(status(code))));
        let asking = request(method, path);
        layer.layer(inner).oneshot(asking).await.unwrap();
    }
    let failing = service_fn(|_: Request<()>| ready(Err::<Response<()>, _>("broken")));
    layer
        .layer(failing)
        .oneshot(put_contact())
        .await
        .unwrap_err();
    let expected = [
        "PUT /contacts/7 200",
        "DELETE /contacts/8 408",
        "PUT /contacts/9 503",
    ];
    assert_eq!(*asked.lock().unwrap(), expected);
    assert_eq!(bench.records(), 4, "an error purges without it");
}

#[tokio::test]
async fn a_closure_that_panics_leaves_what_the_request_and_the_handler_tell() {
    let bench = bench_of(&cascading());
    let invalidator = bench
        .invalidator
        .clone()
        .variables(|_, _| panic!("in the closure"));
    let layer = InvalidateLayer::new(invalidator);
    let inner =
        service_fn(|_: Request<()>| ready(Answer::Ok(saying(Invalidate::tag("more"), 200))));
    let future = layer.layer(inner).oneshot(put_contact());
    assert!(tokio::spawn(future).await.unwrap_err().is_panic());
    assert!(!bench.holds("/x", "contact:7"));
    assert!(!bench.holds("/x", "more"));
    assert_eq!(bench.records(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_midway_purges_all_that_its_request_can_tell() {
    let bench = bench_of(&cascading());
    let invalidator = bench
        .invalidator
        .clone()
        .variables(|_, _| panic!("there is no answer"));
    let layer = InvalidateLayer::new(invalidator);
    let inner = || service_fn(|_: Request<()>| pending::<Answer>());
    let mut future = Box::pin(layer.layer(inner()).call(put_contact()));
    tokio::select! {
        biased;
        _ = &mut future => panic!("it never answers"),
        () = ready(()) => {}
    }
    assert_eq!(bench.records(), 0);
    drop(future);
    assert_eq!(bench.records(), 1);
    assert!(!bench.holds("/x", "contact:7"));
    assert!(
        !bench.holds("/regions/eu", ""),
        "what needs no value is not held up by others"
    );
    assert!(gone(&bench).is_empty(), "nobody has told which");
    let told = bench.warnings();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].contains("without an answer: `organization_id` had no value"),
        "{told:?}"
    );
    // What an outer layer had left with the request counts, answer or none.
    let mut knowing = put_contact();
    let variables = Variables::new().set("organization_id", "5");
    knowing.extensions_mut().insert(variables);
    drop(layer.layer(inner()).call(knowing));
    assert_eq!(gone(&bench), ["5"]);
    // And whoever answers without a word is warned of in addition.
    bench.answer(put_contact(), status(200)).await;
    bench.answer(put_contact(), status(200)).await;
    let told = bench.warnings();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[1].contains("for a request: `organization_id` had no value"),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_client_error_purges_nothing_whatever_it_tells() {
    let bench = bench_of(&cascading());
    let told = telling(Variables::new().set("organization_id", "3"), 422);
    bench.answer(put_contact(), told).await;
    assert_eq!(bench.records(), 0);
}

#[tokio::test]
async fn a_hostile_value_of_a_response_purges_no_others() {
    for value in [
        "*",
        r"\*",
        "3&organization=4",
        "{{id}}",
        "3/..",
        "3:4",
        "%33",
        "?",
    ] {
        let bench = bench_of(&cascading());
        let told = telling(Variables::new().set("organization_id", value), 200);
        bench.answer(put_contact(), told).await;
        assert!(gone(&bench).is_empty(), "{value}");
        for id in ["3", "4", "7"] {
            let key = format!("/search?q=a&organization={id}&page=2");
            assert!(bench.holds(&key, ""), "{value} on {key}");
        }
        assert!(!bench.holds("/x", &format!("organization:{value}")));
    }
}

#[tokio::test]
async fn the_record_of_a_cascade_is_in_before_the_head_is_released() {
    let bench = bench_of(&cascading());
    let inner = service_fn(|_: Request<()>| {
        ready(Answer::Ok(telling(
            Variables::new().set("organization_id", "3"),
            200,
        )))
    });
    // A layer around the layer is the first to see the head.
    let journal = bench.journal.clone();
    let mut outer = bench
        .layer
        .layer(inner)
        .map_response(move |response| (journal.position().seq, response));
    let (seen, response) = outer
        .ready()
        .await
        .unwrap()
        .call(put_contact())
        .await
        .unwrap();
    assert_eq!((seen, response.status()), (1, StatusCode::OK));
    assert_eq!(gone(&bench), ["3"]);
}

#[test]
fn the_layer_and_its_engine_can_go_anywhere() {
    fn anywhere<T: Clone + Send + Sync + 'static>() {}
    anywhere::<InvalidateLayer>();
    anywhere::<Invalidator>();
    anywhere::<InvalidateService<Router>>();
}

/// Serves a small axum application behind the layer; `begun` hears of requests that hang.
async fn serve(bench: &Bench, begun: mpsc::UnboundedSender<()>) -> SocketAddr {
    let write = async |Path(id): Path<String>| match &*id {
        "0" => StatusCode::NOT_FOUND,
        "500" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::NO_CONTENT,
    };
    let hang = async move || {
        begun.send(()).unwrap();
        pending::<()>().await;
    };
    let app = Router::new()
        .route("/contacts/{id}", put(write).delete(hang))
        .route(
            "/refresh",
            get(async || Extension(Invalidate::tag("lists"))),
        )
        .layer(bench.layer.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Sends a request on `socket` and reads the status of its answer.
async fn exchange(socket: &mut TcpStream, method: &str, path: &str) -> u16 {
    ask(socket, method, path).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn ask(socket: &mut TcpStream, method: &str, path: &str) {
    let text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    socket.write_all(text.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn through_axum_every_connection_writes_to_the_same_journal() {
    let bench = bench();
    let address = serve(&bench, mpsc::unbounded_channel().0).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    assert_eq!(exchange(&mut first, "PUT", "/contacts/0").await, 404);
    assert_eq!(exchange(&mut second, "PATCH", "/contacts/7").await, 405);
    assert_eq!(bench.records(), 0);
    assert_eq!(exchange(&mut first, "PUT", "/contacts/7").await, 204);
    assert!(!bench.holds("/contacts/7?x", ""));
    assert_eq!(bench.records(), 1);
    assert_eq!(exchange(&mut second, "PUT", "/contacts/500").await, 500);
    assert!(!bench.holds("/contacts/500", ""));
    assert_eq!(bench.records(), 2);
    assert_eq!(exchange(&mut second, "GET", "/refresh").await, 200);
    assert_eq!(bench.records(), 3);
    assert!(!bench.holds("/1", "lists"));
}

#[tokio::test]
async fn through_axum_a_client_that_leaves_midway_purges() {
    let bench = bench();
    let (begun, mut hanging) = mpsc::unbounded_channel();
    let address = serve(&bench, begun).await;
    let mut socket = TcpStream::connect(address).await.unwrap();
    ask(&mut socket, "DELETE", "/contacts/7").await;
    hanging.recv().await.unwrap();
    assert_eq!(bench.records(), 0);
    drop(socket);
    let purged = async {
        while bench.holds("/contacts/7", "") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), purged)
        .await
        .unwrap();
    assert_eq!(bench.records(), 1);
}
