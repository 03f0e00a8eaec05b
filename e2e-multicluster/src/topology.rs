//! The machine's part of a mesh: namespaces for control planes and nodes on one bridge, addresses, routes, cgroups.
//!
//! No namespace has a default route, so a dialled service address that nobody translates cannot leave the machine.
//! Pod addresses are local addresses of their node; nodes route each other's pod ranges by node address. Everything has
//! an address of both families: IPv4 from 10/8 and 172.30/16, IPv6 from fd7b::/16, in ranges of a site's own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use tombolo_core::id::Family;

use crate::netns;
use crate::run::Run;

/// An address of each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dual {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Dual {
    /// The one of a family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// Both, IPv4 first.
    pub fn both(self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// A namespace with an address on the fabric, and the cgroup of the processes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network namespace's name.
    pub netns: String,
    /// The cgroup.
    pub cgroup: PathBuf,
    /// Its addresses.
    pub address: Dual,
    /// The namespace with the bridges that join all places.
    fabric: String,
    /// Its port of its site's bridge.
    port: String,
}

/// A node: a place with a range of pod addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Place,
    /// Its site's number.
    site: u8,
    /// Its own number in the site, from 1.
    number: u8,
}

/// One cluster's share of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The cluster's name.
    pub name: String,
    /// The cluster's id.
    pub id: u8,
    /// The site's number, from 1: its ranges and addresses come from it, so that two clusters may have one id.
    pub number: u8,
    /// Where etcd and the apiserver run.
    pub control: Place,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Node {
    /// The ranges of its pods, IPv4 first: a /24 and a /64.
    pub fn pod_ranges(&self) -> [String; 2] {
        let (site, number) = (self.site, self.number);
        [format!("10.{site}.{number}.0/24"), format!("fd7b:{site:x}:{number:x}::/64")]
    }

    /// The addresses of its n-th pod, from 1.
    pub fn pod(&self, n: u8) -> Dual {
        let (site, number) = (self.site, self.number);
        Dual {
            v4: Ipv4Addr::new(10, site, number, n),
            v6: Ipv6Addr::new(ULA, site.into(), number.into(), 0, 0, 0, 0, n.into()),
        }
    }

    /// The name of its n-th pod, from 1.
    pub fn pod_name(&self, n: u8) -> String {
        format!("{}-{n}", self.name)
    }
}

impl Site {
    /// The ranges of its services, IPv4 first: a /16 and a /112.
    pub fn service_ranges(&self) -> [String; 2] {
        let number = self.number;
        [format!("10.{}.0.0/16", 96 + number), format!("fd7b:{number:x}:{SERVICES:x}::/112")]
    }

    /// The cluster IPs of its n-th service, from 1.
    pub fn service(&self, n: u16) -> Dual {
        let [high, low] = n.to_be_bytes();
        Dual {
            v4: Ipv4Addr::new(10, 96 + self.number, high, low),
            v6: Ipv6Addr::new(ULA, self.number.into(), SERVICES, 0, 0, 0, 0, n),
        }
    }

    /// Its control plane's place and its nodes'.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.control).chain(self.nodes.iter().map(|n| &n.place))
    }
}

/// What all IPv6 addresses begin with.
const ULA: u16 = 0xfd7b;

/// A node as its pods see it, on every link the same.
const GATEWAY_V4: &str = "169.254.1.1";
/// The same by IPv6.
const GATEWAY_V6: &str = "fe80::1";

/// The part of a site's IPv6 range that services have; pods have the parts of their nodes' numbers, at most 255.
const SERVICES: u16 = 0x5e00;

/// Makes the namespaces, links, routes and cgroups of clusters given by name and id, `nodes` nodes each.
///
/// # Errors
/// `ip` fails, or a cgroup cannot be made; the run undoes what was made before.
pub fn build(run: &Run, clusters: &[(&str, u8)], nodes: u8) -> Result<Vec<Site>> {
    let sites = (1..).zip(clusters).map(|(number, (name, id))| site(run, name, *id, number, nodes));
    let sites = sites.collect::<Result<Vec<_>>>()?;
    let fabric = run.netns("fabric");
    let places: Vec<&Place> = sites.iter().flat_map(Site::places).collect();

    let mut script = format!("netns add {fabric}\n");
    places.iter().for_each(|place| append(&mut script, &format!("netns add {}", place.netns)));
    batch(None, &script)?;
    batch(Some(&fabric), &fabric_script(&sites))?;
    let routes = routes(&sites);
    for place in places {
        batch(Some(&place.netns), &place_script(place, &routes))?;
    }
    Ok(sites)
}

