//! The whole source against a server of scripted answers: what goes over the wire, and what is said.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::StreamBody;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::timeout;
use tombolo_core::object::{Object, ObjectKey};
use tower::service_fn;

use super::*;

/// One answer: the status, headers, and the parts of the body; one that ends in `Hold` stays open.
#[derive(Clone)]
struct Answer {
    status: u16,
    retry_after: Option<&'static str>,
    parts: Vec<String>,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Close,
    Break,
    Hold,
}

fn answer(status: u16, body: &str, end: End) -> Answer {
    Answer { status, retry_after: None, parts: vec![body.to_owned()], end }
}

/// What each path is answered with, in order; what is asked beyond that is never answered.
#[derive(Default)]
struct Script {
    answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn client(self: &Arc<Self>) -> Client {
        let script = Arc::clone(self);
        let service = service_fn(move |request: Request<Body>| {
            let script = Arc::clone(&script);
            async move { Ok::<_, Infallible>(script.serve(request.uri().clone()).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(
        &self,
        uri: http::Uri,
    ) -> Response<StreamBody<stream::BoxStream<'static, Result<http_body::Frame<Bytes>, std::io::Error>>>> {
        use futures_util::StreamExt as _;
        self.asked.lock().push(uri.to_string());
        let next = self.answers.lock().get_mut(uri.path()).and_then(VecDeque::pop_front);
        let Some(next) = next else { return std::future::pending().await };
        let mut response = Response::builder().status(next.status);
        if let Some(seconds) = next.retry_after {
            response = response.header("Retry-After", seconds);
        }
        let parts = stream::iter(next.parts).map(|part| Ok(http_body::Frame::data(Bytes::from(part))));
        let body = match next.end {
            End::Close => parts.boxed(),
            End::Break => parts.chain(stream::iter([Err(std::io::Error::other("connection reset"))])).boxed(),
            End::Hold => parts.chain(stream::pending()).boxed(),
        };
        response.body(StreamBody::new(body)).unwrap()
    }

    fn then(self: &Arc<Self>, path: &str, answer: Answer) {
        self.answers.lock().entry(path.to_owned()).or_default().push_back(answer);
    }
}

const NAMESPACES: &str = "/api/v1/namespaces";

fn event(kind: &str, name: &str, revision: &str) -> String {
    format!(r#"{{"type":"{kind}","object":{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}}}"#) + "\n"
}

fn list_end(revision: &str) -> String {
    let metadata =
        format!(r#"{{"resourceVersion":"{revision}","annotations":{{"k8s.io/initial-events-end":"true"}}}}"#);
    format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{metadata}}}}}"#) + "\n"
}

fn page(names: &[&str], more: &str) -> String {
    let items: Vec<String> = names.iter().map(|name| format!(r#"{{"metadata":{{"name":"{name}"}}}}"#)).collect();
    format!(r#"{{"metadata":{{"resourceVersion":"9","continue":"{more}"}},"items":[{}]}}"#, items.join(","))
}

/// Runs the source until it said so many things, and returns them in words.
async fn said(script: &Arc<Script>, count: usize) -> Vec<String> {
    let (events, mut queue) = mpsc::channel(16);
    let credentials = Arc::new(Credentials::fixed(script.client()));
    let mut tasks = JoinSet::new();
    tasks.spawn(follow_all(&RESOURCES[1..2], credentials, events));
    let mut said = Vec::new();
    while said.len() < count {
        let batch = timeout(Duration::from_secs(30), queue.recv()).await.expect("the source says more").unwrap();
        said.extend(batch.iter().map(words));
    }
    said
}

fn words(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Upsert(Object::Namespace(namespace)) => format!("+{}", namespace.name),
        SourceEvent::Delete(ObjectKey::Namespace(name)) => format!("-{name}"),
        SourceEvent::Complete => "complete".to_owned(),
        SourceEvent::Fault(fault) => format!("{}: {}", fault.place, fault.message),
        SourceEvent::Mended { place } => format!("{place}: mended"),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_list_is_streamed_and_watched_and_a_broken_watch_says_only_differences() {
    let script = Arc::new(Script::default());
    let first = event("ADDED", "a", "1") + &event("ADDED", "b", "2") + &list_end("3") + &event("ADDED", "c", "4");
    // Frames end anywhere.
    let (one, two) = first.split_at(70);
    let parts = vec![one.to_owned(), two.to_owned()];
    script.then(NAMESPACES, Answer { status: 200, retry_after: None, parts, end: End::Break });
    let second = event("ADDED", "a", "1") + &event("ADDED", "d", "5") + &list_end("6") + &event("DELETED", "a", "7");
    script.then(NAMESPACES, answer(200, &second, End::Hold));
    assert_eq!(said(&script, 8).await, ["+a", "+b", "+c", "complete", "+d", "-b", "-c", "-a"]);
    let asked = script.asked.lock().clone();
    let stream = "/api/v1/namespaces?&watch=true&timeoutSeconds=270&allowWatchBookmarks=true&sendInitialEvents=true\
                  &resourceVersionMatch=NotOlderThan&resourceVersion=";
    assert_eq!(asked, [stream, stream]);
}

#[tokio::test]
async fn pages_where_lists_are_not_streamed_and_a_page_that_fails_deletes_nothing() {
    let script = Arc::new(Script::default());
    let invalid = r#"{"kind":"Status","code":422,"message":"sendInitialEvents is forbidden"}"#;
    script.then(NAMESPACES, answer(422, invalid, End::Close));
    script.then(NAMESPACES, answer(200, &page(&["a", "b"], "tok"), End::Close));
    script.then(NAMESPACES, answer(200, &page(&["c"], ""), End::Close));
    script.then(NAMESPACES, answer(200, "{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n", End::Hold));
    script.then(NAMESPACES, answer(422, invalid, End::Close));
    script.then(NAMESPACES, answer(200, &page(&["a"], "tok"), End::Close));
    script.then(NAMESPACES, answer(200, &page(&["c"], "")[..40], End::Close));
    script.then(NAMESPACES, answer(200, &(event("ADDED", "a", "1") + &list_end("9")), End::Hold));
    let said = said(&script, 8).await;
    assert_eq!(said[..4], ["+a", "+b", "+c", "complete"]);
    assert!(said[4].starts_with("namespaces: the list cannot be read: EOF"), "{said:?}");
    assert_eq!(said[5..], ["-b", "-c", "namespaces: mended"]);
    let asked = script.asked.lock().clone();
    assert_eq!(asked[1], "/api/v1/namespaces?&limit=500");
    assert_eq!(asked[2], "/api/v1/namespaces?&limit=500&continue=tok");
    assert!(asked[3].ends_with("resourceVersion=9"), "{asked:?}");
}

#[tokio::test]
async fn a_server_that_refuses_is_a_fault_and_is_asked_when_it_said() {
    let script = Arc::new(Script::default());
    let busy = Answer { retry_after: Some("1"), ..answer(429, "Too many requests", End::Close) };
    script.then(NAMESPACES, busy);
    script.then(NAMESPACES, answer(503, "", End::Close));
    script.then(NAMESPACES, answer(200, &list_end("9"), End::Hold));
    let begun = tokio::time::Instant::now();
    assert_eq!(
        said(&script, 4).await,
        [
            "namespaces: HTTP 429: Too Many Requests",
            "namespaces: HTTP 503: Service Unavailable",
            "namespaces: mended",
            "complete"
        ]
    );
    assert!(begun.elapsed() >= Duration::from_secs(1));
}
