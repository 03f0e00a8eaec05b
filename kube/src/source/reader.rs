//! One resource's requests, as `follow` wants them.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request as Requests;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tombolo_source::manifest::Kind;

use super::credentials::{Credentials, in_words};
use super::decode;
use super::follow::{Ask, Follow, Heard, LIFE, Refusal, Step};
use super::reflect::Seen;
use super::resource::Resource;

/// How long a server may take to begin an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a page may stand still.
const PAGE_SILENCE: Duration = Duration::from_secs(30);
/// Objects of one page; what Kubernetes' own clients ask for.
const PAGE: u32 = 500;
/// A page or line beyond this is no answer of an API server, whose objects are at most 1.5 MiB.
const MAX_TEXT: usize = 256 << 20;

/// Reads a resource for ever, and tells `seen` under its index. Ends when nobody listens.
pub(super) async fn run(
    resource: &'static Resource,
    index: usize,
    credentials: Arc<Credentials>,
    seen: mpsc::Sender<(usize, Vec<Seen>)>,
) {
    let follow = Follow::new(fastrand::u64(..));
    let step = Step { ask: follow.ask(), after: Duration::ZERO };
    let mut reader = Reader { resource, index, credentials, follow, seen, begun: Instant::now() };
    let mut next = Some(step);
    while let Some(Step { ask, after }) = next {
        sleep(after).await;
        next = reader.perform(ask).await;
    }
}

struct Reader {
    resource: &'static Resource,
    index: usize,
    credentials: Arc<Credentials>,
    follow: Follow,
    seen: mpsc::Sender<(usize, Vec<Seen>)>,
    begun: Instant,
}

impl Reader {
    /// Makes one request, to its end. Nothing comes after it when nobody listens any more.
    async fn perform(&mut self, ask: Ask) -> Option<Step> {
        let requests = Requests::new(self.resource.path);
        let watch = |initial| WatchParams {
            timeout: Some(u32::try_from(LIFE.as_secs()).expect("a few minutes")),
            send_initial_events: initial,
            ..WatchParams::default()
        };
        let page = |more: &Option<String>| ListParams {
            limit: Some(PAGE),
            continue_token: more.clone(),
            ..ListParams::default()
        };
        // Of a kind that is not decoded only the names are of interest.
        let request = match (&ask, self.resource.kind) {
            (Ask::Page { more }, Kind::Other) => requests.list_metadata(&page(more)),
            (Ask::Stream, Kind::Other) => requests.watch_metadata(&watch(true), ""),
            (Ask::Watch { revision }, Kind::Other) => requests.watch_metadata(&watch(false), revision),
            (Ask::Page { more }, _) => requests.list(&page(more)),
            (Ask::Stream, _) => requests.watch(&watch(true), ""),
            (Ask::Watch { revision }, _) => requests.watch(&watch(false), revision),
        };
        let request = request.expect("the parameters are constants, revisions are encoded");
        tracing::debug!(?ask, "asking");
        match (ask, self.send(request).await) {
            (_, Err(heard)) => self.hear(vec![heard]).await.ok()?,
            (Ask::Page { .. }, Ok(response)) => {
                let heard = match whole(response, PAGE_SILENCE).await {
                    Ok(body) => match decode::page(self.resource.kind, &body) {
                        Ok(page) => Heard::Page(page),
                        Err(e) => Heard::Broken(format!("the list cannot be read: {e}")),
                    },
                    Err(why) => Heard::Broken(why),
                };
                self.hear(vec![heard]).await.ok()?
            }
            (Ask::Stream | Ask::Watch { .. }, Ok(response)) => self.watch(response).await,
        }
    }