/// Gives a node a pod's address.
///
/// # Errors
/// `ip` fails.
pub fn add_pod(node: &Node, pod: Dual) -> Result<()> {
    let script = format!("addr replace {}/32 dev lo\naddr replace {}/128 dev lo nodad\n", pod.v4, pod.v6);
    batch(Some(&node.place.netns), &script)
}

/// Makes a place of its own for a node's n-th pod: a namespace with the pod's addresses, joined to its node's. All that
/// it sends goes to the node, which forwards what it has a route for and nothing else.
///
/// # Errors
/// `ip` fails.
pub fn build_pod(node: &Node, n: u8, netns: &str) -> Result<Place> {
    let (address, port) = (node.pod(n), format!("pod{n}"));
    batch(None, &format!("netns add {netns}\n"))?;
    let [v4, v6] = address.both();
    let outside = format!(
        "link add {port} type veth peer name eth0 netns {netns}\n\
         addr add {GATEWAY_V4}/32 dev {port}\naddr add {GATEWAY_V6}/64 dev {port} nodad\nlink set {port} up\n\
         route add {v4}/32 dev {port}\nroute add {v6}/128 dev {port}\n"
    );
    batch(Some(&node.place.netns), &outside)?;
    let inside = format!(
        "link set lo up\naddr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad\nlink set eth0 up\n\
         route add {GATEWAY_V4} dev eth0\nroute add default via {GATEWAY_V4} dev eth0\n\
         route add default via {GATEWAY_V6} dev eth0\n"
    );
    batch(Some(netns), &inside)?;
    let (cgroup, fabric) = (node.place.cgroup.clone(), node.place.netns.clone());
    Ok(Place { netns: netns.to_owned(), cgroup, address, fabric, port })
}

/// Removes a namespace, and with it its links.
///
/// # Errors
/// `ip` fails.
pub fn remove_netns(netns: &str) -> Result<()> {
    batch(None, &format!("netns del {netns}\n"))
}

/// Lets a node forward what its pods send, and leads what it sends itself to a service's address to where it can be
/// translated: a bridge without ports, from which nothing ever leaves.
///
/// # Errors
/// `ip` fails, or the kernel's switches cannot be set.
pub fn let_forward(site: &Site, node: &Node) -> Result<()> {
    netns::inside(&node.place.netns, || {
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").with_context(|| format!("set {switch}"))?;
        }
        Ok(())
    })?;
    let mut script = String::from("link add services type bridge\nlink set services up\n");
    for (range, source) in site.service_ranges().into_iter().zip(node.place.address.both()) {
        append(&mut script, &format!("route add {range} dev services src {source}"));
    }
    batch(Some(&node.place.netns), &script)
}

/// Cuts a place off from everything, or joins it again. Its addresses and routes stay, as when a cable is pulled: what
/// it sends and what is sent to it is lost without a word.
///
/// # Errors
/// `ip` fails.
pub fn set_link(place: &Place, link: Link) -> Result<()> {
    batch(Some(&place.fabric), &format!("link set {} {}\n", place.port, link.as_str()))
}

/// Cuts a site off from the other sites, or joins it again. Its own places reach each other.
///
/// # Errors
/// `ip` fails.
pub fn set_trunk(site: &Site, link: Link) -> Result<()> {
    batch(Some(&site.control.fabric), &format!("link set trunk{} {}\n", site.number, link.as_str()))
}

/// A link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Joined.
    Up,
    /// Cut.
    Down,
}

