use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

const GOOD: &str = "endpoints:\n- https://ne.mesh.cilium.io:2379\ntrusted-ca-file: ca\ncert-file: c\nkey-file: k\n";

/// Shows the directory to a cluster `we` at several times, and writes down what it says.
fn check(looks: &[(u64, &[(&str, &str)])], expected: Expect) {
    check_known(&[], looks, expected);
}

/// The same, in a life after one that had these peers.
#[expect(clippy::needless_pass_by_value, reason = "fixtures are written in place")]
fn check_known(known: &[&str], looks: &[(u64, &[(&str, &str)])], expected: Expect) {
    let known = known.iter().map(|name| ClusterName::new(name).unwrap());
    let mut files = PeerFiles::new(ClusterName::new("we").unwrap(), known);
    let mut out = String::new();
    for (at, entries) in looks {
        let listing: Listing = entries.iter().map(|(n, text)| ((*n).to_owned(), Ok((*text).to_owned()))).collect();
        let changes = files.on(Ok(&listing), Millis(*at));
        write!(out, "{at}:").unwrap();
        for change in changes {
            match change {
                FileChange::Configured(peer, config) => write!(out, " configured {peer} {:?}", config.endpoints),
                FileChange::Suspended(peer, why) => write!(out, " suspended {peer} ({why})"),
                FileChange::Restored(peer) => write!(out, " restored {peer}"),
                FileChange::Left(peer) => write!(out, " left {peer}"),
            }
            .unwrap();
        }
        writeln!(out, "{}", files.faults().iter().map(|(f, e)| format!(" [{f}: {e}]")).collect::<String>()).unwrap();
    }
    expected.assert_eq(&out);
}

#[test]
fn files_are_peers_by_content_and_name() {
    let other = GOOD.replace("ne.mesh", "new.mesh");
    check(
        &[
            (0, &[("ne", GOOD), ("we", GOOD), ("ca.crt", "PEM"), (".hidden", GOOD)]),
            (1, &[("ne", GOOD), ("Not_A_Name", GOOD)]),
            (2, &[("ne", &other)]),
        ],
        expect![[r#"
            0: configured ne ["https://ne.mesh.cilium.io:2379"]
            1: [Not_A_Name: "Not_A_Name" is no cluster name: 1 to 32 of a-z, 0-9 and '-', with a letter or digit at both ends]
            2: configured ne ["https://new.mesh.cilium.io:2379"]
        "#]],
    );
}

#[test]
fn a_file_that_is_gone_or_broken_keeps_its_peer_for_a_while() {
    let broken = "endpoints: 7\n";
    check(
        &[
            (0, &[("fc", GOOD), ("ne", GOOD)]),
            (10, &[("ne", broken)]),
            (500, &[("fc", GOOD), ("ne", broken)]),
            (1_010, &[("fc", GOOD), ("ne", broken)]),
            (5_000, &[("fc", GOOD), ("ne", GOOD)]),
            (6_000, &[("ne", GOOD)]),
            (7_000, &[("ne", GOOD)]),
            (65_999, &[("ne", GOOD)]),
            (66_000, &[("ne", GOOD)]),
        ],
        expect![[r#"
            0: configured fc ["https://ne.mesh.cilium.io:2379"] configured ne ["https://ne.mesh.cilium.io:2379"]
            10: [ne: line 1, column 12: endpoints: expected sequence start]
            500: [ne: line 1, column 12: endpoints: expected sequence start]
            1010: suspended ne (line 1, column 12: endpoints: expected sequence start) [ne: line 1, column 12: endpoints: expected sequence start]
            5000: restored ne
            6000:
            7000: suspended fc (its file is gone)
            65999:
            66000: left fc
        "#]],
    );
}

#[test]
fn a_directory_that_cannot_be_listed_says_nothing_about_its_files() {
    let mut files = PeerFiles::new(ClusterName::new("we").unwrap(), []);
    let listing = Listing::from([("ne".to_owned(), Ok(GOOD.to_owned()))]);
    assert_eq!((files.on(Err("no such directory"), Millis(0)), files.is_listed()), (vec![], false));
    assert_eq!(files.on(Ok(&listing), Millis(1)).len(), 1);
    for at in [2, 2_000, 90_000] {
        assert_eq!(files.on(Err("no such directory"), Millis(at)), []);
        assert_eq!((files.deadline(), files.faults().len()), (None, 1));
    }
    assert_eq!((files.on(Ok(&listing), Millis(90_001)), files.is_listed()), (vec![], true));
}

#[test]
fn a_tombstone_lets_it_leave_at_once() {
    check(
        &[
            (0, &[("ne", GOOD)]),
            (1, &[("ne", GOOD), (".disconnected-ne", "")]),
            (2, &[(".disconnected-ne", "")]),
            (3, &[("ne", GOOD)]),
        ],
        expect![[r#"
            0: configured ne ["https://ne.mesh.cilium.io:2379"]
            1:
            2: left ne
            3: configured ne ["https://ne.mesh.cilium.io:2379"]
        "#]],
    );
}

#[test]
fn a_file_that_is_gone_or_broken_at_the_start_keeps_the_peer_of_an_earlier_life_for_a_while() {
    let broken = "endpoints: 7\n";
    let gone: &[(&str, &str)] = &[("ne", GOOD), ("zz", broken), (".disconnected-aa", "")];
    check_known(
        &["aa", "fc", "ne", "zz"],
        &[(0, gone), (1_000, gone), (50_000, &[("ne", GOOD), ("zz", GOOD)]), (60_000, &[("ne", GOOD), ("zz", GOOD)])],
        expect![[r#"
            0: left aa configured ne ["https://ne.mesh.cilium.io:2379"] [zz: line 1, column 12: endpoints: expected sequence start]
            1000: suspended fc (its file is gone) suspended zz (line 1, column 12: endpoints: expected sequence start) [zz: line 1, column 12: endpoints: expected sequence start]
            50000: configured zz ["https://ne.mesh.cilium.io:2379"]
            60000: left fc
        "#]],
    );
}
