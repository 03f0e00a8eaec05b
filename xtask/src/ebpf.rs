//! `cargo xtask ebpf build|check`: the kernel programs' object, made from source.
//!
//! The object is committed, so that `cargo build` needs stable Rust alone. Making it takes Debian's rustc-web with its
//! library source (a compiler and `core` of one version), and bpf-linker on the LLVM of that compiler. With the same
//! versions the object is the same to the byte, wherever it is made: paths are remapped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::shell::{cargo, read, run, tools};

/// Debian's packages: the compiler and the library source it builds `core` from.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];
/// Debian's compiler, not rustup's.
const RUSTC: &str = "/usr/bin/rustc";
const BPF_LINKER: &str = "0.13.0";
const TARGET: &str = "bpfel-unknown-none";
/// What the datapath tests load instead of the committed object.
const OBJECT_VARIABLE: &str = "TOMBOLO_BPF_OBJECT";

/// The object's path in the repository; beside it are `TOOLCHAIN` and the checksum.
const OBJECT: &str = "ebpf/prebuilt/tombolo.bpf.o";
const TOOLCHAIN: &str = "ebpf/prebuilt/TOOLCHAIN";
const CHECKSUM: &str = "ebpf/prebuilt/tombolo.bpf.o.sha256";

/// Makes the object and puts it where it is committed, with its toolchain and checksum.
pub(crate) fn build(root: &Path) -> Result<()> {
    let toolchain = Toolchain::get(root)?;
    let made = toolchain.compile()?;
    fs::create_dir_all(root.join(OBJECT).parent().context("the object has a folder")?)?;
    fs::copy(&made, root.join(OBJECT))?;
    fs::write(root.join(TOOLCHAIN), toolchain.versions()?)?;
    fs::write(root.join(CHECKSUM), checksum(root)?)?;
    eprintln!("made {OBJECT}: {} bytes", fs::metadata(root.join(OBJECT))?.len());
    Ok(())
}

/// Makes the object again and compares: with the committed toolchain it must be equal; with another one, the datapath
/// tests must pass on the new object.
pub(crate) fn check(root: &Path) -> Result<()> {
    ensure!(fs::read_to_string(root.join(CHECKSUM))? == checksum(root)?, "{OBJECT} is not the one of {CHECKSUM}");
    let toolchain = Toolchain::get(root)?;
    let made = toolchain.compile()?;
    let equal = fs::read(&made)? == fs::read(root.join(OBJECT))?;
    let (versions, committed) = (toolchain.versions()?, fs::read_to_string(root.join(TOOLCHAIN))?);
    match (equal, versions == committed) {
        (true, _) => eprintln!("{OBJECT} is what this source makes, to the byte"),
        (false, true) => bail!("{OBJECT} is not what this source makes: run `cargo xtask ebpf build` and commit it"),
        (false, false) => {
            eprintln!("another toolchain makes another object, so nothing is said about the committed one.");
            eprintln!("committed:\n{committed}here:\n{versions}testing the new object instead:");
            test(root, &made)?;
            eprintln!("the datapath tests pass on the object that this toolchain makes of this source");
        }
    }
    Ok(())
}

/// Runs the datapath tests on an object, none of them skipped.
fn test(root: &Path, object: &Path) -> Result<()> {
    let mut test = cargo(root);
    test.args(["test", "--package", "tombolo-ebpf"]).env(OBJECT_VARIABLE, object).env("TOMBOLO_FORBID_SKIPS", "1");
    run(&mut test)
}

/// The tools, all in place.
struct Toolchain<'a> {
    root: &'a Path,
    tools: PathBuf,
    /// The LLVM that rustc was built with, as `22.1.8`.
    llvm: String,
}

impl<'a> Toolchain<'a> {
    /// Finds the tools, and installs those that are missing: packages by apt, the linker below `target/tools`.
    fn get(root: &'a Path) -> Result<Self> {
        packages()?;
        let verbose = read(Command::new(RUSTC).arg("-vV"))?;
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let llvm = llvm.with_context(|| format!("{RUSTC} -vV names no LLVM"))?.to_owned();
        let toolchain = Self { root, tools: tools(root), llvm };
        toolchain.linker()?;
        Ok(toolchain)
    }

