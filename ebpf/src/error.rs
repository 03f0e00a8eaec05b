//! What can go wrong with the datapath.

use std::io;
use std::path::PathBuf;

use crate::Foreign;
use crate::requirements::Missing;

/// Why the datapath could not be attached, or a plan not be executed.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The machine or the process lacks something.
    #[error("the datapath cannot run here: {}", list(.0))]
    Missing(Vec<Missing>),
    /// The object was compiled from another layout than this program's.
    #[error("the eBPF object has {found}, this program wants {want}: run `cargo xtask ebpf build`")]
    Layout {
        /// What the object says of itself.
        found: String,
        /// This program's layout.
        want: String,
    },
    /// The object could not be read.
    #[error("cannot read the eBPF object {}", path.display())]
    Object {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object has no such map or program, or one of another kind.
    #[error("the eBPF object has no {0}: run `cargo xtask ebpf build`")]
    Absent(&'static str),
    /// The object, or a map, was refused by the kernel.
    #[error("the kernel does not take the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    /// A program was refused, by the verifier or for want of rights.
    #[error("the kernel does not take program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's answer.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The cgroup could not be opened.
    #[error("cannot open cgroup {}", path.display())]
    Cgroup {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another agent has the folder of pins.
    #[error("{} is in use{holder}: one folder of pins is for one agent", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who has it, as ` (pid 12, tombolo-agent)`; empty when that cannot be seen.
        holder: String,
    },
    /// A call on a name in the bpffs failed.
    #[error("{call} of {} failed", path.display())]
    Pin {
        /// The system call.
        call: &'static str,
        /// The name.
        path: PathBuf,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// Programs of others would run before ours, since this kernel cannot put a program before others (6.17 can).
    #[error(
        "these programs would run before ours and may translate the same addresses: {}. Detach them, or allow to attach \
         after them if they translate no global service", list(.0)
    )]
    AfterOthers(Vec<Foreign>),
    /// A program of somebody else was attached so that no other may be beside or below it.
    #[error("these programs allow no others beside or below them: {}. Detach them, or attach them with \
        BPF_F_ALLOW_MULTI or by a link", list(.0))]
    Exclusive(Vec<Foreign>),
    /// The kernel cannot end sockets of others.
    #[error(
        "this kernel cannot end sockets whose backend left: it lacks CONFIG_INET_DIAG_DESTROY, or the module inet_diag or udp_diag. They go \
        on sending to it until they are closed"
    )]
    NoDestroy,
    /// Sockets whose backend left could not be searched for.
    #[error("cannot search for sockets whose backend left")]
    Destroy(#[source] io::Error),
    /// The events have a reader already.
    #[error("the flows are read already")]
    FlowsTaken,
    /// The ring buffer could not be mapped.
    #[error("cannot read the flows")]
    Flows(#[source] Box<aya::maps::MapError>),
    /// A system call on a map or a link failed.
    #[error("{call} of {object} failed")]
    Call {
        /// The system call.
        call: &'static str,
        /// The map or program.
        object: &'static str,
        /// The error number.
        #[source]
        source: io::Error,
    },
    /// A map holds as many entries as it can.
    #[error("map {map} is full at {limit} entries: raise its limit")]
    Full {
        /// The map.
        map: &'static str,
        /// The map's size.
        limit: u32,
    },
    /// A plan names a place outside a map. Nothing of the plan was executed.
    #[error("the plan needs entry {index} of map {map}, which has {limit}")]
    Outside {
        /// The map.
        map: &'static str,
        /// The entry, or the last one of a range.
        index: u64,
        /// The map's size.
        limit: u32,
    },
    /// A plan has a value that its map's word cannot hold. Nothing of the plan was executed.
    #[error("{0} does not fit its map's word")]
    Unfit(String),
    /// No grace period could be waited for, so nothing may be freed.
    #[error("cannot wait for running programs to finish")]
    Grace(#[source] io::Error),
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
