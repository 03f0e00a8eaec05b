//! Debian's kernels, by a configuration of apt's own: the machine's sources, lists and packages stay as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::shell::{command, is_root, read};

/// How old package lists may be before they are fetched again.
const LISTS_FRESH: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The keys of Debian's archive.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel that is here.
pub(super) struct Kernel {
    /// As `5.10`.
    pub(super) series: &'static str,
    /// As `5.10.0-46-cloud-amd64`.
    pub(super) version: String,
    /// The image to boot.
    pub(super) image: PathBuf,
    /// Where its modules are, by the folders of the kernel's source.
    pub(super) modules: PathBuf,
}

/// apt with its own sources, lists and cache below one folder.
pub(super) struct Apt {
    folder: PathBuf,
}

/// An archive of this machine's sources: where it is, and which of Debian's two it is.
struct Mirror {
    address: String,
    label: String,
}

impl Apt {
    /// Prepares the folder; nothing is fetched yet.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join("apt").join(part))?;
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// The newest kernel of each series in its release. One that was fetched earlier stands in where the archive cannot
    /// be reached.
    pub(super) fn kernels(&self, wanted: &[(&'static str, &str)]) -> Result<Vec<Kernel>> {
        let updated = if self.is_fresh() { Ok(()) } else { self.update(wanted) };
        wanted
            .iter()
            .map(|(series, release)| {
                let newest = self.names(series).ok().and_then(|names| newest(&names, series));
                let fetched = newest.and_then(|name| self.fetch(series, &name).ok());
                let kernel = fetched.or_else(|| self.earlier(series));
                let why = || match &updated {
                    Ok(()) => format!("{release} has no package of kernel {series} that can be fetched"),
                    Err(error) => format!("no kernel {series}: {error:#}"),
                };
                kernel.with_context(why)
            })
            .collect()
    }

    fn is_fresh(&self) -> bool {
        let age = fs::metadata(self.folder.join("apt/updated")).and_then(|file| file.modified()).map(|at| at.elapsed());
        age.is_ok_and(|age| age.is_ok_and(|age| age < LISTS_FRESH))
    }

    /// Fetches the package lists of the releases, from the archives that this machine uses anyway.
    fn update(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let mirrors = mirrors()?;
        let releases: BTreeSet<_> = wanted.iter().map(|(_, release)| *release).collect();
        let line = |mirror: &Mirror, release: &str| {
            let suite = if mirror.label == "Debian-Security" { "-security" } else { "" };
            format!("deb [signed-by={KEYS}] {} {release}{suite} main\n", mirror.address)
        };
        let sources: String = releases.iter().flat_map(|r| mirrors.iter().map(move |m| line(m, r))).collect();
        fs::write(self.folder.join("apt/sources.list"), sources)?;
        println!("fetching the package lists of {}", releases.into_iter().collect::<Vec<_>>().join(", "));
        read(self.apt("apt-get").args(["update", "-qq"])).context("Debian's package lists")?;
        fs::write(self.folder.join("apt/updated"), "").context("noting when the lists were fetched")
    }

    /// Names of packages that begin like a kernel of a series.
    fn names(&self, series: &str) -> Result<Vec<String>> {
        let names = read(self.apt("apt-cache").arg("pkgnames").arg(format!("linux-image-{series}.")))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Fetches and unpacks a kernel package, unless it is here.
    fn fetch(&self, series: &'static str, package: &str) -> Result<Kernel> {
        let folder = self.folder.join(package);
        if let Some(kernel) = unpacked(series, &folder) {
            return Ok(kernel);
        }
        let fetched = self.folder.join("download");
        let _ = fs::remove_dir_all(&fetched); // of a run that was interrupted
        fs::create_dir_all(&fetched)?;
        println!("fetching {package} (about 25 MB, once)");
        read(self.apt("apt-get").args(["download", "-qq", package]).current_dir(&fetched))?;
        let deb = fs::read_dir(&fetched)?.next().context("apt-get downloaded nothing")??.path();
        read(command(&fetched, "dpkg").arg("-x").args([&deb, &fetched.join("package")]))?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(fetched.join("package"), &folder)?;
        fs::remove_dir_all(&fetched)?;
        unpacked(series, &folder).with_context(|| format!("{package} has no kernel image"))
    }

    /// The newest kernel of a series that was unpacked earlier.
    fn earlier(&self, series: &'static str) -> Option<Kernel> {
        let folders = fs::read_dir(&self.folder).ok()?;
        let names: Vec<_> = folders.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        unpacked(series, &self.folder.join(newest(&names, series)?))
    }

    fn apt(&self, program: &str) -> Command {
        let folder = self.folder.join("apt");
        let mut apt = command(&self.folder, program);
        let at = |setting: &str, place: &str| format!("{setting}={}", folder.join(place).display());
        for setting in [
            at("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            at("Dir::State::Lists", "lists"),
            at("Dir::Cache", "cache"),
        ] {
            apt.args(["-o", &setting]);
        }
        if is_root() {
            // apt's sandbox user may not write below `target`.
            apt.args(["-o", "APT::Sandbox::User=root"]);
        }
        apt
    }
}

/// The image in an unpacked package.
fn unpacked(series: &'static str, folder: &Path) -> Option<Kernel> {
    let images = fs::read_dir(folder.join("boot")).ok()?;
    images.filter_map(Result::ok).find_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let modules = folder.join("lib/modules").join(&version).join("kernel");
        modules.is_dir().then(|| Kernel { series, version, image: entry.path(), modules })
    })
}

/// The signed cloud kernel of a series with the highest ABI number: `linux-image-5.10.0-46-cloud-amd64`. Backports to
/// an older release and unsigned builds have other names.
fn newest(names: &[String], series: &str) -> Option<String> {
    let prefix = format!("linux-image-{series}.0-");
    let abi = |name: &str| name.strip_prefix(&prefix)?.strip_suffix("-cloud-amd64")?.parse::<u32>().ok();
    let newest = names.iter().filter_map(|name| Some((abi(name)?, name))).max()?;
    Some(newest.1.clone())
}

/// Debian's archives among this machine's sources.
fn mirrors() -> Result<Vec<Mirror>> {
    let mut list = Command::new("apt-get");
    list.args(["indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)", "Created-By: Packages"]);
    let mirrors = mirrors_of(&read(&mut list)?);
    ensure!(!mirrors.is_empty(), "this machine's apt has no source of Debian's: run apt-get update, or add one");
    Ok(mirrors)
}

fn mirrors_of(targets: &str) -> Vec<Mirror> {
    let mut seen = BTreeSet::new();
    targets
        .lines()
        .filter_map(|line| {
            let (label, address) = line.strip_prefix("Debian ")?.split_once(' ')?;
            Some(Mirror { address: address.to_owned(), label: label.to_owned() })
        })
        .filter(|mirror| seen.insert(mirror.address.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{mirrors_of, newest};

    #[test]
    fn the_newest_signed_cloud_kernel_of_the_release_itself() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-57-cloud-amd64-unsigned",
            "linux-image-6.1.0-58-amd64",
            "linux-image-6.1.0-0.deb11.52-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&names, "6.1").as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&names, "5.10"), None);
    }

    #[test]
    fn only_debians_archives_and_each_once() {
        let targets = "Debian Debian http://mirror.example/debian/\nDebian Debian http://mirror.example/debian/\n\
                       Debian Debian-Security http://mirror.example/security/\n. nodistro https://node.example/\n";
        let found: Vec<_> = mirrors_of(targets).into_iter().map(|m| (m.label, m.address)).collect();
        let expected =
            [("Debian", "http://mirror.example/debian/"), ("Debian-Security", "http://mirror.example/security/")];
        assert_eq!(found, expected.map(|(label, address)| (label.to_owned(), address.to_owned())));
    }
}
