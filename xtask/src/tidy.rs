//! Paths and text: what no lint of the compiler looks at. Every rule is a row, and a test makes each one fire.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::shell::{command, read};

/// Longest Rust file, tests aside.
const LINES: usize = 600;
/// Longest line of Rust or Markdown that is not a table, a link or a literal.
const WIDTH: usize = 120;

/// One tracked file.
struct File {
    path: String,
    text: String,
}

/// Text that must not stand in files that match.
struct Ban {
    /// What must not stand there.
    needles: &'static [&'static str],
    /// Where it may all the same: path prefixes, or `*name` for any file called so.
    except: &'static [&'static str],
    /// Why.
    why: &'static str,
}

const RUST_BANS: &[Ban] = &[
    Ban {
        needles: &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"],
        except: &["ebpf/"],
        why: "unsafe lives in ebpf only",
    },
    Ban { needles: &["SystemTime::now"], except: &["*clock.rs"], why: "the wall clock is read in clock.rs only" },
    Ban {
        needles: &["thread::sleep("],
        except: &["*clock.rs"],
        why: "wait for a condition with a deadline; the one poll loop is in clock.rs",
    },
    Ban {
        needles: &["tokio::spawn(", "task::spawn("],
        except: &[],
        why: "no task without a name and an owner: TaskTracker or JoinSet",
    },
    Ban { needles: &["unbounded_channel", "mpsc::channel()"], except: &[], why: "no unbounded queue" },
    Ban { needles: &["hickory_"], except: &["store/src/dial"], why: "names are resolved in store/src/dial only" },
    Ban { needles: &["etcd_client"], except: &["store/"], why: "etcd_client stays in store" },
    Ban { needles: &["#[allow("], except: &[], why: "#[expect(…, reason = …)] instead" },
    Ban { needles: &["#[ignore"], except: &[], why: "a test runs or is removed" },
    Ban { needles: &["todo!(", "unimplemented!("], except: &[], why: "finish it" },
];

const CORE_BANS: &[Ban] = &[
    Ban { needles: &["std::", "extern crate std"], except: &[], why: "core has no std" },
    Ban { needles: &["async ", ".await;", ".await?", ".await)", ".await."], except: &[], why: "core never waits" },
    Ban { needles: &["Instant", "SystemTime"], except: &[], why: "time is a parameter" },
    Ban { needles: &["HashMap", "HashSet"], except: &[], why: "order is a BTreeMap" },
    Ban { needles: &["tracing::", "log::"], except: &[], why: "core does not log: reasons are results" },
];

/// Bans that hold in tests: what a shell may do between retries, a test may not.
const TEST_BANS: &[Ban] = &[Ban {
    needles: &["time::sleep(", ".sleep("],
    except: &["*clock.rs"],
    why: "a test waits for a condition with a deadline, or for a simulated clock",
}];

/// Bans that hold in every text file.
const TEXT_BANS: &[Ban] = &[
    Ban { needles: &["TODO", "FIXME", "XXX:"], except: &[], why: "do it, or write an issue" },
    Ban {
        needles: &["crates.io/", "proxy.golang.org", "pypi.org", "deb.debian.org", "registry.npmjs.org"],
        except: &["Cargo.lock", "ebpf/prog/Cargo.lock"],
        why: "nothing names a registry's host",
    },
    Ban { needles: &["/home/", "/root/", "../shared", "/work/"], except: &[], why: "no path of one machine" },
];

/// Folder and file names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "common", "misc", "manager"];

/// Fails and prints everything untidy.
pub(crate) fn check(root: &Path) -> Result<()> {
    let files = tracked(root)?;
    let found: Vec<String> = files.iter().flat_map(|file| violations(file, |path| root.join(path).exists())).collect();
    if found.is_empty() {
        println!("tidy: {} files, nothing to say", files.len());
        return Ok(());
    }
    bail!("{} untidy places:\n  {}", found.len(), found.join("\n  "))
}

