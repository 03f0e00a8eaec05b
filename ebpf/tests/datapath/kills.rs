//! A life that ends anywhere, and the next one.
//!
//! A process that opens a datapath, executes a plan and commits is killed right before each of the system calls by which
//! it changes what outlives it. Whatever it left must go on translating, and the next life must make it whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use aya::programs::loaded_programs;
use tombolo_ebpf::{Datapath, DatapathConfig, Executor, Faults, RunStats, uninstall};

use crate::life::names;
use crate::support::lab::{Cgroup, Lab, Peer};
use crate::support::plans::{addr, simple};

const VIP: &str = "10.96.0.10:80";
const ALDERAAN: &str = "alderaan 10.96.0.10:80";
const BESPIN: &str = "bespin 10.96.0.10:80";
const NOBODY: &str = "error NetworkUnreachable";

/// What the process does that is killed: `CGROUP PINS SLOTS PORT`, or `uninstall PINS`.
pub(crate) fn live(line: &str) {
    if let Some(pins) = line.strip_prefix("uninstall ") {
        uninstall(Path::new(pins)).unwrap();
        return;
    }
    let [cgroup, pins, slots, port] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("no order {line}") };
    let mut config = DatapathConfig::new(cgroup.into(), pins.into());
    config.object = std::env::var_os("TOMBOLO_BPF_OBJECT").map(PathBuf::from);
    config.limits = SMALL;
    config.limits.slots = slots.parse().unwrap();
    (config.connections, config.unconnected, config.affinities) = (256, 256, 256);
    lead(&mut Datapath::open(&config).unwrap(), port);
}

const SMALL: tombolo_ebpf::Limits = tombolo_ebpf::Limits { services: 64, backends: 64, slots: 256, members: 64 };

fn lead(datapath: &mut Datapath, port: &str) {
    datapath.execute(&simple(addr(VIP), &[addr(&format!("127.0.0.1:{port}"))])).unwrap();
    datapath.commit().unwrap();
}

/// Kill before each change, or before every `TOMBOLO_KILL_EVERY`th where time is short.
fn every() -> usize {
    std::env::var("TOMBOLO_KILL_EVERY").map_or(1, |every| every.parse().unwrap())
}

/// A lab without a datapath, with small maps, and a client.
fn lab() -> Option<(Lab, Peer)> {
    let mut lab = Lab::new()?;
    lab.detach();
    lab.config().limits = SMALL;
    (lab.config().connections, lab.config().unconnected, lab.config().affinities) = (256, 256, 256);
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan"), (addr("127.0.0.1:8081"), "bespin")]);
    let client = lab.client(Cgroup::Inside);
    Some((lab, client))
}

/// Runs a life with so many slots and a backend at a port, and kills it right before its `nth` change; whether it got
/// there.
fn killed(lab: &mut Lab, slots: u32, port: &str, nth: usize) -> bool {
    let (cgroup, pins) = (lab.cgroup().display().to_string(), lab.config().pins.display().to_string());
    lab.start("live", Cgroup::Outside).killed_at(&format!("{cgroup} {pins} {slots} {port}"), nth)
}

