//! What outlives a datapath, who takes it over, and what is left at the end.
#![expect(unsafe_code, reason = "a system call that aya does not make")]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use tombolo_core::tables::{BackendIndex, Contents, Op, ServiceIndex, SwitchEntry};
use tombolo_ebpf::{
    AfterOthers, Census, Datapath, DatapathConfig, DatapathError, Executor, Faults, Place, Relation, State, probe,
    uninstall,
};

use crate::support::clock::until;
use crate::support::lab::{Cgroup, Lab};
use crate::support::plans::{addr, backend, frontend, member, plan, simple, slots, sticky, switch};

const VIP: &str = "10.96.0.10:80";
const ALDERAAN: &str = "alderaan 10.96.0.10:80";
const BESPIN: &str = "bespin 10.96.0.10:80";

/// A lab in which the service leads to alderaan; bespin answers at 127.0.0.1:8081.
fn lab() -> Option<Lab> {
    let mut lab = Lab::new()?;
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan"), (addr("127.0.0.1:8081"), "bespin")]);
    lead(lab.datapath(), 8080);
    Some(lab)
}

/// Has the service lead to a port, and what runs follow.
fn lead(datapath: &mut Datapath, port: u16) {
    datapath.execute(&simple(addr(VIP), &[addr(&format!("127.0.0.1:{port}"))])).unwrap();
    datapath.commit().unwrap();
}

/// The names below a folder, in their order.
pub(crate) fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            names.extend(self::names(&path));
        }
        names.push(path);
    }
    names.sort();
    names
}

#[test]
fn a_datapath_outlives_its_process_and_is_adopted_as_it_is() {
    let Some(mut lab) = lab() else { return };
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask(&format!("hold {VIP}")), ALDERAAN);
    let before = (names(&lab.config().pins), census(&mut lab));
    lab.abandon();
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN, "nobody is there, and it still translates");

    let adopted = lab.reopen();
    assert_eq!(adopted.read_switch(ServiceIndex(0)), SwitchEntry { base: 0, count: 1, generation: 1 });
    assert_eq!(adopted.connects(BackendIndex(0)), 2, "counters go on");
    assert_eq!(adopted.remembered().unwrap(), 1);
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN);
    lab.datapath().commit().unwrap();
    assert_eq!(names(&lab.config().pins), before.0);
    assert_eq!(census(&mut lab), before.1, "the same programs on the same maps: no link was touched");
    lead(lab.datapath(), 8081);
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
    assert_eq!(lab.datapath().faults(), Faults::default());
}

#[test]
fn other_sizes_are_new_tables_and_the_sockets_go_on() {
    let Some(mut lab) = lab() else { return };
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask(&format!("hold {VIP}")), ALDERAAN);
    let held = lab.datapath().contents().unwrap();
    lab.config().limits.slots *= 2;
    let upgraded = lab.reopen();
    assert_eq!(upgraded.contents().unwrap(), held, "new tables, with what the old ones hold");
    assert_eq!(upgraded.connects(BackendIndex(0)), 0, "and counters of their own");
    assert_eq!(upgraded.remembered().unwrap(), 1, "of sockets that are open");
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN, "the old tables run until commit");
    assert_eq!(folders(&mut lab), (2, 1));

    lead(lab.datapath(), 8081);
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
    assert_eq!(client.ask("peers"), "10.96.0.10:80", "the socket of before is told what it dialled");
    assert_eq!(folders(&mut lab), (1, 1));
    assert_eq!(lab.datapath().faults(), Faults::default());
}

