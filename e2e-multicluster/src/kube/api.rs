//! A cluster's API as a test uses it: from inside the cluster's namespace, one call after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tombolo_kube::apply;
use tombolo_kube::client::Access;
use tombolo_kube::objects::{Grace, How, Kind, Objects, Part, Selection};

use crate::clock::{Seen, wait_until};
use crate::netns;

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The API of a cluster, as the user of a kubeconfig.
#[derive(Clone, Debug)]
pub struct Api {
    /// The namespace that reaches it.
    pub netns: String,
    /// The file.
    pub kubeconfig: PathBuf,
}

impl Api {
    /// Runs a future of its own with the API, inside the namespace.
    ///
    /// # Errors
    /// The kubeconfig cannot be used, or the future's own.
    pub fn run<T, F>(&self, work: impl FnOnce(Objects) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        netns::inside(&self.netns, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async { work(self.objects().await?).await })
        })
    }

    /// The API for who runs inside the namespace already.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn objects(&self) -> Result<Objects> {
        let access = Access::Kubeconfig { file: Some(self.kubeconfig.clone()), context: None };
        Ok(Objects::new(access.client().await?, "tombolo-e2e"))
    }

    /// Whether the server says that it is ready.
    ///
    /// # Errors
    /// It does not answer, or says no.
    pub fn ready(&self) -> Result<()> {
        self.run(async |objects| Ok(patient(objects.text("/readyz")).await.map(drop)?))
    }

    /// Applies YAML, as `kubectl apply --server-side` would.
    ///
    /// # Errors
    /// A document is not applied; the message has its line.
    pub fn apply(&self, yaml: &str) -> Result<Vec<Value>> {
        let documents = apply::read(yaml)?;
        self.run(async |objects| Ok(patient(apply::apply(&objects, &documents, How::Write)).await?))
    }

    /// An object; nothing when there is none. `namespace` is `""` for kinds without.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Option<Value>> {
        let name = kind.named(namespace, name);
        self.run(async |objects| Ok(patient(objects.get(&name)).await?))
    }

    /// All objects of a kind in a namespace with these labels.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn list(&self, kind: &Kind, namespace: &str, labels: &str) -> Result<Vec<Value>> {
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        let selection = Selection { namespace, labels: labels.to_owned(), fields: String::new() };
        self.run(async |objects| Ok(patient(objects.list(kind, &selection)).await?.0))
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn merge(&self, kind: &Kind, namespace: &str, name: &str, change: &Value) -> Result<Value> {
        let name = kind.named(namespace, name);
        self.run(async |objects| Ok(patient(objects.merge(&name, Part::Main, change)).await?))
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn delete(&self, kind: &Kind, namespace: &str, name: &str) -> Result<()> {
        let name = kind.named(namespace, name);
        self.run(async |objects| Ok(patient(objects.delete(&name, Grace::Usual)).await?))
    }

    /// Scales a Deployment.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn scale(&self, namespace: &str, deployment: &str, replicas: u32) -> Result<()> {
        let name = Kind::new("apps/v1", "Deployment").named(namespace, deployment);
        let change = json!({"spec": {"replicas": replicas}});
        self.run(async |objects| Ok(patient(objects.merge(&name, Part::Scale, &change)).await.map(drop)?))
    }

    /// The addresses of a Service's endpoints that are ready, as its EndpointSlices have them, sorted.
    ///
    /// # Errors
    /// The API is not reached or refuses.
    pub fn endpoints(&self, namespace: &str, service: &str) -> Result<Vec<String>> {
        let slices = Kind::new("discovery.k8s.io/v1", "EndpointSlice");
        let slices = self.list(&slices, namespace, &format!("kubernetes.io/service-name={service}"))?;
        let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != json!(false));
        let addresses = ready.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
        let mut all: Vec<String> = addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect();
        all.sort();
        Ok(all)
    }

    /// Waits until a Service has so many ready endpoints; gives them.
    ///
    /// # Errors
    /// It has not within that time.
    pub fn wait_endpoints(
        &self,
        namespace: &str,
        service: &str,
        count: usize,
        within: Duration,
    ) -> Result<Vec<String>> {
        wait_until(&format!("{count} endpoints of {namespace}/{service}"), within, || {
            let seen = self.endpoints(namespace, service)?;
            Ok(if seen.len() == count { Seen::Ready(seen) } else { Seen::NotYet(format!("{seen:?}")) })
        })
    }

    /// The token that this kubeconfig speaks with.
    ///
    /// # Errors
    /// The file is not as it was written.
    pub fn token(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.kubeconfig)?;
        let token = text.lines().find_map(|line| line.trim().strip_prefix("token: "));
        Ok(token.context("the kubeconfig has a token")?.to_owned())
    }
}

/// A call that is not waited for longer than is good.
async fn patient<T, E>(call: impl Future<Output = Result<T, E>>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let begun = Instant::now();
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(result) => Ok(result?),
        Err(_) => bail!("no answer from the API within {} s", begun.elapsed().as_secs()),
    }
}
