//! Programs that are built from Go modules of ours, each once for what it consists of.
//!
//! A stamp beside the binary says what that was: the module's files, the flags and Go's version. A file lock keeps two
//! builds of one program apart. What is missing is Go itself; a build that fails is a failure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::shell::{command, on_path, read, run, tools};

/// A Go module of ours with one program.
pub(crate) struct Module {
    /// The program's name, in `target/tools`.
    pub(crate) name: &'static str,
    /// Its folder in the repository.
    pub(crate) folder: &'static str,
    /// What is built in it: `.`, its own program, or the path of a tool that it pins.
    pub(crate) package: &'static str,
    /// Build tags, separated by commas.
    pub(crate) tags: &'static str,
    /// Variables that the linker sets: the package's path and name, and the value.
    pub(crate) set: &'static [(&'static str, &'static str)],
    /// How long a first build takes on two cores, in words.
    pub(crate) takes: &'static str,
}

/// What came of asking for a program.
pub(crate) enum Provided {
    /// It is here.
    Built(PathBuf),
    /// Go is not here, or too old; the text says which.
    NoGo(String),
}

/// What makes a module's program; its tests are of no interest to the build.
const FILES: [&str; 3] = ["main.go", "go.mod", "go.sum"];

impl Module {
    /// The program, built now if it was not built from just this before.
    pub(crate) fn provide(&self, root: &Path) -> Result<Provided> {
        let Some(go) = version(root) else { return Ok(Provided::NoGo("Go is not installed".to_owned())) };
        let source = root.join(self.folder);
        let read = |file| fs::read_to_string(source.join(file)).with_context(|| format!("{file} of {}", self.folder));
        let parts = self.files().iter().map(read).collect::<Result<Vec<_>>>()?;
        let go_mod = &parts[parts.len() - 2];
        let needed = needed(go_mod).with_context(|| format!("{}/go.mod does not name a Go version", self.folder))?;
        if numbers(&go) < numbers(needed) {
            return Ok(Provided::NoGo(format!("{} needs Go {needed}, here is {go}", self.folder)));
        }
        fs::create_dir_all(tools(root))?;
        let lock = File::create(tools(root).join(format!("{}.lock", self.name)))?;
        lock.lock().with_context(|| format!("wait for another build of {}", self.name))?;
        let (binary, stamp) = (tools(root).join(self.name), tools(root).join(format!("{}.stamp", self.name)));
        let wanted = format!("{go} {} {}\n{}", self.tags, self.linker_flags(), parts.concat());
        if !(binary.is_file() && fs::read_to_string(&stamp).is_ok_and(|built| built == wanted)) {
            self.build(root, &binary)?;
            fs::write(stamp, wanted)?;
        }
        Ok(Provided::Built(binary))
    }

    /// A tool that is pinned has no program of ours.
    fn files(&self) -> &'static [&'static str] {
        if self.package == "." { &FILES } else { &FILES[1..] }
    }

    fn build(&self, root: &Path, binary: &Path) -> Result<()> {
        println!("building {} from {} (once, {})", self.name, self.folder, self.takes);
        // Whoever runs the old one goes on; nobody finds half a new one.
        let unfinished = binary.with_extension("unfinished");
        let mut go = command(root, "go");
        go.current_dir(root.join(self.folder));
        go.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false");
        go.args(["build", "-p", "2", "-trimpath", "-tags", self.tags, "-ldflags", &self.linker_flags(), "-o"]);
        run(go.arg(&unfinished).arg(self.package))?;
        fs::rename(&unfinished, binary).with_context(|| format!("put {} in its place", self.name))
    }

    fn linker_flags(&self) -> String {
        let set = self.set.iter().map(|(variable, value)| format!(" -X {variable}={value}"));
        format!("-s -w{}", set.collect::<String>())
    }
}

impl Provided {
    /// The program, or nothing and a loud word where skips are allowed.
    pub(crate) fn or_skip(self, what: &str) -> Result<Option<PathBuf>> {
        match self {
            Self::Built(binary) => Ok(Some(binary)),
            Self::NoGo(why) => {
                let forbidden = std::env::var_os("TOMBOLO_FORBID_SKIPS").is_some_and(|v| v == "1");
                ensure!(!forbidden, "skips are forbidden: {what}: {why}");
                eprintln!("SKIPPED: {what}: {why}");
                Ok(None)
            }
        }
    }
}

/// Go's version here, as `1.26.8`.
fn version(root: &Path) -> Option<String> {
    on_path("go")?;
    let text = read(command(root, "go").env("GOTOOLCHAIN", "local").args(["env", "GOVERSION"])).ok()?;
    text.trim().strip_prefix("go").map(str::to_owned)
}

/// The version that a `go.mod` asks for.
fn needed(module: &str) -> Option<&str> {
    module.lines().find_map(|line| line.strip_prefix("go ")).map(str::trim)
}

/// A version's numbers; what follows one, as in `1.26rc1`, is left out.
fn numbers(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
        digits.parse().unwrap_or(0)
    });
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("1.26.8") >= numbers("1.26.0"));
        assert!(numbers("1.9.4") < numbers("1.26.0"));
        assert_eq!(numbers("1.26rc1"), [1, 26, 0]);
        assert_eq!(needed("module x\n\ngo 1.26.0\n"), Some("1.26.0"));
    }

    #[test]
    fn what_a_program_is_built_from_is_in_the_repository() {
        let root = crate::shell::root().unwrap();
        for module in [&crate::etcd::MODULE, &crate::kubekit::MODULE, &crate::helm::MODULE] {
            for file in module.files() {
                assert!(root.join(module.folder).join(file).is_file(), "{}/{file}", module.folder);
            }
        }
    }
}