#[test]
fn a_sticky_client_stays_over_an_upgrade() {
    let Some(mut lab) = lab() else { return };
    let backends = [backend(0, addr("127.0.0.1:8080")), backend(1, addr("127.0.0.1:8081"))];
    let table = [slots(0, [0, 1]), switch(0, 0, 2, 2), member(0, 0), member(0, 1), sticky(0, addr(VIP), 1_000)];
    lab.datapath().execute(&plan(backends.into_iter().chain(table))).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    let first = client.ask(&format!("dial {VIP}"));
    for slots in [2, 4, 1] {
        lab.config().limits.slots = 1024 * slots;
        lab.reopen().commit().unwrap();
        for _ in 0..8 {
            assert_eq!(client.ask(&format!("dial {VIP}")), first);
        }
    }
    assert_eq!(lab.datapath().faults(), Faults::default());
}

#[test]
fn tables_that_nobody_follows_begin_again_with_those_that_run() {
    let Some(mut lab) = lab() else { return };
    let held = lab.datapath().contents().unwrap();
    lab.config().limits.slots *= 2;
    let delete = Op::DeleteService { frontend: frontend(addr(VIP)) };
    lab.reopen().execute(&plan([delete])).unwrap();
    assert_eq!(lab.datapath().contents().unwrap().services, []);
    assert_eq!(client_of(&lab), ALDERAAN, "it ends before it took over");
    assert_eq!(lab.reopen().contents().unwrap(), held);
}

#[test]
fn what_does_not_fit_smaller_tables_is_not_taken_over() {
    let Some(mut lab) = lab() else { return };
    let far = plan([slots(1000, [0]), switch(0, 1000, 1, 2)]);
    lab.datapath().execute(&far).unwrap();
    lab.config().limits.slots = 512;
    assert_eq!(lab.reopen().contents().unwrap(), Contents::default());
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN, "the old tables run until commit");
    lead(lab.datapath(), 8081);
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
}

#[test]
fn other_sizes_of_what_is_remembered_are_new_maps() {
    let Some(mut lab) = lab() else { return };
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask(&format!("hold {VIP}")), ALDERAAN);
    lab.config().connections *= 2;
    assert_eq!(lab.reopen().remembered().unwrap(), 0);
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN);
    lead(lab.datapath(), 8081);
    assert_eq!(folders(&mut lab), (1, 1));
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
}

/// How many sets of tables and of sockets are pinned.
fn folders(lab: &mut Lab) -> (usize, usize) {
    let names = names(&lab.config().pins.join("tombolo"));
    let of = |prefix| {
        let is = |path: &&PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(prefix);
        names.iter().filter(is).count()
    };
    (of("tables-"), of("sockets-"))
}

#[test]
fn half_a_set_is_made_anew_and_what_runs_goes_on() {
    let Some(mut lab) = lab() else { return };
    let mut client = lab.client(Cgroup::Inside);
    lab.abandon();
    let slots = names(&lab.config().pins).into_iter().find(|path| path.ends_with("slots")).unwrap();
    fs::remove_file(slots).unwrap();
    assert_eq!(lab.reopen().read_switch(ServiceIndex(0)), SwitchEntry::default(), "not half of the old tables");
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN);
    lead(lab.datapath(), 8081);
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
}

#[test]
fn another_cgroup_is_attached_to_at_commit() {
    let Some(mut lab) = lab() else { return };
    let child = lab.cgroup().join("below");
    fs::create_dir(&child).unwrap();
    let mut client = lab.client(Cgroup::Inside);
    lab.config().cgroup = child.clone();
    lab.reopen();
    assert_eq!(client.ask(&format!("dial {VIP}")), ALDERAAN);
    lead(lab.datapath(), 8081);
    assert_eq!(client.ask(&format!("dial {VIP}")), "error NetworkUnreachable", "this client is not below the child");
    assert!(until(|| fs::remove_dir(&child).is_ok()));
    // The links went with the cgroup: as if nothing were pinned.
    lab.config().cgroup = lab.cgroup().to_owned();
    lab.reopen();
    assert_eq!(client.ask(&format!("dial {VIP}")), "error NetworkUnreachable", "tables that may be old");
    lab.datapath().commit().unwrap();
    assert_eq!(client.ask(&format!("dial {VIP}")), BESPIN);
}