/// All files git knows or would add, that are text.
fn tracked(root: &Path) -> Result<Vec<File>> {
    let list = read(command(root, "git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))?;
    let mut files = Vec::new();
    for path in list.lines() {
        let Ok(bytes) = std::fs::read(root.join(path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    (!files.is_empty()).then_some(files).context("git lists no files")
}

fn violations(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = empty_names(&file.path);
    // This file spells out every banned text.
    if file.path == "xtask/src/tidy.rs" || is_data(&file.path) {
        return found;
    }
    let rust = file.path.ends_with(".rs");
    found.extend(banned(file, TEXT_BANS));
    if rust {
        found.extend(banned(file, RUST_BANS));
        found.extend(too_long(file));
    }
    if rust && is_test(&file.path) {
        found.extend(banned(file, TEST_BANS));
    }
    if rust && file.path.starts_with("core/src/") {
        found.extend(banned(file, CORE_BANS));
    }
    if file.path == "core/src/lib.rs" && !file.text.contains("#![no_std]") {
        found.push("core/src/lib.rs: #![no_std] is missing".to_owned());
    }
    if file.path.ends_with(".md") {
        found.extend(dead_links(file, exists));
    }
    found
}

/// Data that tests run against, and texts of others, are as they are.
fn is_data(path: &str) -> bool {
    path.contains("/data/") || path == "LICENSE" || path.ends_with("go.sum")
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}

fn empty_names(path: &str) -> Vec<String> {
    let empty = |part: &&str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
    path.split('/').filter(empty).map(|part| format!("{path}: the name {part:?} says nothing")).collect()
}

fn banned(file: &File, bans: &[Ban]) -> Vec<String> {
    let mut found = Vec::new();
    for ban in bans.iter().filter(|ban| !excepted(&file.path, ban.except)) {
        for (number, line) in file.text.lines().enumerate() {
            let code = if file.path.ends_with(".rs") { without_comment(line) } else { line };
            if let Some(needle) = ban.needles.iter().find(|needle| code.contains(**needle)) {
                found.push(format!("{}:{}: {needle:?}: {}", file.path, number + 1, ban.why));
            }
        }
    }
    found
}

fn excepted(path: &str, except: &[&str]) -> bool {
    except.iter().any(|place| match place.strip_prefix('*') {
        Some(name) => path.ends_with(name),
        None => path.starts_with(place),
    })
}

/// A line up to its comment; a marker such as a to-do note stays, since it begins the comment.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) if !line[at..].contains("TODO") && !line[at..].contains("FIXME") => &line[..at],
        _ => line,
    }
}

fn too_long(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    let code_lines = file.text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    if code_lines > LINES && !is_test(&file.path) {
        found.push(format!("{}: {code_lines} lines before its tests, at most {LINES}", file.path));
    }
    // rustfmt keeps code narrow; fixtures in tests are tables and may be as wide as they need.
    for (number, line) in file.text.lines().take(code_lines).enumerate().filter(|_| !is_test(&file.path)) {
        let literal = line.contains('"') || line.ends_with('\\') || line.trim_start().starts_with("//");
        if line.chars().count() > WIDTH && !literal {
            found.push(format!("{}:{}: wider than {WIDTH}", file.path, number + 1));
        }
    }
    found
}

/// Relative links of Markdown that lead nowhere.
fn dead_links(file: &File, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for target in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let target = target.split('#').next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.contains(' ') {
            continue;
        }
        let path = if folder.is_empty() { target.to_owned() } else { format!("{folder}/{target}") };
        if !exists(&path) {
            found.push(format!("{}: the link to {target} leads nowhere", file.path));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        violations(&File { path: path.to_owned(), text: text.to_owned() }, |path| path == "docs/there.md")
    }

    #[test]
    fn each_ban_fires_and_spares_its_exceptions() {
        let rows = RUST_BANS.iter().chain(TEXT_BANS).map(|ban| (ban, "store/src/x.rs", "apiserver/src/x.rs"));
        let core = CORE_BANS.iter().map(|ban| (ban, "core/src/x.rs", "core/src/x.rs"));
        let tests = TEST_BANS.iter().map(|ban| (ban, "store/tests/x.rs", "store/tests/x.rs"));
        for (ban, first, second) in rows.chain(core).chain(tests) {
            for needle in ban.needles {
                let path = if excepted(first, ban.except) { second } else { first };
                let found = check(path, &format!("let x = 1;\n {needle}\n"));
                assert!(found.iter().any(|line| line.contains(":2:") && line.contains(ban.why)), "{needle}: {found:?}");
                for except in ban.except {
                    let spared =
                        except.strip_prefix('*').map_or_else(|| format!("{except}x.rs"), |n| format!("a/tests/{n}"));
                    let text = format!("{needle}\n");
                    assert!(!check(&spared, &text).iter().any(|line| line.contains(ban.why)), "{spared}: {needle}");
                }
            }
        }
    }

    #[test]
    fn shapes_fire() {
        assert!(check("core/src/lib.rs", "")[0].contains("no_std"));
        assert!(check("cli/src/utils.rs", "")[0].contains("says nothing"));
        assert!(check("cli/helpers/x.rs", "")[0].contains("says nothing"));
        assert!(check("cli/src/x.rs", &"x\n".repeat(LINES + 1))[0].contains("lines before its tests"));
        assert!(check("cli/src/x.rs", &"x".repeat(WIDTH + 1))[0].contains("wider"));
        assert!(check("docs/a.md", "[x](gone.md)")[0].contains("leads nowhere"));
        assert_eq!(check("docs/a.md", "[x](there.md) [y](https://example.org) [z](#here)"), Vec::<String>::new());
        assert_eq!(check("cli/src/x.rs", "// a comment may say async and std::\n"), Vec::<String>::new());
    }
}
