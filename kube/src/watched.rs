//! The objects of one resource as the API server has them, kept while it is gone.
//!
//! An object leaves when its removal is watched, or when it is missing from a complete list *and* the API server, asked
//! for it by name, says that there is none. A list that failed or came back short therefore removes nothing, and neither
//! does an API server that is gone or does not know the resource.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How soon the API server is asked again for an object that a list did not have.
const CONFIRM_AGAIN: Duration = Duration::from_secs(5);

/// The pauses between a failure and the next list: the first, doubled up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Namespace and name; no namespace is the empty one.
pub type ObjectName = (String, String);

/// What is known of a resource.
#[derive(Debug)]
pub struct Watched<K> {
    /// The objects that exist.
    pub objects: BTreeMap<ObjectName, Arc<K>>,
    /// Those of which nobody knows: no list has them, and the API server was not heard to say that there are none.
    pub unconfirmed: BTreeSet<ObjectName>,
    /// Whether a complete list was read since the start.
    pub complete: bool,
    /// Whether the API server was heard to say, before any list, that it does not know the resource.
    pub undefined: bool,
    /// Why nothing new is known at present, for people.
    pub fault: Option<String>,
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), unconfirmed: BTreeSet::new(), complete: false, undefined: false, fault: None }
    }
}

/// Follows a resource until nobody listens to `said`. `api` is where an object is asked for by its name; `all` is what is
/// listed. `said` may begin with names in `unconfirmed`, of objects that an earlier life of this program knew.
pub async fn follow<K>(
    all: Api<K>,
    config: watcher::Config,
    api: impl Fn(&ObjectName) -> Api<K>,
    said: watch::Sender<Watched<K>>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    while !said.is_closed() {
        let begun = Instant::now();
        listen(all.clone(), config.clone(), &api, &said).await;
        // A watch that lived for a while was a good one.
        pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::select! {
            () = said.closed() => return,
            () = sleep(pause) => {}
        }
    }
}

/// One list and the watch that follows it. Its first failure is its end: an API server that was restored from an older
/// state would else be asked for ever from a revision that it has not reached.
async fn listen<K>(
    all: Api<K>,
    config: watcher::Config,
    api: &impl Fn(&ObjectName) -> Api<K>,
    said: &watch::Sender<Watched<K>>,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(all, config));
    let mut list = None;
    loop {
        let open = said.borrow().complete && !said.borrow().unconfirmed.is_empty();
        tokio::select! {
            () = said.closed() => return,
            event = events.next() => match event {
                None => return,
                Some(Ok(event)) => said.send_modify(|watched| watched.take(event, &mut list)),
                Some(Err(error)) => {
                    tracing::warn!(resource = %K::plural(&()), %error, "watch");
                    let undefined = is_undefined(&error);
                    said.send_modify(|watched| {
                        watched.fault = Some(error.to_string());
                        watched.undefined = undefined && !watched.complete;
                    });
                    return;
                }
            },
            () = sleep(CONFIRM_AGAIN), if open => {}
        }
        if list.is_none() {
            confirm(api, said).await;
        }
    }
}

/// The same for all objects of a resource that belongs to no namespace.
pub async fn follow_all<K>(client: &Client, said: watch::Sender<Watched<K>>)
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api = Api::all(client.clone());
    follow(api.clone(), watcher::Config::default(), move |_| api.clone(), said).await;
}

/// The same for those of one namespace.
pub async fn follow_in<K>(client: &Client, namespace: &str, said: watch::Sender<Watched<K>>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api = Api::namespaced(client.clone(), namespace);
    follow(api.clone(), watcher::Config::default(), move |_| api.clone(), said).await;
}

/// The same for those of all namespaces that have these labels.
pub async fn follow_labelled<K>(client: &Client, selector: &str, said: watch::Sender<Watched<K>>)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = watcher::Config::default().labels(selector);
    let at = |name: &ObjectName| Api::namespaced(client.clone(), &name.0);
    follow(Api::all(client.clone()), config, at, said).await;
}

/// Asks for each object that a complete list did not have.
async fn confirm<K>(api: &impl Fn(&ObjectName) -> Api<K>, said: &watch::Sender<Watched<K>>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let open: Vec<ObjectName> = match &*said.borrow() {
        watched if watched.complete => watched.unconfirmed.iter().cloned().collect(),
        _ => return,
    };
    for name in open {
        match api(&name).get(&name.1).await {
            Ok(object) => said.send_modify(|watched| watched.put(object)),
            Err(error) if says_absent(&error, &name.1) => said.send_modify(|watched| {
                watched.unconfirmed.remove(&name);
            }),
            Err(error) => {
                tracing::warn!(resource = %K::plural(&()), name = %name.1, %error, "a list did not have it: kept");
                return;
            }
        }
    }
}

