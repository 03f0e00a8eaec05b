//! `cargo xtask kernels`: the datapath's tests on other kernels than this machine's.
//!
//! The oldest kernel that is promised and one in between, as Debian ships them, each booted for itself in QEMU, without
//! hardware virtualisation and without a network. What runs there is the same test program that runs here, with nothing
//! skipped, so a case that is written once holds for every kernel.

mod apt;
mod archive;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::Message;

use self::apt::{Apt, Kernel};
use self::archive::Archive;
use self::machine::Outcome;
use crate::setup::apt_install;
use crate::shell::{cargo, on_path, tools};

/// Which kernels: the series, and the Debian release that has it.
const KERNELS: [(&str, &str); 2] = [("5.10", "bullseye"), ("6.1", "bookworm")];

/// What must be here to boot one, and the Debian package of each.
const PROGRAMS: [(&str, &str); 4] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// What is part of every node's kernel and a module of these, in the order of loading.
const MODULES: [&str; 3] = ["net/ipv4/inet_diag", "net/ipv4/tcp_diag", "net/ipv4/udp_diag"];

/// The object as it is committed, which tests look for in the repository.
const OBJECT: &str = "ebpf/prebuilt/tombolo.bpf.o";

/// QEMU's own BIOS, a package that nothing depends on when recommendations are not installed.
const BIOS: (&str, &str) = ("/usr/share/seabios/bios-256k.bin", "seabios");

/// The object that the tests load instead of the committed one.
const OBJECT_VARIABLE: &str = "TOMBOLO_BPF_OBJECT";

/// A step of `cargo xtask test`: all kernels and all tests, or a loud skip.
pub(crate) fn step(root: &Path) -> Result<()> {
    if let Some(why) = cannot() {
        return skip(&why);
    }
    match boot(root) {
        Ok(kernels) => run(root, &kernels, &[]),
        Err(error) => skip(&format!("{error:#}")),
    }
}

/// `cargo xtask kernels [WORDS]`: only the tests whose name contains one of the words.
pub(crate) fn kernels(root: &Path, words: &[String]) -> Result<()> {
    if let Some(why) = cannot() {
        bail!("{why}");
    }
    run(root, &boot(root)?, words)
}

/// Why no other kernel can run on this machine.
fn cannot() -> Option<String> {
    if cfg!(not(target_arch = "x86_64")) {
        return Some("the kernels are Debian's for x86-64".to_owned());
    }
    on_path("apt-get").is_none().then(|| "Debian's kernels are fetched with apt-get, which is not here".to_owned())
}

fn skip(why: &str) -> Result<()> {
    ensure!(std::env::var_os("TOMBOLO_FORBID_SKIPS").is_none_or(|v| v != "1"), "skips are forbidden: {why}");
    eprintln!("SKIPPED: other kernels: {why}");
    Ok(())
}

/// What booting takes: QEMU from Debian, and the kernels below `target/tools`.
fn boot(root: &Path) -> Result<Vec<Kernel>> {
    let mut missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| on_path(program).is_none()).collect();
    if !Path::new(BIOS.0).exists() {
        missing.push(&BIOS);
    }
    if !missing.is_empty() {
        let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
        println!("installing {} by apt", packages.join(" "));
        apt_install(root, &packages)?;
    }
    Apt::new(&tools(root).join("kernels"))?.kernels(&KERNELS)
}

/// Boots all kernels at once: each has one processor.
fn run(root: &Path, kernels: &[Kernel], words: &[String]) -> Result<()> {
    let common = archive(root, words)?.finish();
    let folder = root.join("target/kernels");
    fs::create_dir_all(&folder)?;
    let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = kernels
            .iter()
            .map(|kernel| {
                let (log, initramfs) = (folder.join(format!("{}.log", kernel.series)), folder.join(kernel.series));
                let common = &common;
                scope.spawn(move || {
                    // A kernel unpacks one archive after the other.
                    let whole = [common.as_slice(), &modules(kernel)?.finish()].concat();
                    fs::write(&initramfs, whole).with_context(|| format!("write {}", initramfs.display()))?;
                    machine::boot(&kernel.image, &initramfs, &log)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("booting panicked"))).collect()
    });
    let mut failed = Vec::new();
    for (kernel, outcome) in kernels.iter().zip(outcomes) {
        match outcome.and_then(Outcome::judge) {
            Ok(said) => println!("Linux {}: {said}", kernel.version),
            Err(error) => failed.push(format!("Linux {}: {error:#}", kernel.version)),
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Everything that is in the machine: busybox, the programs that the tests call, the tests, and their libraries.
fn archive(root: &Path, words: &[String]) -> Result<Archive> {
    let tests = tests(root)?;
    let mut archive = Archive::default();
    for folder in ["/bin", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var"] {
        archive.folder(folder);
    }
    archive.link("/var/run", "/run");
    let mut programs = Vec::new();
    for (name, _) in PROGRAMS.iter().filter(|(name, _)| !name.starts_with("qemu")) {
        programs.push(((*name).to_owned(), on_path(name).with_context(|| format!("{name} is on PATH"))?));
    }
    programs.extend(tests.iter().map(|test| (test.name.clone(), test.path.clone())));
    for (name, path) in &programs {
        archive.program(&format!("/bin/{name}"), path)?;
        for library in libraries(path)? {
            archive.program(&library, Path::new(&library))?;
        }
    }
    let object = root.join(OBJECT);
    archive.program(object.to_str().context("the repository's path is UTF-8")?, &object)?;
    // Emulated, loading a program takes seconds: of the many places to kill a process at, a few.
    let mut variables = vec![("TOMBOLO_FORBID_SKIPS", "1".to_owned()), ("TOMBOLO_KILL_EVERY", "50".to_owned())];
    if let Some(object) = std::env::var_os(OBJECT_VARIABLE) {
        archive.program("/object.o", Path::new(&object))?;
        variables.push((OBJECT_VARIABLE, "/object.o".to_owned()));
    }
    let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
    archive.script("/init", &machine::init(&names, words, &variables));
    Ok(archive)
}

/// The modules of one kernel.
fn modules(kernel: &Kernel) -> Result<Archive> {
    let mut archive = Archive::default();
    for (number, module) in MODULES.iter().enumerate() {
        archive.program(&format!("/modules/{number}.ko"), &kernel.modules.join(format!("{module}.ko")))?;
    }
    Ok(archive)
}

/// The shared libraries a program is loaded with, and the loader, by the paths at which it looks for them.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let mut ldd = std::process::Command::new("ldd");
    let output = ldd.arg(program).output().context("cannot start ldd")?;
    // It fails for a static program, which needs none.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// One test program.
struct Test {
    name: String,
    path: PathBuf,
}

/// Builds the datapath's tests, as `cargo test --package tombolo-ebpf` does.
fn tests(root: &Path) -> Result<Vec<Test>> {
    let mut build = cargo(root);
    build.args(["test", "--package", "tombolo-ebpf", "--no-run", "--message-format", "json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the datapath's tests do not build");
    let mut tests = Vec::new();
    for message in Message::parse_stream(output.stdout.as_slice()) {
        if let Message::CompilerArtifact(artifact) = message?
            && let (true, Some(path)) = (artifact.profile.test, artifact.executable)
        {
            tests.push(Test { name: artifact.target.name, path: path.into() });
        }
    }
    ensure!(!tests.is_empty(), "tombolo-ebpf has no tests");
    Ok(tests)
}
