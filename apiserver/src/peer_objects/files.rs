//! The files of peers that are MeshPeers: written so that a reader sees the old or the new, never a mixture.
//!
//! A peer's PEM files are a folder `.tls/<peer>-<n>`; `.tls/<peer>` is a link to the current one, and is replaced at
//! once, as Kubernetes does with volumes. The client file names them through the link.

use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use tombolo_certs::{Expected, Severity, TlsFiles, Usage, write_private, write_public};
use tombolo_core::id::ClusterName;
use tombolo_kube::status::Problem;
use tombolo_wire::etcd_config::{self, TOMBSTONE};

use super::want::{FOLDER, PEMS, Wanted, problem};

/// The peers that have a file.
pub fn present(dir: &Path) -> Vec<ClusterName> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().filter(|entry| entry.path().is_file()).map(|entry| entry.file_name());
    names.filter_map(|name| ClusterName::new(name.to_str()?).ok()).collect()
}

/// Writes what differs. A warning when the certificate ends soon. On a problem nothing is changed.
pub(super) fn put(dir: &Path, wanted: &Wanted, unix_ms: u64) -> Result<Option<String>, Problem> {
    let unwritable = |error: String| problem("Unwritable", format!("the peers directory cannot be written: {error}"));
    let tls = dir.join(FOLDER);
    fs::create_dir_all(&tls).map_err(|e| unwritable(e.to_string()))?;
    let name = wanted.peer.as_str();
    let link = tls.join(name);
    let current = fs::read_link(&link).ok();
    let folder = match &current {
        Some(folder) if has(&tls.join(folder), wanted) => folder.clone(),
        _ => fresh(&tls, name, wanted).map_err(unwritable)?,
    };
    let warning = match judge(&tls.join(&folder), unix_ms) {
        Ok(warning) => warning,
        Err(problem) => {
            if current.as_ref() != Some(&folder) {
                remove_folder(&tls.join(folder));
            }
            return Err(problem);
        }
    };
    if current.as_ref() != Some(&folder) {
        point(&link, &folder).map_err(|e| unwritable(e.to_string()))?;
        current.iter().for_each(|old| remove_folder(&tls.join(old)));
    }
    let text = etcd_config::render(&wanted.config);
    let path = dir.join(name);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(warning);
    }
    write_public(&path, text.as_bytes()).map_err(|e| unwritable(e.to_string()))?;
    remove_file(&dir.join(format!("{TOMBSTONE}{name}"))).map_err(|e| unwritable(e.to_string()))?;
    Ok(warning)
}

/// Removes a peer's files, leaving the tombstone that says so first.
pub(super) fn remove(dir: &Path, peer: &ClusterName) -> io::Result<()> {
    fs::write(dir.join(format!("{TOMBSTONE}{peer}")), "")?;
    remove_file(&dir.join(peer.as_str()))?;
    let link = dir.join(FOLDER).join(peer.as_str());
    if let Ok(folder) = fs::read_link(&link) {
        remove_file(&link)?;
        remove_folder(&dir.join(FOLDER).join(folder));
    }
    Ok(())
}

fn has(folder: &Path, wanted: &Wanted) -> bool {
    PEMS.iter().zip(&wanted.pems).all(|(file, content)| fs::read(folder.join(file)).is_ok_and(|old| old == *content))
}

/// A folder that no link names, with the wanted PEM files in it; its name.
fn fresh(tls: &Path, name: &str, wanted: &Wanted) -> Result<PathBuf, String> {
    // One that an earlier life left half written is no obstacle.
    let current = fs::read_link(tls.join(name)).ok();
    let mut numbers = (0_u32..).map(|n| PathBuf::from(format!("{name}.{n}")));
    let folder = numbers.find(|folder| Some(folder) != current.as_ref()).expect("numbers do not end");
    remove_folder(&tls.join(&folder));
    let path = tls.join(&folder);
    let [ca, cert, key] = &wanted.pems;
    fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let public = |file: &str, content: &[u8]| write_public(&path.join(file), content);
    let written = public(PEMS[0], ca).and_then(|()| public(PEMS[1], cert));
    written.and_then(|()| write_private(&path.join(PEMS[2]), key)).map_err(|e| e.to_string())?;
    Ok(folder)
}

/// Whether a peer can be reached with these files; a warning when not for long.
fn judge(folder: &Path, unix_ms: u64) -> Result<Option<String>, Problem> {
    let [ca, cert, key] = PEMS.map(|file| folder.join(file));
    let files = TlsFiles { ca, cert, key };
    let expected = Expected { usages: vec![Usage::Client], ..Expected::default() };
    let found = tombolo_certs::verify(&files, &expected, unix_ms / 1_000);
    let worst = found.iter().max_by_key(|problem| problem.severity());
    let Some(worst) = worst else { return Ok(None) };
    // Paths are this program's own; a person knows the keys of the Secret.
    let said = worst.to_string().replace(&format!("{}/", folder.display()), "");
    match worst.severity() {
        Severity::Warning => Ok(Some(said)),
        Severity::Error => Err(problem(reason(worst), format!("{said}: {}", worst.remedy()))),
    }
}

fn reason(problem: &tombolo_certs::Problem) -> &'static str {
    use tombolo_certs::Problem;
    match problem {
        Problem::OtherAuthority { .. } => "CertificateOfAnotherCA",
        Problem::Expired { .. } | Problem::AuthorityExpired { .. } => "CertificateExpired",
        Problem::NotYetValid { .. } => "CertificateNotYetValid",
        Problem::KeyMismatch { .. } => "KeyOfAnotherCertificate",
        _ => "CertificateUnusable",
    }
}

/// Makes the link name the folder, at once.
fn point(link: &Path, folder: &Path) -> io::Result<()> {
    let temporary = link.with_file_name(format!(".{}", folder.display()));
    remove_file(&temporary)?;
    symlink(folder, &temporary)?;
    fs::rename(temporary, link)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A folder that stays is written over before it is used again.
fn remove_folder(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot be removed");
    }
}
