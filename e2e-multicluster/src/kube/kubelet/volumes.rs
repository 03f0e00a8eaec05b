//! A Pod's volumes, as folders of this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tombolo_kube::objects::Kind;

use super::{Host, container, text_of};

/// Makes every volume of a Pod that is not there yet, and fills those of Secrets and ConfigMaps as these are now. Gives
/// the folders by the volumes' names.
pub(super) async fn make(host: &Host, node: &str, dir: &Path, pod: &Value) -> Result<BTreeMap<String, PathBuf>> {
    let mut made = BTreeMap::new();
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let name = text_of(volume, "name")?;
        let folder = match volume["hostPath"]["path"].as_str() {
            Some(path) => host_path(host, node, path),
            None => dir.join("volumes").join(name),
        };
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        fill(host, pod, volume, &folder).await.with_context(|| format!("volume {name}"))?;
        made.insert(name.to_owned(), folder);
    }
    Ok(made)
}

/// What a node has at a path. Its cgroups and its BPF file system are the run's; all else is a folder for each node.
fn host_path(host: &Host, node: &str, path: &str) -> PathBuf {
    match path {
        "/sys/fs/cgroup" => {
            let place = host.site.nodes.iter().find(|n| n.name == node).map(|n| n.place.cgroup.clone());
            place.unwrap_or_else(|| PathBuf::from(path))
        }
        "/sys/fs/bpf" => host.bpffs.join(node),
        other => host.dir.join("node").join(node).join(other.trim_start_matches('/')),
    }
}

async fn fill(host: &Host, pod: &Value, volume: &Value, folder: &Path) -> Result<()> {
    if let Some(secret) = volume.get("secret") {
        return object(host, pod, "Secret", text_of(secret, "secretName")?, secret, folder).await;
    }
    if let Some(config) = volume.get("configMap") {
        return object(host, pod, "ConfigMap", text_of(config, "name")?, config, folder).await;
    }
    for source in volume["projected"]["sources"].as_array().into_iter().flatten() {
        if let Some(secret) = source.get("secret") {
            object(host, pod, "Secret", text_of(secret, "name")?, secret, folder).await?;
        } else if let Some(config) = source.get("configMap") {
            object(host, pod, "ConfigMap", text_of(config, "name")?, config, folder).await?;
        } else if let Some(token) = source.get("serviceAccountToken") {
            fs::write(folder.join(text_of(token, "path")?), account_token(host, pod, token).await?)?;
        } else if let Some(items) = source["downwardAPI"]["items"].as_array() {
            for item in items {
                let value = container::field(pod, text_of(&item["fieldRef"], "fieldPath")?)?;
                fs::write(folder.join(text_of(item, "path")?), value)?;
            }
        } else {
            bail!("the harness's kubelet does not know the source {source}");
        }
    }
    let known = ["emptyDir", "hostPath", "projected"].iter().any(|kind| volume.get(kind).is_some());
    if known { Ok(()) } else { bail!("the harness's kubelet does not know this kind of volume: {volume}") }
}

/// Writes the keys of a Secret or ConfigMap as files, each as a whole: who watches the folder sees no half of one.
async fn object(host: &Host, pod: &Value, kind: &str, name: &str, source: &Value, folder: &Path) -> Result<()> {
    let namespace = text_of(&pod["metadata"], "namespace")?;
    let found = host.objects.get(&Kind::new("v1", kind).named(namespace, name)).await?;
    let Some(found) = found else {
        return if source["optional"] == true { Ok(()) } else { bail!("there is no {kind} {namespace}/{name}") };
    };
    let data = data(&found)?;
    let files: Vec<(&str, &str)> = match source["items"].as_array() {
        None => data.keys().map(|key| (key.as_str(), key.as_str())).collect(),
        Some(items) => items.iter().map(|i| Ok((text_of(i, "key")?, text_of(i, "path")?))).collect::<Result<_>>()?,
    };
    for (key, path) in files {
        let bytes = data.get(key).with_context(|| format!("{kind} {namespace}/{name} has no key {key}"))?;
        let (target, whole) = (folder.join(path), folder.join(format!(".{}.new", path.replace('/', "-"))));
        fs::create_dir_all(target.parent().unwrap_or(folder))?;
        fs::write(&whole, bytes)?;
        fs::rename(&whole, &target)?;
    }
    Ok(())
}

/// What a Secret or ConfigMap holds, by key.
pub(super) fn data(object: &Value) -> Result<BTreeMap<String, Vec<u8>>> {
    let is_secret = object["kind"] == "Secret";
    let entries = object["data"].as_object().into_iter().flatten();
    let decode = |(key, value): (&String, &Value)| {
        let text = value.as_str().with_context(|| format!("{key} is text"))?;
        let bytes = if is_secret { BASE64_STANDARD.decode(text)? } else { text.as_bytes().to_vec() };
        Ok((key.clone(), bytes))
    };
    entries.map(decode).collect()
}

async fn account_token(host: &Host, pod: &Value, source: &Value) -> Result<String> {
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let name = Kind::new("v1", "ServiceAccount").named(text_of(&pod["metadata"], "namespace")?, account);
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": source["expirationSeconds"].as_u64().unwrap_or(3600), "audiences": []},
    });
    let answer = host.objects.post(&name, "token", &request).await?;
    Ok(answer["status"]["token"].as_str().context("the API gives a token")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_bytes_and_a_config_map_text() {
        let secret = json!({"kind": "Secret", "data": {"a": "aGVsbG8="}});
        assert_eq!(data(&secret).unwrap()["a"], b"hello");
        let config = json!({"kind": "ConfigMap", "data": {"a": "aGVsbG8="}});
        assert_eq!(data(&config).unwrap()["a"], b"aGVsbG8=");
        assert!(data(&json!({"kind": "Secret", "data": {"a": "***"}})).is_err());
    }
}