/// Whether a list failed because nobody has defined the resource.
fn is_undefined(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// Whether the API server says that there is no object of that name. That it does not know the resource is no such word.
fn says_absent(error: &kube::Error, name: &str) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.code == 404 && status.details.as_ref().is_some_and(|details| details.name == name)
}

impl<K: Resource<DynamicType = ()>> Watched<K> {
    /// Takes in an event. `list` is what the list in progress has named so far; none between lists.
    fn take(&mut self, event: Event<K>, list: &mut Option<BTreeSet<ObjectName>>) {
        match event {
            Event::Init => *list = Some(BTreeSet::new()),
            Event::InitApply(object) => {
                list.get_or_insert_default().insert(name_of(&object));
                self.put(object);
            }
            Event::InitDone => {
                let listed = list.take().unwrap_or_default();
                // They stay until the API server has said of each that it does not exist.
                let missing = self.objects.keys().filter(|name| !listed.contains(*name)).cloned();
                self.unconfirmed.extend(missing);
                self.objects.retain(|name, _| listed.contains(name));
                self.complete = true;
                self.undefined = false;
                self.fault = None;
            }
            Event::Apply(object) => {
                self.fault = None;
                self.put(object);
            }
            Event::Delete(object) => {
                self.fault = None;
                let name = name_of(&object);
                self.objects.remove(&name);
                self.unconfirmed.remove(&name);
            }
        }
    }

    fn put(&mut self, object: K) {
        let name = name_of(&object);
        self.unconfirmed.remove(&name);
        self.objects.insert(name, Arc::new(object));
    }
}

fn name_of<K: Resource<DynamicType = ()>>(object: &K) -> ObjectName {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{MeshPeer, MeshPeerSpec};

    fn peer(name: &str) -> MeshPeer {
        MeshPeer::new(name, MeshPeerSpec::default())
    }

    fn told(watched: &Watched<MeshPeer>) -> String {
        let names = |names: Vec<&ObjectName>| names.iter().map(|(_, n)| n.as_str()).collect::<Vec<_>>().join(",");
        let (there, open) = (watched.objects.keys().collect(), watched.unconfirmed.iter().collect());
        format!("{} / {}", names(there), names(open))
    }

    fn check(events: Vec<Event<MeshPeer>>, expected: &str) {
        let (mut watched, mut list) = (Watched::default(), None);
        watched.unconfirmed.insert((String::new(), "old".into()));
        for event in events {
            watched.take(event, &mut list);
        }
        assert_eq!(told(&watched), expected);
    }

    #[test]
    fn an_object_leaves_by_a_watched_removal_or_by_two_answers() {
        use Event::*;
        let list = |names: &[&str]| {
            let all = names.iter().map(|name| InitApply(peer(name)));
            [Init].into_iter().chain(all).chain([InitDone]).collect::<Vec<_>>()
        };
        check(list(&["ne", "old"]), "ne,old / ");
        check(list(&["ne"]), "ne / old");
        // A short list: what it lacks is asked for.
        check([list(&["ne", "we"]), list(&["we"])].concat(), "we / ne,old");
        // A list that never ends removes nothing.
        check([list(&["ne", "we"]), vec![Init, InitApply(peer("we"))]].concat(), "ne,we / old");
        check([list(&["ne", "we"]), vec![Delete(peer("ne"))]].concat(), "we / old");
        check([list(&["ne", "we"]), list(&["we"]), vec![Apply(peer("ne"))]].concat(), "ne,we / old");
    }

    #[test]
    fn only_an_answer_about_the_object_counts() {
        let error = |code, name: Option<&str>| {
            let details = name.map(|name| json!({ "name": name }));
            let status = json!({ "code": code, "reason": "NotFound", "message": "", "details": details });
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        assert!(says_absent(&error(404, Some("ne")), "ne"));
        assert!(!says_absent(&error(404, None), "ne"));
        assert!(!says_absent(&error(404, Some("we")), "ne"));
        assert!(!says_absent(&error(503, Some("ne")), "ne"));
    }
}