/// What must hold after a life that was not killed: one set of each kind, no name in passing, and every program on the
/// maps that are pinned.
fn is_whole(lab: &mut Lab) {
    let pins = lab.config().pins.join("tombolo");
    let all = names(&pins);
    let of = |prefix: &str| all.iter().filter(|path| name(path).starts_with(prefix)).count();
    assert_eq!((of("tables-"), of("sockets-"), of("new-")), (1, 1, 0), "{all:?}");
    let links = all.iter().filter(|path| path.parent().unwrap().ends_with("links")).count();
    // A pinned link would be read as a map.
    let maps = all.iter().filter(|path| !path.parent().unwrap().ends_with("links"));
    let pinned: BTreeSet<_> = maps.filter_map(|path| MapInfo::from_pin(path).ok()).map(|map| map.id()).collect();
    let runs = RunStats::enable().unwrap().on(lab.cgroup()).unwrap();
    assert_eq!((runs.len(), links), (9, 9), "{runs:?}");
    for program in loaded_programs().flatten().filter(|program| runs.iter().any(|run| run.id == program.id())) {
        let maps = program.map_ids().unwrap().unwrap();
        // One is its own: the constants.
        let foreign = maps.iter().filter(|id| !pinned.contains(id)).count();
        assert!(foreign <= 1, "{:?} of {:?} and {pinned:?}", maps, program.name_as_str());
    }
    assert_eq!(lab.datapath().faults(), Faults::default());
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_first_life_may_end_anywhere() {
    let Some((mut lab, mut client)) = lab() else { return };
    let slots = lab.config().limits.slots;
    for nth in (0..).step_by(every()) {
        let was_killed = killed(&mut lab, slots, "8080", nth);
        let left = client.ask(&format!("dial {VIP}"));
        assert!([ALDERAAN, NOBODY].contains(&left.as_str()), "killed before change {nth}: {left}");
        lab.reopen();
        let adopted = client.ask(&format!("dial {VIP}"));
        assert_eq!(adopted, left, "killed before change {nth}: opening changes nothing");
        lead(lab.datapath(), "8081");
        assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN, "killed before change {nth}");
        is_whole(&mut lab);
        lab.abandon();
        uninstall(&lab.config().pins).unwrap();
        if !was_killed {
            assert!(nth > 40, "it was killed {nth} times only");
            return;
        }
    }
}

#[test]
fn an_end_may_end_anywhere() {
    let Some((mut lab, mut client)) = lab() else { return };
    let pins = lab.config().pins.clone();
    // Every fifth of its changes: detaching, unpinning and removing repeat themselves.
    for nth in (0..).step_by(5 * every()) {
        lead(lab.reopen(), "8080");
        lab.abandon();
        let was_killed = lab.start("live", Cgroup::Outside).killed_at(&format!("uninstall {}", pins.display()), nth);
        if nth % 2 == 0 {
            let left = client.ask(&format!("dial {VIP}"));
            lead(lab.reopen(), "8081");
            assert!([ALDERAAN, NOBODY].contains(&left.as_str()), "killed before change {nth}: {left}");
            assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN, "killed before change {nth}: a new life");
            is_whole(&mut lab);
            lab.abandon();
        }
        uninstall(&pins).unwrap();
        assert!(!pins.exists(), "killed before change {nth}");
        assert_eq!(client.ask(&format!("dial {VIP}")), NOBODY);
        if !was_killed {
            assert!(nth > 30, "it was killed {nth} times only");
            return;
        }
    }
}

/// Each round begins with tables of one size that lead to alderaan; a life with another size, which leads to bespin, is
/// killed; then the next one finishes, and the round after goes back.
#[test]
fn an_upgrade_may_end_anywhere_and_nobody_is_lost() {
    let Some((mut lab, mut client)) = lab() else { return };
    let old = lab.config().limits.slots;
    for nth in (0..).step_by(every()) {
        lab.config().limits.slots = old;
        lead(lab.reopen(), "8080");
        is_whole(&mut lab);
        lab.abandon();
        assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN);

        let was_killed = killed(&mut lab, old * 2, "8081", nth);
        let left = client.ask(&format!("dial {VIP}"));
        assert!([ALDERAAN, BESPIN].contains(&left.as_str()), "killed before change {nth}: {left}");
        lab.config().limits.slots = old * 2;
        lab.reopen();
        assert_eq!(client.ask(&format!("dial {VIP}")), left, "killed before change {nth}: opening changes nothing");
        lead(lab.datapath(), "8081");
        assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN, "killed before change {nth}");
        is_whole(&mut lab);
        if !was_killed {
            assert!(nth > 30, "it was killed {nth} times only");
            return;
        }
    }
}
