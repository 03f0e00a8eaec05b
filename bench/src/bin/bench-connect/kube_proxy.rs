//! Rules that do what kube-proxy's do, for the comparison: the same chains, maps and jumps as its nftables and its iptables
//! mode write for cluster IPs with one endpoint each.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use tombolo_bench::ground::{Ground, is_on_path, run};
use tombolo_bench::tables::{PORT, vip};

use crate::dial::{BACKEND, backend};

/// kube-proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Nftables,
    Iptables,
}

impl Mode {
    /// Those whose tool is on this machine.
    pub(crate) fn here() -> Vec<Self> {
        let tools = [(Self::Nftables, "nft"), (Self::Iptables, "iptables-restore")];
        tools.into_iter().filter(|(_, tool)| is_on_path(tool)).map(|(mode, _)| mode).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// Puts the rules of so many services into this thread's namespace.
pub(crate) fn apply(ground: &Ground, mode: Mode, services: u32) -> Result<()> {
    let (file, tool, args): (_, _, &[&str]) = match mode {
        Mode::Nftables => ("rules.nft", "nft", &["-f"]),
        Mode::Iptables => ("rules.iptables", "iptables-restore", &[]),
    };
    let path = ground.file(file);
    let rules = match mode {
        Mode::Nftables => nftables(services)?,
        Mode::Iptables => iptables(services)?,
    };
    fs::write(&path, rules)?;
    run(tool, &[args, &[&path.to_string_lossy()]].concat())?;
    // A closed connection is forgotten soon, so that rounds do not fill the table with those before.
    fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    Ok(())
}

/// The nftables mode: one look-up of the destination leads to a service's chain, that to an endpoint's.
fn nftables(services: u32) -> Result<String> {
    let endpoint = backend()?;
    let mut text = String::from("table ip kube-proxy {\n");
    let (mut chains, mut elements, mut addresses) = (String::new(), Vec::new(), Vec::new());
    for n in 0..services {
        let at = vip(n).ip();
        write!(
            chains,
            "chain endpoint-{n} {{ ip saddr {BACKEND} jump mark-for-masquerade; \
             meta l4proto tcp dnat to {endpoint}; }}\n\
             chain service-{n} {{ ip daddr {at} tcp dport {PORT} ip saddr != 10.0.0.0/8 jump mark-for-masquerade; \
             numgen random mod 1 vmap {{ 0 : goto endpoint-{n} }}; }}\n"
        )?;
        elements.push(format!("{at} . tcp . {PORT} : goto service-{n}"));
        addresses.push(at.to_string());
    }
    let (elements, addresses) = (elements.join(", "), addresses.join(", "));
    write!(
        text,
        "chain mark-for-masquerade {{ meta mark set meta mark or 0x4000; }}\n\
         {chains}\
         map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map no-endpoint-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         map firewall-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}\n\
         map service-nodeports {{ type inet_proto . inet_service : verdict; }}\n\
         set nodeport-ips {{ type ipv4_addr; elements = {{ {BACKEND} }}; }}\n\
         set cluster-ips {{ type ipv4_addr; elements = {{ {addresses} }}; }}\n\
         map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; elements = {{ {elements} }}; }}\n\
         chain services {{\n\
           ip daddr . meta l4proto . th dport vmap @service-ips;\n\
           ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports;\n\
         }}\n\
         chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}\n\
         chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}\n\
         chain masquerading {{\n\
           meta mark and 0x4000 == 0 return;\n\
           meta mark set meta mark xor 0x4000;\n\
           masquerade fully-random;\n\
         }}\n\
         chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}\n\
         chain filter-input {{ type filter hook input priority -110;\n\
           ct state new jump nodeport-endpoints-check; ct state new jump service-endpoints-check; }}\n\
         chain filter-forward {{ type filter hook forward priority -110;\n\
           ct state new jump service-endpoints-check; ct state new jump cluster-ips-check; }}\n\
         chain filter-output {{ type filter hook output priority -110;\n\
           ct state new jump service-endpoints-check; ct state new jump firewall-check; }}\n\
         chain filter-output-post-dnat {{ type filter hook output priority -90; ct state new jump cluster-ips-check; }}\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n\
         }}\n"
    )?;
    Ok(text)
}

/// The iptables mode: one chain with a rule for each service, walked until one matches.
fn iptables(services: u32) -> Result<String> {
    let endpoint = backend()?;
    let (mut chains, mut rules, mut jumps) = (String::new(), String::new(), String::new());
    for n in 0..services {
        let at = vip(n).ip();
        write!(chains, ":KUBE-SVC-{n} - [0:0]\n:KUBE-SEP-{n} - [0:0]\n")?;
        writeln!(
            jumps,
            "-A KUBE-SERVICES -d {at}/32 -p tcp -m comment --comment \"bench/s{n}:http cluster IP\" -m tcp --dport {PORT} \
             -j KUBE-SVC-{n}"
        )?;
        writeln!(rules, "-A KUBE-SVC-{n} ! -s 10.0.0.0/8 -d {at}/32 -p tcp -m tcp --dport {PORT} -j KUBE-MARK-MASQ")?;
        writeln!(rules, "-A KUBE-SVC-{n} -m comment --comment \"bench/s{n}:http -> {endpoint}\" -j KUBE-SEP-{n}")?;
        writeln!(rules, "-A KUBE-SEP-{n} -s {BACKEND}/32 -j KUBE-MARK-MASQ")?;
        writeln!(rules, "-A KUBE-SEP-{n} -p tcp -m tcp -j DNAT --to-destination {endpoint}")?;
    }
    Ok(format!(
        "*filter\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A FORWARD -j KUBE-FORWARD\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n\
         -A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n\
         *nat\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         {chains}\
         -A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
         {rules}{jumps}\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         COMMIT\n"
    ))
}
