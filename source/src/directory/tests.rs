use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use tombolo_core::object::{Object, SourceEvent};

use super::*;

fn namespace(name: &str, note: &str) -> String {
    format!("kind: Namespace\nmetadata: {{name: {name}, annotations: {{note: '{note}'}}}}\n")
}

fn show(events: &[SourceEvent]) -> String {
    let mut out = String::new();
    for event in events {
        match event {
            SourceEvent::Upsert(Object::Namespace(n)) => {
                writeln!(out, "+ {} {:?}", n.name, n.annotations.get("note")).unwrap();
            }
            SourceEvent::Upsert(o) => writeln!(out, "+ {:?}", o.key()).unwrap(),
            SourceEvent::Delete(key) => writeln!(out, "- {key:?}").unwrap(),
            SourceEvent::Complete => writeln!(out, "complete").unwrap(),
            SourceEvent::Fault(f) => writeln!(out, "fault {}: {}", f.place, f.message).unwrap(),
            SourceEvent::Mended { place } => writeln!(out, "mended {place}").unwrap(),
        }
    }
    out
}

/// Applies looks one after the other and shows what each made the source say.
fn check(looks: Vec<Look>, expected: &Expect) {
    let mut state = DirectoryState::new("dir");
    let said: Vec<String> = looks.into_iter().map(|look| show(&state.apply(look))).collect();
    expected.assert_eq(&said.join("--\n"));
}

fn files<const N: usize>(files: [(&str, String); N]) -> BTreeMap<String, FileLook> {
    files.into_iter().map(|(name, text)| (name.to_owned(), FileLook::Text(text))).collect()
}

fn one(name: &str, look: FileLook) -> Look {
    Look::Files(BTreeMap::from([(name.to_owned(), look)]))
}

