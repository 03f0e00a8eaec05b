//! Admission is total, and what it lets in keeps its promises.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use proptest::prelude::*;
use tombolo_core::admit::{Admission, Ranges};
use tombolo_core::id::{Addr, ClusterId, ClusterName, Family, MaxClusters};
use tombolo_core::model::Conditions;
use tombolo_core::record::{SliceEndpoint, SlicePort, SliceRecord};

fn admission() -> Admission {
    let ranges = Ranges::new(["10.1.0.0/16".parse().unwrap()], [], ["172.16.0.0/12".parse().unwrap()]);
    let id = ClusterId::new(3, MaxClusters::C255).unwrap();
    Admission::new(ClusterName::new("east").unwrap(), id, MaxClusters::C255, ranges.into())
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| ip.to_string()),
        any::<std::net::Ipv4Addr>().prop_map(|ip| format!("::ffff:{ip}")),
        any::<std::net::Ipv6Addr>().prop_map(|ip| ip.to_string()),
        (0..4u8).prop_map(|n| format!("10.{n}.0.1")),
        ".{0,12}",
    ]
}

fn port() -> impl Strategy<Value = SlicePort> {
    let protocol = prop::option::of(prop_oneof!["TCP|udp|Sctp|ICMP|", ".{0,4}"]);
    let number = prop::option::of(prop_oneof![-1..70_000i32, any::<i32>()]);
    ("[a-z]{0,3}", protocol, number).prop_map(|(name, protocol, port)| SlicePort {
        name,
        protocol,
        port,
        app_protocol: None,
    })
}

fn record() -> impl Strategy<Value = SliceRecord> {
    let conditions = any::<[Option<bool>; 3]>();
    let endpoint = (prop::collection::vec(address(), 0..3), conditions, prop::option::of(".{0,3}"));
    let endpoint = endpoint.prop_map(|(addresses, [ready, serving, terminating], zone)| SliceEndpoint {
        addresses,
        conditions: Conditions { ready, serving, terminating },
        zone,
        ..SliceEndpoint::default()
    });
    let weight = prop::option::of("[0-9]{0,6}");
    let parts = (prop::collection::vec(endpoint, 0..5), prop::collection::vec(port(), 0..4), weight);
    parts.prop_map(|(endpoints, ports, weight)| SliceRecord {
        cluster: "east".into(),
        cluster_id: 3,
        namespace: "test".into(),
        name: "echo-1".into(),
        labels: [("kubernetes.io/service-name".into(), "echo".into())].into(),
        annotations: weight.into_iter().map(|w| ("service.cilium.io/weight".into(), w)).collect(),
        family: Family::V4,
        endpoints,
        ports,
    })
}

proptest! {
    #[test]
    fn what_is_let_in_keeps_its_promises(record in record()) {
        let Ok(admitted) = admission().slice("test/echo-1", &record) else { return Ok(()) };
        let endpoints = &admitted.slice.endpoints;
        prop_assert!(endpoints.is_sorted_by(|a, b| a.addr < b.addr), "each address once");
        for endpoint in endpoints {
            prop_assert!(!endpoint.ports.is_empty() && endpoint.ports.is_sorted_by(|a, b| a < b));
            prop_assert!(endpoint.ports.iter().all(|port| port.number > 0));
            let ip = endpoint.addr.ip();
            let own = "10.1.0.0/16".parse::<ipnet::IpNet>().unwrap();
            prop_assert!(!ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified() && !own.contains(&ip));
        }
        // Nothing is lost without a reason: every first address is let in, refused, or has no port left.
        let firsts = record.endpoints.iter().filter_map(|e| e.addresses.first());
        for first in firsts.filter(|_| !endpoints.is_empty()) {
            let here = first.parse::<Addr>().is_ok_and(|addr| endpoints.iter().any(|e| e.addr == addr));
            prop_assert!(here || !admitted.refusals.is_empty(), "{} vanished", first);
        }
    }
}
