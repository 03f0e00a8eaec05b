//! The machine's part of a mesh: namespaces for control planes and nodes on one bridge, addresses, routes, cgroups.
//!
//! No namespace has a default route, so a dialled service address that nobody translates cannot leave the machine.
//! Pod addresses are local addresses of their node; nodes route each other's pod ranges by node address.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::run::Run;

/// A namespace with an address on the fabric, and the cgroup of the processes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network namespace's name.
    pub netns: String,
    /// The cgroup.
    pub cgroup: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
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
    /// The range of its pods, a /24.
    pub fn pod_range(&self) -> String {
        format!("10.{}.{}.0/24", self.site, self.number)
    }

    /// The address of its n-th pod, from 1.
    pub fn pod(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.site, self.number, n)
    }
}

impl Site {
    /// The range of its services, a /16.
    pub fn service_range(&self) -> String {
        format!("10.{}.0.0/16", 96 + self.number)
    }

    /// The cluster IP of its n-th service, from 1.
    pub fn service(&self, n: u16) -> Ipv4Addr {
        let [high, low] = n.to_be_bytes();
        Ipv4Addr::new(10, 96 + self.number, high, low)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.control).chain(self.nodes.iter().map(|n| &n.place))
    }
}

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
    batch(Some(&fabric), &fabric_script(&places))?;
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
pub fn add_pod(node: &Node, pod: Ipv4Addr) -> Result<()> {
    batch(Some(&node.place.netns), &format!("addr replace {pod}/32 dev lo\n"))
}

/// Cuts a place off from the fabric, or joins it again.
///
/// # Errors
/// `ip` fails.
pub fn set_link(place: &Place, link: Link) -> Result<()> {
    let state = match link {
        Link::Up => "up",
        Link::Down => "down",
    };
    batch(Some(&place.netns), &format!("link set eth0 {state}\n"))
}

/// A link's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Joined.
    Up,
    /// Cut.
    Down,
}

fn site(run: &Run, name: &str, id: u8, site: u8, nodes: u8) -> Result<Site> {
    let place = |leaf: &str, last: u8| -> Result<Place> {
        let leaf = format!("{name}-{leaf}");
        let address = Ipv4Addr::new(172, 30, site, last);
        Ok(Place { netns: run.netns(&leaf), cgroup: run.make_cgroup(&leaf)?, address })
    };
    let control = place("control", 1)?;
    let nodes = (1..=nodes).map(|number| {
        let name = format!("{name}-{number}");
        Ok(Node { name, place: place(&number.to_string(), 10 + number)?, site, number })
    });
    Ok(Site { name: name.to_owned(), id, number: site, control, nodes: nodes.collect::<Result<_>>()? })
}

fn fabric_script(places: &[&Place]) -> String {
    let mut script = String::from("link add mesh type bridge\nlink set mesh up\n");
    for (n, place) in places.iter().enumerate() {
        append(&mut script, &format!("link add port{n} type veth peer name eth0 netns {}", place.netns));
        append(&mut script, &format!("link set port{n} master mesh up"));
    }
    script
}

/// Every node's pods, by the node's address: (range, via).
fn routes(sites: &[Site]) -> Vec<(String, Ipv4Addr)> {
    sites.iter().flat_map(|site| &site.nodes).map(|node| (node.pod_range(), node.place.address)).collect()
}

fn place_script(place: &Place, routes: &[(String, Ipv4Addr)]) -> String {
    let mut script = String::from("link set lo up\n");
    append(&mut script, &format!("addr add {}/16 dev eth0", place.address));
    append(&mut script, "link set eth0 up");
    for (range, via) in routes.iter().filter(|(_, via)| *via != place.address) {
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
        Place { netns: netns.into(), cgroup: "/c".into(), address: Ipv4Addr::new(172, 30, 2, last) }
    }

    #[test]
    fn a_place_gets_its_address_and_the_other_nodes_pods_and_no_default_route() {
        let node = |number: u8| Node { name: format!("we-{number}"), place: place("x", 10 + number), site: 2, number };
        let site = Site { name: "we".into(), id: 7, number: 2, control: place("c", 1), nodes: vec![node(1), node(2)] };
        expect![[r#"
            link set lo up
            addr add 172.30.2.11/16 dev eth0
            link set eth0 up
            route add 10.2.2.0/24 via 172.30.2.12
        "#]]
        .assert_eq(&place_script(&site.nodes[0].place, &routes(std::slice::from_ref(&site))));
        assert_eq!(site.service(258).to_string(), "10.98.1.2");
    }

    #[test]
    fn only_a_runs_child_cgroup_may_be_attached_to() {
        assert!(is_child_of_a_run(Path::new("/sys/fs/cgroup/tombolo-abcde/ne-1")));
        assert!(!is_child_of_a_run(Path::new("/sys/fs/cgroup/unified")));
        assert!(!is_child_of_a_run(Path::new("/sys/fs/cgroup/tombolo-abcde")));
    }
}