#[test]
fn a_change_to_one_file_says_only_what_changed() {
    check(
        vec![
            Look::All(files([("a.yaml", namespace("a", "1") + "---\n" + &namespace("b", "1"))])),
            one("a.yaml", FileLook::Text(namespace("a", "1") + "---\n" + &namespace("b", "2"))),
            one("a.yaml", FileLook::Text(namespace("b", "2"))),
            one("a.yaml", FileLook::Unchanged),
            one("a.yaml", FileLook::Gone),
        ],
        &expect![[r#"
            + a Some("1")
            + b Some("1")
            complete
            --
            + b Some("2")
            --
            - Namespace("a")
            --
            --
            - Namespace("b")
        "#]],
    );
}

#[test]
fn a_broken_file_costs_only_its_own_change() {
    check(
        vec![
            Look::All(files([("a.yaml", namespace("a", "1")), ("b.yaml", namespace("b", "1"))])),
            Look::Files(files([("a.yaml", "kind: Namespace\nmetadata: 7\n".into()), ("b.yaml", namespace("b", "2"))])),
            one("a.yaml", FileLook::Unreadable("permission denied".into())),
            one("a.yaml", FileLook::Text(namespace("a", "3"))),
        ],
        &expect![[r#"
            + a Some("1")
            + b Some("1")
            complete
            --
            + b Some("2")
            fault dir/a.yaml, document 1: line 2, column 11, field metadata: expected mapping start
            --
            mended dir/a.yaml, document 1
            fault dir/a.yaml: permission denied
            --
            + a Some("3")
            mended dir/a.yaml
        "#]],
    );
}

#[test]
fn the_first_file_by_name_wins_in_any_order() {
    check(
        vec![
            Look::All(files([("b.yaml", namespace("x", "of b"))])),
            one("a.yaml", FileLook::Text(namespace("x", "of a") + "---\n" + &namespace("x", "again"))),
            one("b.yaml", FileLook::Text(namespace("x", "of b, changed"))),
            one("a.yaml", FileLook::Gone),
        ],
        &expect![[r#"
            + x Some("of b")
            complete
            --
            + x Some("of a")
            fault dir/a.yaml, document 2: Namespace x: Namespace x is already in document 1 of the same file, which counts
            fault dir/b.yaml, document 1: Namespace x: Namespace x is also in a.yaml, which counts; remove one of the two
            --
            --
            + x Some("of b, changed")
            mended dir/a.yaml, document 2: Namespace x
            mended dir/b.yaml, document 1: Namespace x
        "#]],
    );
}

#[test]
fn a_directory_that_is_gone_keeps_what_it_said() {
    check(
        vec![
            Look::Unreadable("no such directory".into()),
            Look::All(files([("a.yaml", namespace("a", "1"))])),
            Look::Unreadable("no such directory".into()),
            Look::All(files([("moved.yaml", namespace("a", "1"))])),
        ],
        &expect![[r#"
            fault dir: no such directory
            --
            + a Some("1")
            mended dir
            complete
            --
            fault dir: no such directory
            --
            mended dir
        "#]],
    );
}

mod on_disk {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};
    use tokio::task::JoinHandle;
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    struct Running {
        dir: tempfile::TempDir,
        events: mpsc::Receiver<Vec<SourceEvent>>,
        runtime: Runtime,
        _task: JoinHandle<()>,
    }

    impl Running {
        fn start(prepare: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            let (tx, events) = mpsc::channel(8);
            let task = runtime.spawn(run(dir.path().join("source"), tx));
            Self { dir, events, runtime, _task: task }
        }

        fn source(&self) -> PathBuf {
            self.dir.path().join("source")
        }

        /// Everything said until a line begins with `last`.
        fn until(&mut self, last: &str) -> String {
            let Self { events, runtime, .. } = self;
            let mut said = String::new();
            let wait = async {
                while !said.lines().any(|line| line.starts_with(last)) {
                    said += &show(&events.recv().await.expect("the source runs"));
                }
            };
            assert!(
                runtime.block_on(async { timeout(DEADLINE, wait).await }).is_ok(),
                "waited for {last:?}, got:\n{said}"
            );
            said.replace(&self.dir.path().display().to_string(), "DIR")
        }
    }

    fn write_by_rename(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(".tmp"), text).unwrap();
        fs::rename(dir.join(".tmp"), dir.join(name)).unwrap();
    }

    #[test]
    fn edits_renames_and_removals() {
        let mut running = Running::start(|dir| {
            fs::create_dir(dir.join("source")).unwrap();
            fs::write(dir.join("source/a.yaml"), namespace("a", "1")).unwrap();
            fs::write(dir.join("source/README"), "no manifest").unwrap();
        });
        expect![[r#"
            + a Some("1")
            complete
        "#]]
        .assert_eq(&running.until("complete"));
        let source = running.source();
        fs::write(source.join("a.yaml"), namespace("a", "2")).unwrap();
        assert_eq!(running.until("+ a"), "+ a Some(\"2\")\n");
        write_by_rename(&source, "a.yaml", &namespace("a", "3"));
        assert_eq!(running.until("+ a"), "+ a Some(\"3\")\n");
        // As vim writes: the old version is moved away, then a new file is made.
        fs::rename(source.join("a.yaml"), source.join("a.yaml~")).unwrap();
        fs::write(source.join("a.yaml"), namespace("a", "4")).unwrap();
        assert_eq!(running.until("+ a"), "+ a Some(\"4\")\n");
        fs::rename(source.join("a.yaml"), source.join("b.yaml")).unwrap();
        fs::write(source.join("c.yaml"), namespace("c", "1")).unwrap();
        assert!(!running.until("+ c").contains("- "));
        fs::remove_file(source.join("b.yaml")).unwrap();
        running.until("- Namespace(\"a\")");
    }

    #[test]
    fn a_directory_that_comes_goes_and_comes_back() {
        let mut running = Running::start(|_| {});
        assert!(running.until("fault").starts_with("fault DIR/source: the directory cannot be read: No such file"));
        let source = running.source();
        fs::create_dir(&source).unwrap();
        write_by_rename(&source, "a.yaml", &namespace("a", "1"));
        assert!(running.until("+ a").contains("mended DIR/source"));
        fs::remove_dir_all(&source).unwrap();
        assert!(!running.until("fault").contains("- "));
        fs::create_dir(&source).unwrap();
        fs::write(source.join("b.yaml"), namespace("b", "1")).unwrap();
        let said = running.until("- Namespace(\"a\")");
        assert!(said.contains("mended DIR/source"), "{said}");
    }

    #[test]
    fn a_mounted_config_map_is_swapped_as_a_whole() {
        let version = |dir: &Path, name: &str, text: &str| {
            fs::create_dir(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("a.yaml"), text).unwrap();
            symlink(name, dir.join("..data_tmp")).unwrap();
            fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        };
        let mut running = Running::start(|dir| {
            let source = dir.join("source");
            fs::create_dir(&source).unwrap();
            version(&source, "..2024_1", &namespace("a", "1"));
            symlink("..data/a.yaml", source.join("a.yaml")).unwrap();
        });
        assert_eq!(running.until("complete"), "+ a Some(\"1\")\ncomplete\n");
        version(&running.source(), "..2024_2", &namespace("a", "2"));
        assert_eq!(running.until("+ a"), "+ a Some(\"2\")\n");
    }
}
