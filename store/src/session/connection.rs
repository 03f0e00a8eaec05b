//! The session's IO: one connection, its requests in flight and its watch stream, as inputs for the state machine.

use std::collections::VecDeque;

use bytes::Bytes;
use etcd_client::{
    Client, ConnectOptions, GetOptions, GetResponse, KeyValue, ResponseHeader, WatchOptions, WatchRequestSender,
    WatchResponse, WatchResponseStream, WatchStream,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tonic::Code;

use super::SessionError;
use super::fsm::{Change, Command, Input, Record};
use super::life::Header;
use crate::config::StoreConfig;
use crate::dial::{DialError, Dialer, Reconnect};

/// The largest message we take: a page or a burst beyond it is asked for in smaller parts.
const MESSAGE_MAX: usize = 32 << 20;

/// A connection to a store, or the lack of one. Every method may be cancelled at any await.
pub(crate) struct Connection {
    store: StoreConfig,
    client: Option<Client>,
    calls: FuturesUnordered<BoxFuture<'static, Done>>,
    stream: Option<(WatchRequestSender, WatchResponseStream)>,
    /// Watches to ask for, once the stream is open.
    asked: VecDeque<(String, WatchOptions)>,
}

enum Done {
    Dialled(Result<Box<Client>, SessionError>),
    Opened(Result<WatchStream, SessionError>),
    Ranged(Input),
}

impl Connection {
    pub(crate) fn new(store: StoreConfig) -> Self {
        Self { store, client: None, calls: FuturesUnordered::new(), stream: None, asked: VecDeque::new() }
    }

    /// The client of the standing connection.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Carries out what is not for the consumer.
    pub(crate) fn execute(&mut self, command: Command) {
        match command {
            Command::Connect => {
                self.close();
                let store = self.store.clone();
                self.calls.push(Box::pin(async move { Done::Dialled(connect(&store).await.map(Box::new)) }));
            }
            Command::Close => self.close(),
            Command::Range { call, prefix, start, revision, limit } => {
                let Some(client) = self.client.clone() else { return };
                self.calls.push(Box::pin(async move {
                    Done::Ranged(range(client, call, &prefix, start, revision, limit).await)
                }));
            }
            Command::Watch { id, prefix, from } => self.watch(id, prefix, from),
            Command::Emit(_) | Command::Records { .. } => {}
        }
    }

    /// The next thing that happens; never, while nothing is under way.
    pub(crate) async fn next(&mut self) -> Input {
        loop {
            tokio::select! {
                biased;
                Some(done) = self.calls.next() => {
                    if let Some(input) = self.done(done) {
                        return input;
                    }
                }
                input = follow(&mut self.stream, &mut self.asked) => return input,
            }
        }
    }

    fn close(&mut self) {
        self.client = None;
        self.calls.clear();
        self.stream = None;
        self.asked.clear();
    }

    fn watch(&mut self, id: i64, prefix: String, from: i64) {
        let Some(client) = &self.client else { return };
        let options = WatchOptions::new().with_watch_id(id).with_start_revision(from);
        let options = if is_prefix(&prefix) { options.with_prefix() } else { options };
        let first = self.stream.is_none() && self.asked.is_empty();
        self.asked.push_back((prefix, options));
        if first {
            let (key, options) = self.asked.front().cloned().expect("one was just pushed");
            let mut watches = client.watch_client().max_decoding_message_size(MESSAGE_MAX);
            self.calls.push(Box::pin(async move {
                let opened = watches.watch(key.as_str(), Some(options)).await;
                Done::Opened(opened.map_err(|e| explain(&e, &key)))
            }));
        }
    }

    fn done(&mut self, done: Done) -> Option<Input> {
        match done {
            Done::Dialled(Ok(client)) => {
                self.client = Some(*client);
                Some(Input::Connected)
            }
            Done::Opened(Ok(stream)) => {
                self.asked.pop_front();
                self.stream = Some(stream.split());
                None
            }
            Done::Dialled(Err(reason)) | Done::Opened(Err(reason)) => Some(Input::Failed(reason)),
            Done::Ranged(input) => Some(input),
        }
    }
}

/// A new client on a connection of its own, which dies with it: a later answer cannot be another replica's.
pub(crate) async fn connect(store: &StoreConfig) -> Result<Client, SessionError> {
    let channel = Dialer::new(store)?.channel(Reconnect::Never).await?;
    let options = ConnectOptions::new().with_require_leader(true);
    let client = Client::from_channel(etcd_client::Channel::Tonic(channel), Some(options)).await;
    client.map_err(|e| explain(&e, "connect"))
}

async fn range(client: Client, call: u64, prefix: &str, start: Vec<u8>, revision: i64, limit: i64) -> Input {
    let mut kv = client.kv_client().max_decoding_message_size(MESSAGE_MAX);
    let options = GetOptions::new().with_limit(limit).with_revision(revision);
    let options = if is_prefix(prefix) { options.with_range(prefix_end(prefix)) } else { options };
    match kv.get(start, Some(options)).await {
        Ok(page) => page_input(call, page),
        Err(etcd_client::Error::GRpcStatus(s)) if s.code() == Code::OutOfRange => {
            // etcd says "required revision has been compacted", tonic "decoded message length too large".
            if s.message().contains("compacted") { Input::PageCompacted { call } } else { Input::TooLarge { call } }
        }
        Err(error) => Input::Failed(explain(&error, prefix)),
    }
}

fn page_input(call: u64, mut page: GetResponse) -> Input {
    let Some(header) = page.header().map(header_of) else { return headless() };
    let more = page.more();
    let kvs = page.take_kvs();
    let next = kvs.last().filter(|_| more).map(|last| [last.key(), b"\0"].concat());
    Input::Page { call, header, records: kvs.into_iter().map(record).collect(), next }
}

/// Asks for waiting watches and reads the stream, once there is one.
async fn follow(
    stream: &mut Option<(WatchRequestSender, WatchResponseStream)>,
    asked: &mut VecDeque<(String, WatchOptions)>,
) -> Input {
    let Some((sender, responses)) = stream else { return std::future::pending().await };
    while let Some((key, options)) = asked.front().cloned() {
        if sender.watch(key, Some(options)).await.is_err() {
            return Input::Failed(SessionError::WatchClosed);
        }
        asked.pop_front();
    }
    match responses.message().await {
        Ok(Some(response)) => watch_input(&response),
        Ok(None) => Input::Failed(SessionError::WatchClosed),
        Err(error) => Input::Failed(explain(&error, "watch")),
    }
}

fn watch_input(response: &WatchResponse) -> Input {
    let id = response.watch_id();
    if response.canceled() {
        let reason = match response.cancel_reason() {
            _ if response.compact_revision() > 0 => SessionError::Compacted,
            text if text.contains("permission denied") => SessionError::PermissionDenied { what: "watch".into() },
            text => SessionError::WatchCancelled(text.into()),
        };
        return Input::Cancelled { id, reason };
    }
    let Some(header) = response.header().map(header_of) else { return headless() };
    if response.created() {
        return Input::Created { id, header };
    }
    let changes = response.events().iter().filter_map(|e| e.kv()).map(change).collect();
    Input::News { id, header, changes }
}

/// A put has a version of 1 or more, a delete none. The event's own type is not asked: etcd-client panics on one that
/// it does not know, and a peer's store may send anything.
fn change(kv: &KeyValue) -> Change {
    if kv.version() > 0 {
        Change::Put(record(kv.clone()))
    } else {
        Change::Delete { key: text(kv.key()), revision: kv.mod_revision() }
    }
}

fn record(kv: KeyValue) -> Record {
    let (revision, created, version) = (kv.mod_revision(), kv.create_revision(), kv.version());
    let lease = kv.lease();
    let (key, value) = kv.into_key_value();
    Record { key: text(&key), value: Bytes::from(value), revision, created, version, lease }
}

/// Keys that are no UTF-8 become keys that no decoder knows; they are somebody's bad state, not an error.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

fn header_of(header: &ResponseHeader) -> Header {
    Header { cluster_id: header.cluster_id(), revision: header.revision() }
}

fn headless() -> Input {
    Input::Failed(SessionError::Request("the store answered without a header".into()))
}

/// A prefix ends in `/`; anything else is one exact key.
pub(crate) fn is_prefix(prefix: &str) -> bool {
    prefix.ends_with('/')
}

/// The first key after all that begin with `prefix`, which ends in `/`: `0` is the next character.
pub(crate) fn prefix_end(prefix: &str) -> String {
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}

/// What a failed request means to a session.
pub(crate) fn explain(error: &etcd_client::Error, what: &str) -> SessionError {
    if let Some(dial) = DialError::find(error) {
        return SessionError::Dial(dial);
    }
    match error {
        etcd_client::Error::GRpcStatus(s) if s.code() == Code::PermissionDenied => {
            SessionError::PermissionDenied { what: what.into() }
        }
        etcd_client::Error::GRpcStatus(s) => SessionError::Request(format!("{what}: {}", s.message())),
        other => SessionError::Request(format!("{what}: {other}")),
    }
}
