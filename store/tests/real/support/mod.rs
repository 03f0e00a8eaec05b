//! An etcd of one member, its certificates, and a consumer that marks and sweeps.

mod clock;
mod etcd;
mod mirror;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tombolo_certs::{AuthMode, Authority, Leaf, LeafRequest, TlsFiles, Validity};

pub(crate) use self::clock::until;
pub(crate) use self::etcd::{Etcd, Life};
pub(crate) use self::mirror::{Mirror, until_event};

/// Everything that should happen happens within this time.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A cluster's leaves in a directory, and the authority that made them.
pub(crate) struct Pki {
    authority: Authority,
    dir: PathBuf,
}

impl Pki {
    pub(crate) fn new(dir: &Path) -> Self {
        let authority = Authority::create("Test CA", validity()).unwrap();
        let dir = dir.join("tls");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca.crt"), authority.certificate_pem()).unwrap();
        let pki = Self { authority, dir };
        pki.issue("server", "we", Leaf::Server { namespace: "kube-system".into(), dns: vec![], ips: vec![] });
        pki.issue("admin", "we", Leaf::Admin);
        pki.issue("local", "we", Leaf::Local);
        pki.issue("remote", "we", Leaf::Remote(AuthMode::Migration));
        pki.issue("remote-ne", "ne", Leaf::Remote(AuthMode::Cluster));
        pki
    }

    /// Writes `name.crt` and `name.key`.
    pub(crate) fn issue(&self, name: &str, cluster: &str, leaf: Leaf) {
        let issued =
            self.authority.issue(&LeafRequest { cluster: cluster.into(), leaf, validity: validity() }).unwrap();
        std::fs::write(self.dir.join(format!("{name}.crt")), issued.cert_pem).unwrap();
        std::fs::write(self.dir.join(format!("{name}.key")), issued.key_pem).unwrap();
    }

    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.dir.join("ca.crt"),
            cert: self.dir.join(format!("{name}.crt")),
            key: self.dir.join(format!("{name}.key")),
        }
    }
}

fn validity() -> Validity {
    Validity::days(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(), 1)
}