#[test]
fn a_folder_of_pins_has_one_owner() {
    let Some(mut lab) = Lab::new() else { return };
    let config = lab.config().clone();
    let error = Datapath::open(&config).unwrap_err();
    assert!(matches!(error, DatapathError::Locked { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&format!("is in use (pid {}, ", std::process::id())), "{text}");
    assert!(matches!(uninstall(&config.pins), Err(DatapathError::Locked { .. })));
    lab.abandon();
    Datapath::open(&config).unwrap();
}

#[test]
fn uninstall_leaves_nothing_and_does_nothing_twice() {
    let Some(mut lab) = Lab::new() else { return };
    lab.detach();
    let pins = lab.config().pins.clone();
    assert!(!pins.exists());
    lab.serve(&[(addr("127.0.0.1:8080"), "alderaan")]);
    lead(lab.reopen(), 8080);
    let mut client = lab.client(Cgroup::Inside);
    assert_eq!(client.ask(&format!("hold {VIP}")), ALDERAAN);
    let objects = census(&mut lab);
    assert!(!objects.links.is_empty() && objects.links.len() == objects.programs.len(), "{objects:?}");
    assert!(objects.maps.len() > 5, "{objects:?}");
    lab.abandon();
    assert!(objects.left() == objects);

    let removed = uninstall(&pins).unwrap();
    assert!(removed.links[0].starts_with("connect") || removed.links[0].starts_with("sendmsg"), "{:?}", removed.links);
    assert_eq!(removed.links.len(), objects.links.len());
    assert_eq!(removed.folder, Some(pins.clone()));
    assert!(!pins.exists());
    assert_eq!(client.ask(&format!("dial {VIP}")), "error NetworkUnreachable");
    // The kernel frees programs and maps a little later.
    assert!(until(|| objects.left() == Census::default()), "{objects:?}");
    assert_eq!(uninstall(&pins).unwrap(), tombolo_ebpf::Uninstalled::default());
}

fn census(lab: &mut Lab) -> Census {
    let pins = lab.config().pins.clone();
    Census::of(lab.cgroup(), &pins).unwrap()
}

#[test]
fn programs_of_others_are_listed() {
    let Some(mut lab) = Lab::new() else { return };
    let ours = lab.cgroup().to_owned();
    let child = ours.join("below");
    fs::create_dir(&child).unwrap();
    assert_eq!(lab.datapath().foreign().unwrap(), []);
    let Ok(beside) = lab.another() else {
        return; // the kernel is older than 6.17, and the datapath refuses
    };
    assert_eq!(connect4(lab.datapath()), [(ours.clone(), Relation::Same)]);
    // Now ours is on the child, and the other one above.
    lab.config().cgroup = child.clone();
    lab.reopen().commit().unwrap();
    assert_eq!(connect4(lab.datapath()), [(ours.clone(), Relation::Above)]);
    assert_eq!(connect4(&beside), [(child.clone(), Relation::Below)]);
    let foreign = lab.datapath().foreign().unwrap();
    let found = foreign.iter().find(|foreign| foreign.hook == "connect4").unwrap();
    assert_eq!(found.to_string(), format!("connect4 (id {}) on connect4 of {}", found.id, ours.display()));
    lab.abandon();
    uninstall(&lab.config().pins).unwrap();
    assert_eq!(beside.foreign().unwrap(), []);
    fs::remove_dir(&child).unwrap();
}

/// The cgroups of other programs on connect4, and where they are.
fn connect4(datapath: &Datapath) -> Vec<(PathBuf, Relation)> {
    let foreign = datapath.foreign().unwrap().into_iter().filter(|foreign| foreign.hook == "connect4");
    foreign.map(|foreign| (foreign.cgroup, foreign.relation)).collect()
}

#[test]
fn a_program_that_allows_no_other_is_named() {
    let Some(mut lab) = Lab::new() else { return };
    lab.detach();
    let committed = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/prebuilt/tombolo.bpf.o"));
    let object = lab.config().object.clone().unwrap_or(committed);
    // Without helpers that an old kernel lacks.
    let mut loader = aya::EbpfLoader::new();
    loader.override_global("HAS_SET_RETVAL", &0_u32, true).override_global("HAS_SKC_TO_MPTCP", &0_u32, true);
    let mut ebpf = loader.load_file(object).unwrap();
    let Some(aya::programs::Program::CgroupSockAddr(program)) = ebpf.program_mut("connect4") else { panic!() };
    program.load().unwrap();
    attach_exclusively(program.fd().unwrap().as_fd(), &fs::File::open(lab.cgroup()).unwrap());
    // A kernel that cannot put programs first would refuse before it is asked.
    let config = DatapathConfig { after_others: AfterOthers::Allowed, ..lab.config().clone() };
    let error = Datapath::open(&config).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("these programs allow no others beside or below them: connect4 (id "), "{text}");
    let DatapathError::Exclusive(found) = error else { panic!("{text}") };
    assert!(!config.pins.exists(), "nothing of it was left");
    assert_eq!((found.len(), found[0].relation), (1, Relation::Same));
    assert_eq!(client_of(&lab), "error NetworkUnreachable", "nothing translates");
}