    /// Installs bpf-linker. It is linked with the shared library that rustc itself uses, so no LLVM package for
    /// development is needed; its feature must name that library's major version.
    fn linker(&self) -> Result<()> {
        let wanted = format!("bpf-linker {BPF_LINKER}");
        let linker = self.tools.join("bin/bpf-linker");
        if linker.exists() && read(Command::new(&linker).arg("--version"))?.starts_with(&wanted) {
            return Ok(());
        }
        let major = self.llvm.split('.').next().context("a version has a major number")?;
        let library = fs::read_dir("/usr/lib/x86_64-linux-gnu")
            .context("Debian on x86-64 is what this is made for")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("libLLVM.so.{major}.")))
            })
            .with_context(|| format!("no libLLVM.so.{major}.* beside rustc"))?;
        let prefix = self.tools.join("llvm");
        fs::create_dir_all(prefix.join("lib"))?;
        let link = prefix.join("lib/libLLVM.so");
        let _ = fs::remove_file(&link); // absent the first time
        std::os::unix::fs::symlink(&library, &link)?;
        eprintln!("installing {wanted} below {} (about a minute)", self.tools.display());
        let mut install = cargo(Path::new("/"));
        install.args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
            "--no-default-features",
        ]);
        install.args(["--features", &format!("llvm-{major}")]).arg("--root").arg(&self.tools);
        run(install.env("LLVM_PREFIX", &prefix))
    }

    /// Compiles and strips; the path of the new object, below `target`.
    fn compile(&self) -> Result<PathBuf> {
        let (source, target) = (self.root.join("ebpf/prog"), self.root.join("target/ebpf"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.tools.join("bin")).chain(std::env::split_paths(&path));
        let mut build = cargo(&source);
        build.args(["build", "--release", "--locked", "--target", TARGET, "--config", &self.remaps()?]);
        build.env("CARGO_TARGET_DIR", &target);
        build.env("PATH", std::env::join_paths(path)?).env("RUSTC", RUSTC).env("RUSTC_BOOTSTRAP", "1");
        // Each of these would replace the flags of the configuration, or put itself between cargo and rustc.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
            build.env_remove(variable);
        }
        run(&mut build)?;
        let stripped = target.join("tombolo.bpf.o");
        strip(&target.join(TARGET).join("release/tombolo-bpf"), &stripped)?;
        Ok(stripped)
    }

    /// The flags that take this machine's paths out of the object, as a cargo setting. It adds to the list in
    /// `ebpf/prog/.cargo/config.toml`, where an environment RUSTFLAGS would replace it.
    fn remaps(&self) -> Result<String> {
        let metadata = cargo_metadata::MetadataCommand::new()
            .manifest_path(self.root.join("ebpf/prog/Cargo.toml"))
            .other_options(["--locked".to_owned()])
            .exec()?;
        let library = metadata.packages.iter().find(|package| package.name.as_str() == "aya-ebpf");
        let sources = library.and_then(|package| package.manifest_path.parent()?.parent());
        let sources = sources.context("aya-ebpf is a dependency of the programs")?;
        let remap = |from: &str, to: &str| format!("\"--remap-path-prefix={from}={to}\"");
        let root = self.root.to_str().context("the repository's path is UTF-8")?;
        Ok(format!("target.{TARGET}.rustflags=[{}, {}]", remap(root, "/src"), remap(sources.as_str(), "/dep")))
    }

    /// What the object depends on besides its source.
    fn versions(&self) -> Result<String> {
        let package = read(Command::new("dpkg-query").args(["-W", "-f=${Version}", PACKAGES[0]]))?;
        let lock = fs::read_to_string(self.root.join("ebpf/prog/Cargo.lock"))?;
        let aya = lock.split("[[package]]").find_map(|package| {
            let package = package.trim_start().strip_prefix("name = \"aya-ebpf\"\nversion = \"")?;
            package.split('"').next()
        });
        let aya = aya.context("ebpf/prog/Cargo.lock names aya-ebpf")?;
        let strip = read(strip_command()?.arg("--version"))?;
        let strip = strip.lines().find_map(|line| line.trim().strip_prefix("LLVM version ")).unwrap_or("unknown");
        Ok(format!(
            "{} {package}\nLLVM {}\nbpf-linker {BPF_LINKER}\naya-ebpf {aya}\nrust-objcopy of LLVM {strip}\n",
            PACKAGES[0], self.llvm,
        ))
    }
}

/// Installs the Debian packages that are missing.
fn packages() -> Result<()> {
    let installed = |package: &&str| {
        let status = read(Command::new("dpkg-query").args(["-W", "-f=${Status}", package]));
        status.is_ok_and(|status| status == "install ok installed")
    };
    let missing: Vec<_> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {} by apt (about 140 MB)", missing.join(" "));
    let apt = |args: &[&str]| run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"));
    let how = || format!("as root on Debian 12 or newer: apt-get install {}", missing.join(" "));
    apt(&["update", "-qq"]).with_context(how)?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], &missing[..]].concat()).with_context(how)
}

/// Takes the DWARF out and leaves BTF in. Names of functions that are not inlined lose what cargo makes of the path of
/// this repository, or each folder would give another object.
fn strip(from: &Path, to: &Path) -> Result<()> {
    let mut command = strip_command()?;
    for name in mangled(&fs::read(from)?) {
        command.arg(format!("--redefine-sym={name}={}", without_path(&name)));
    }
    run(command.arg("-g").arg(from).arg(to))
}

/// The crate of the programs, as Rust's mangling writes it (the v0 scheme: a disambiguator, then length and name).
const CRATE: &str = "_11tombolo_bpf";

/// The names of the programs' own functions in an object's table of strings.
fn mangled(object: &[u8]) -> BTreeSet<String> {
    let texts = object.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok());
    texts.filter(|text| text.starts_with("_RNv") && text.contains(CRATE)).map(str::to_owned).collect()
}

/// A mangled name without its crate's disambiguator.
fn without_path(name: &str) -> String {
    match name.split_once(CRATE).map(|(head, tail)| (head.rfind("Cs"), head, tail)) {
        Some((Some(at), head, tail)) => format!("{}C{}{tail}", &head[..at], &CRATE[1..]),
        _ => name.to_owned(),
    }
}

/// The objcopy that comes with this repository's own Rust toolchain; it knows eBPF, which binutils' does not.
fn strip_command() -> Result<Command> {
    let sysroot = PathBuf::from(read(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let host = fs::read_dir(sysroot.join("lib/rustlib"))?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/rust-objcopy")))
        .find(|path| path.exists())
        .with_context(|| format!("no rust-objcopy below {}", sysroot.display()))?;
    let mut command = Command::new(host);
    command.env("LD_LIBRARY_PATH", sysroot.join("lib"));
    Ok(command)
}

/// The checksum file's text, as sha256sum writes and checks it.
fn checksum(root: &Path) -> Result<String> {
    let object = root.join(OBJECT);
    let folder = object.parent().context("the object has a folder")?;
    let name = object.file_name().context("the object has a name")?;
    read(Command::new("sha256sum").arg(name).current_dir(folder))
}