    async fn watch(&mut self, response: Response<Body>) -> Option<Step> {
        let mut body = response.into_body();
        let mut lines = Lines::default();
        let mut heard = vec![Heard::Opened];
        loop {
            if let Some(step) = self.hear(std::mem::take(&mut heard)).await.ok()? {
                return Some(step);
            }
            match timeout(self.follow.patience(), body.frame()).await {
                Err(_) => heard.push(Heard::Broken("the watch fell silent".to_owned())),
                Ok(None) => heard.push(lines.end()),
                Ok(Some(Err(e))) => heard.push(Heard::Broken(in_words(&e))),
                Ok(Some(Ok(frame))) => {
                    lines.add(&frame.into_data().unwrap_or_default());
                    heard.extend(std::iter::from_fn(|| lines.next()).map(|line| self.read(&line)));
                    if lines.buffer.len() > MAX_TEXT {
                        heard.push(Heard::Broken(format!("a line of the watch is longer than {} MiB", MAX_TEXT >> 20)));
                    }
                }
            }
        }
    }

    fn read(&self, line: &[u8]) -> Heard {
        match decode::event(self.resource.kind, line) {
            Ok(event) => Heard::Event(event),
            Err(e) => Heard::Broken(format!("a line of the watch cannot be read: {e}")),
        }
    }

    /// Follows what was heard, and tells what was seen by that. An error when nobody listens any more.
    async fn hear(&mut self, heard: Vec<Heard>) -> Result<Option<Step>, mpsc::error::SendError<(usize, Vec<Seen>)>> {
        let now = self.begun.elapsed();
        let (mut seen, mut step) = (Vec::new(), None);
        for heard in heard {
            note(&heard);
            step = self.follow.hear(now, heard, &mut seen);
            if step.is_some() {
                break;
            }
        }
        if !seen.is_empty() {
            self.seen.send((self.index, seen)).await?;
        }
        Ok(step)
    }

    /// An accepted answer, its body still to be read.
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Body>, Heard> {
        let client: Client = self.credentials.client().await.map_err(Heard::Broken)?;
        let sent = timeout(ANSWER, client.send(request.map(Body::from))).await;
        let response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(Heard::Broken(in_words(&e))),
            Err(_) => return Err(Heard::Broken(format!("no answer within {} s", ANSWER.as_secs()))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::UNAUTHORIZED {
            self.credentials.doubt().await;
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = whole(response, PAGE_SILENCE).await.unwrap_or_default();
        let message = decode::status_message(&body);
        let message = message.or_else(|| status.canonical_reason().map(str::to_owned)).unwrap_or_default();
        Err(Heard::Refused(Refusal {
            status: status.as_u16(),
            message,
            retry_after: retry_after.map(Duration::from_secs),
        }))
    }
}

fn note(heard: &Heard) {
    match heard {
        Heard::Broken(why) => tracing::info!(%why, "broken off"),
        Heard::Refused(refusal) => {
            tracing::info!(status = refusal.status, message = %refusal.message, "refused");
        }
        Heard::Closed => tracing::debug!("closed"),
        Heard::Page(_) | Heard::Opened | Heard::Event(_) => {}
    }
}

/// A whole body, unless it stands still or is too large.
async fn whole(response: Response<Body>, silence: Duration) -> Result<Bytes, String> {
    let mut body = response.into_body();
    let mut text = BytesMut::new();
    loop {
        match timeout(silence, body.frame()).await {
            Err(_) => return Err("the answer stood still".to_owned()),
            Ok(None) => return Ok(text.freeze()),
            Ok(Some(Err(e))) => return Err(in_words(&e)),
            Ok(Some(Ok(frame))) => text.extend_from_slice(&frame.into_data().unwrap_or_default()),
        }
        if text.len() > MAX_TEXT {
            return Err(format!("the answer is longer than {} MiB", MAX_TEXT >> 20));
        }
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// No line ends before this.
    searched: usize,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What the end of the stream means.
    fn end(&self) -> Heard {
        match self.buffer.is_empty() {
            true => Heard::Closed,
            false => Heard::Broken("the watch ended in the middle of a line".to_owned()),
        }
    }

    /// The next line that is complete and not empty.
    fn next(&mut self) -> Option<BytesMut> {
        loop {
            let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + found);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.is_empty() {
                return Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests;