impl Link {
    fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

fn site(run: &Run, name: &str, id: u8, site: u8, nodes: u8) -> Result<Site> {
    let place = |leaf: &str, last: u8| -> Result<Place> {
        let leaf = format!("{name}-{leaf}");
        let (fabric, port) = (run.netns("fabric"), format!("port{site}-{last}"));
        Ok(Place {
            netns: run.netns(&leaf),
            cgroup: run.make_cgroup(&leaf)?,
            address: address(site, last),
            fabric,
            port,
        })
    };
    let control = place("control", 1)?;
    let nodes = (1..=nodes).map(|number| {
        let name = format!("{name}-{number}");
        Ok(Node { name, place: place(&number.to_string(), 10 + number)?, site, number })
    });
    Ok(Site { name: name.to_owned(), id, number: site, control, nodes: nodes.collect::<Result<_>>()? })
}

fn address(site: u8, last: u8) -> Dual {
    Dual { v4: Ipv4Addr::new(172, 30, site, last), v6: Ipv6Addr::new(ULA, 0, 0, 0, 0, 0, site.into(), last.into()) }
}

/// A bridge for each site, and one between the sites.
fn fabric_script(sites: &[Site]) -> String {
    // Nobody asks who wants which multicast, so neighbours must be found by flooding.
    let mut script = String::from("link add mesh type bridge mcast_snooping 0\nlink set mesh up\n");
    for site in sites {
        let n = site.number;
        append(&mut script, &format!("link add site{n} type bridge mcast_snooping 0\nlink set site{n} up"));
        append(&mut script, &format!("link add trunk{n} type veth peer name far{n}"));
        append(&mut script, &format!("link set trunk{n} master site{n} up\nlink set far{n} master mesh up"));
        for Place { netns, port, .. } in site.places() {
            append(&mut script, &format!("link add {port} type veth peer name eth0 netns {netns}"));
            append(&mut script, &format!("link set {port} master site{n} up"));
        }
    }
    script
}

/// Every node's pods, by the node's address: (range, via).
fn routes(sites: &[Site]) -> Vec<(String, IpAddr)> {
    let of = |node: &Node| node.pod_ranges().into_iter().zip(node.place.address.both()).collect::<Vec<_>>();
    sites.iter().flat_map(|site| &site.nodes).flat_map(of).collect()
}

fn place_script(place: &Place, routes: &[(String, IpAddr)]) -> String {
    let mut script = String::from("link set lo up\n");
    append(&mut script, &format!("addr add {}/16 dev eth0", place.address.v4));
    append(&mut script, &format!("addr add {}/64 dev eth0 nodad", place.address.v6));
    append(&mut script, "link set eth0 up");
    for (range, via) in routes.iter().filter(|(_, via)| !place.address.both().contains(via)) {
        append(&mut script, &format!("route add {range} via {via}"));
    }
    script
}

fn append(script: &mut String, line: &str) {
    writeln!(script, "{line}").expect("a string takes all that is written to it");
}

/// Runs `ip` commands, one a line, in a namespace (or where this process is).
fn batch(netns: Option<&str>, script: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(netns.into_iter().flat_map(|netns| ["-n", netns])).args(["-batch", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("run ip")?;
    child.stdin.take().expect("stdin is piped").write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let place = netns.unwrap_or("the machine");
        bail!("ip in {place}: {}\n{script}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Whether a cgroup is a child made for a run, never the root of the hierarchy: what an agent may be attached to.
pub fn is_child_of_a_run(cgroup: &Path) -> bool {
    let parent = cgroup.parent().and_then(Path::file_name).and_then(|n| n.to_str());
    parent.is_some_and(|name| name.starts_with("tombolo-"))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn place(netns: &str, last: u8) -> Place {
        let port = format!("port2-{last}");
        Place { netns: netns.into(), cgroup: "/c".into(), address: address(2, last), fabric: "f".into(), port }
    }

    #[test]
    fn a_place_gets_its_address_and_the_other_nodes_pods_and_no_default_route() {
        let node = |number: u8| Node { name: format!("we-{number}"), place: place("x", 10 + number), site: 2, number };
        let site = Site { name: "we".into(), id: 7, number: 2, control: place("c", 1), nodes: vec![node(1), node(2)] };
        expect![[r#"
            link set lo up
            addr add 172.30.2.11/16 dev eth0
            addr add fd7b::2:b/64 dev eth0 nodad
            link set eth0 up
            route add 10.2.2.0/24 via 172.30.2.12
            route add fd7b:2:2::/64 via fd7b::2:c
        "#]]
        .assert_eq(&place_script(&site.nodes[0].place, &routes(std::slice::from_ref(&site))));
        let texts = |dual: Dual| dual.both().map(|ip| ip.to_string());
        assert_eq!(texts(site.service(258)), ["10.98.1.2", "fd7b:2:5e00::102"]);
        assert_eq!(texts(site.nodes[1].pod(3)), ["10.2.2.3", "fd7b:2:2::3"]);
    }

    #[test]
    fn only_a_runs_child_cgroup_may_be_attached_to() {
        assert!(is_child_of_a_run(Path::new("/sys/fs/cgroup/tombolo-abcde/ne-1")));
        assert!(!is_child_of_a_run(Path::new("/sys/fs/cgroup/unified")));
        assert!(!is_child_of_a_run(Path::new("/sys/fs/cgroup/tombolo-abcde")));
    }
}
