//! `enable`: everything that a cluster of the mesh needs, put into it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tombolo_certs::{Authority, CA_KEY_FILE, DEFAULT_CA_NAME, Validity, bundle, certificates, inspect};
use tombolo_kube::apply::Document;
use tombolo_kube::install::{Found, Ingress, SYSTEM_NAMESPACE};

use super::config::{ClusterConfig, Shape};
use super::leaves::{CA_SECRET, LeafDone, Wanted, authority_of, authority_secret, leaves, secret_name};
use super::manifests::manifests;
use super::{Put, Site};
use crate::args::{EnableArgs, Profile};

/// How long an authority is valid that is made here.
const AUTHORITY_DAYS: u32 = 3650;

/// What was put into a cluster.
#[derive(Debug, Serialize)]
pub(crate) struct Enabled {
    /// The cluster.
    pub cluster: String,
    /// Its id.
    pub id: u16,
    /// Its context.
    pub context: String,
    /// What is installed.
    pub profile: Profile,
    /// Who signs.
    pub authority: AuthorityDone,
    /// The leaves.
    pub leaves: Vec<LeafDone>,
    /// All objects.
    pub objects: Vec<Put>,
}

/// The authority of a cluster, and where it is from.
#[derive(Debug, Serialize)]
pub(crate) struct AuthorityDone {
    /// Where it is from.
    pub from: Origin,
    /// Subject and beginning of the fingerprint.
    pub subject: String,
}

/// Where an authority is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Origin {
    /// It was there.
    Kept,
    /// It is new.
    Made,
    /// A directory.
    Directory(String),
    /// Another cluster's context.
    Context(String),
}

/// Puts everything into a cluster. `now` is in unix seconds.
pub(crate) async fn enable(args: &EnableArgs, now: u64) -> Result<Enabled> {
    let site = Site::open(args.kubeconfig.as_deref(), args.context.as_deref()).await?;
    let found = site.read().await?;
    let config = ClusterConfig::wanted(args, &found).with_context(|| format!("context {}", site.context))?;
    let shape = Shape::wanted(args, &found);
    let (authority, from) = authority(args, &site, &found, now).await?;
    let (dns, ips) = names(args, &found);
    let auth_mode = args.auth_mode.map(Into::into);
    let wanted = Wanted { cluster: &config.name, dns: &dns, ips: &ips, auth_mode, days: args.days };
    let made = leaves(&authority, &wanted, &found.secrets, now)?;
    let (leaves, secrets): (Vec<LeafDone>, Vec<Document>) = made.into_iter().unzip();
    let manifests = manifests(&shape, &config, &trusted(&authority, &found)?);

    let mut objects = site.put(&manifests.before).await?;
    let own = [config.document(&shape), authority_secret(&authority)];
    objects.extend(site.put(&own).await?);
    objects.extend(site.put(&secrets).await?);
    objects.extend(site.put(&manifests.after).await?);
    Ok(Enabled {
        cluster: config.name.to_string(),
        id: config.id.get(),
        context: site.context,
        profile: shape.profile,
        authority: AuthorityDone { from, subject: authority.info().short() },
        leaves,
        objects,
    })
}

/// The authority that is asked for, else the one that is there, else a new one.
async fn authority(args: &EnableArgs, site: &Site, found: &Found, now: u64) -> Result<(Authority, Origin)> {
    let make = || Authority::create(DEFAULT_CA_NAME, Validity::days(now, AUTHORITY_DAYS));
    if let Some(dir) = &args.ca {
        if is_empty(dir) {
            let made = make()?;
            made.save(dir)?;
            return Ok((made, Origin::Made));
        }
        return Ok((Authority::load(dir)?, Origin::Directory(dir.display().to_string())));
    }
    if let Some(context) = &args.ca_from {
        let other = Site::open(args.kubeconfig.as_deref(), Some(context)).await?;
        let secret = other.install().secret(SYSTEM_NAMESPACE, CA_SECRET).await.map_err(|e| other.failed(e))?;
        let Some(secret) = secret else {
            bail!(
                "context {context} has no Secret {SYSTEM_NAMESPACE}/{CA_SECRET}: enable it first, or give --ca CA_DIR"
            );
        };
        return Ok((authority_of(&secret, context)?, Origin::Context(context.clone())));
    }
    if let Some(secret) = found.secrets.get(CA_SECRET) {
        return Ok((authority_of(secret, &site.context)?, Origin::Kept));
    }
    // Leaves without their authority were issued elsewhere: another one would cut the cluster off from its peers.
    if found.secrets.contains_key(secret_name(tombolo_certs::Role::Server)) {
        bail!(
            "context {}: there are certificates, but no Secret {SYSTEM_NAMESPACE}/{CA_SECRET}: give their authority with \
             --ca CA_DIR or --ca-from CONTEXT",
            site.context
        );
    }
    Ok((make()?, Origin::Made))
}

/// Whether an authority is still to be made there.
fn is_empty(dir: &Path) -> bool {
    ![CA_KEY_FILE, "tls.key"].iter().any(|name| dir.join(name).exists()) && !dir.join("ca.crt").exists()
}

/// What the server is called besides: as said, and as its load balancer is.
fn names(args: &EnableArgs, found: &Found) -> (Vec<String>, Vec<std::net::IpAddr>) {
    let mut dns = args.dns.clone();
    for ingress in found.store.iter().flat_map(|store| &store.ingress) {
        // Addresses are dialled under a name that every server has.
        if let Ingress::Host(host) = ingress {
            dns.push(host.clone());
        }
    }
    (dns, args.ip.clone())
}

/// Whom the store will trust.
fn trusted(authority: &Authority, found: &Found) -> Result<Vec<tombolo_certs::CertInfo>> {
    let before = found.secrets.get(secret_name(tombolo_certs::Role::Server)).map(|secret| secret.ca.as_slice());
    let all = bundle(authority.certificate_pem(), &String::from_utf8_lossy(before.unwrap_or_default()));
    let name = Path::new("ca.crt");
    let read = certificates(name, all.as_bytes())?;
    Ok(read.iter().map(|certificate| inspect(name, certificate)).collect::<Result<_, _>>()?)
}