fn client_of(lab: &Lab) -> String {
    lab.client(Cgroup::Inside).ask(&format!("dial {VIP}"))
}

/// BPF_PROG_ATTACH without BPF_F_ALLOW_MULTI, on connect4.
fn attach_exclusively(program: BorrowedFd<'_>, cgroup: &fs::File) {
    let attr = [cgroup.as_raw_fd(), program.as_raw_fd(), 10, 0];
    // SAFETY: the part of `union bpf_attr` for BPF_PROG_ATTACH, without addresses.
    let result = unsafe { libc::syscall(libc::SYS_bpf, 8, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn a_probe_says_what_is_here() {
    let Some(mut lab) = Lab::new() else { return };
    let probe = probe(lab.config());
    assert!(probe.is_usable(), "{probe:?}");
    let state = |name: &str| probe.checks.iter().find(|check| check.name == name).unwrap().state;
    assert_eq!(state("hook sendmsg6"), State::Present);
    assert_eq!(state("cgroup by id"), State::Present);
    assert_eq!(state("attach before others") == State::Present, lab.another().is_ok());
    let ours: Vec<_> = probe.programs.iter().filter(|program| program.hook == "connect6").collect();
    assert_eq!((ours.len(), ours[0].name.as_str()), (1, "connect6"), "probing attaches nothing");
    // What the kernel says of itself, for whoever reads the output.
    let absent = probe.checks.iter().filter(|check| check.state != State::Present);
    println!("{}: {:#?}", probe.kernel, absent.collect::<Vec<_>>());
}

/// Says something on kernels before 6.17 only: a newer one puts ours first.
#[test]
fn a_kernel_that_cannot_go_first_refuses_to_be_second() {
    let Some(mut lab) = lab() else { return };
    let Err(error) = lab.another() else { return };
    let text = error.to_string();
    let DatapathError::AfterOthers(found) = error else { panic!("{text}") };
    let hooks: BTreeSet<_> = found.iter().map(|foreign| foreign.hook).collect();
    assert_eq!(hooks, ["connect4", "connect6", "sendmsg4", "sendmsg6"].into());
    assert!(found.iter().all(|foreign| foreign.relation == Relation::Same), "{found:?}");
    assert!(text.contains("connect4 (id "), "{text}");
    assert!(!lab.another_pins().exists(), "nothing of it was left");

    let mut config = DatapathConfig { pins: lab.another_pins(), ..lab.config().clone() };
    config.after_others = AfterOthers::Allowed;
    let mut second = Datapath::open(&config).unwrap();
    assert_eq!(second.place().unwrap(), Place::Last { others: 1 });
    lead(&mut second, 8081);
    assert_eq!(client_of(&lab), ALDERAAN, "the first one has translated already");
}
