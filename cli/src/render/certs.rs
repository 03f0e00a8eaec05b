//! `certs` in words.

use std::fmt::Write as _;

use tombolo_certs::{Severity, rfc3339};
use tombolo_core::id::ClusterName;

use super::count;
use crate::certs::{Shown, ShownAll, Verified};
use crate::connect::shown;
use crate::output::Report;

impl Report for ShownAll {
    fn text(&self) -> String {
        self.certificates.iter().map(certificate).collect::<Vec<_>>().join("\n")
    }
}

fn certificate(certificate: &Shown) -> String {
    let info = &certificate.info;
    let mut out = format!("{}\n", shown(&certificate.path));
    let mut line = |what: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {what:<12}{value}");
        }
    };
    line("subject", &info.subject);
    line("issuer", if info.issuer == info.subject { "itself" } else { &info.issuer });
    let addresses = info.ips.iter().map(ToString::to_string);
    line("names", &info.dns.iter().cloned().chain(addresses).collect::<Vec<_>>().join(", "));
    line("valid", &format!("{} to {}", rfc3339(info.not_before), rfc3339(info.not_after)));
    let usages: Vec<&str> = info.usages.iter().map(|usage| usage.as_str()).collect();
    line("for", if info.is_ca { "signing" } else { "" });
    line("for", &if info.is_ca { String::new() } else { usages.join(", ") });
    line("key", &info.key);
    line("serial", &info.serial);
    line("SHA-256", &info.fingerprint);
    out
}

impl Report for Verified {
    fn text(&self) -> String {
        let mut out = String::new();
        for finding in &self.findings {
            let mark = if finding.severity == Severity::Error { "❌" } else { "⚠️ " };
            let _ = writeln!(out, "{mark} {} {}: {}", finding.cluster, finding.role.as_str(), finding.problem);
            let _ = writeln!(out, "   → {}", finding.problem.remedy());
        }
        let names: Vec<&str> = self.clusters.iter().map(ClusterName::as_str).collect();
        if self.ok() {
            let _ = writeln!(out, "✅ the certificates of {} will do", names.join(", "));
        } else {
            let errors = self.findings.iter().filter(|f| f.severity == Severity::Error).count();
            let _ =
                writeln!(out, "❌ {} in the certificates of {}", count(errors, "error", "errors"), names.join(", "));
        }
        out
    }

    fn ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tombolo_certs::{CertInfo, Finding, Problem, Role, Usage};

    use super::*;

    fn leaf() -> CertInfo {
        CertInfo {
            subject: "CN=clustermesh-apiserver.kube-system.svc".into(),
            issuer: "CN=Cilium CA".into(),
            common_name: Some("clustermesh-apiserver.kube-system.svc".into()),
            dns: vec!["*.mesh.cilium.io".into()],
            ips: vec!["127.0.0.1".parse().unwrap()],
            not_before: 1_800_000_000,
            not_after: 1_831_536_000,
            serial: "4f:01".into(),
            fingerprint: "AB:CD".into(),
            key: "ECDSA P-256".into(),
            usages: vec![Usage::Server, Usage::Client],
            is_ca: false,
            public_key: vec![],
        }
    }

    #[test]
    fn certificates_line_by_line() {
        let ca = CertInfo {
            subject: "CN=Cilium CA".into(),
            dns: vec![],
            ips: vec![],
            is_ca: true,
            key: "RSA 2048".into(),
            ..leaf()
        };
        let all = [("/m/ca/ca.crt", ca), ("/m/we/tls/server.crt", leaf())];
        let certificates = all.into_iter().map(|(path, info)| Shown { path: path.into(), info }).collect();
        expect![[r#"
            /m/ca/ca.crt
              subject     CN=Cilium CA
              issuer      itself
              valid       2027-01-15T08:00:00Z to 2028-01-15T08:00:00Z
              for         signing
              key         RSA 2048
              serial      4f:01
              SHA-256     AB:CD

            /m/we/tls/server.crt
              subject     CN=clustermesh-apiserver.kube-system.svc
              issuer      CN=Cilium CA
              names       *.mesh.cilium.io, 127.0.0.1
              valid       2027-01-15T08:00:00Z to 2028-01-15T08:00:00Z
              for         server, client
              key         ECDSA P-256
              serial      4f:01
              SHA-256     AB:CD
        "#]]
        .assert_eq(&ShownAll { certificates }.text());
    }

    #[test]
    fn findings_with_remedies() {
        let clusters = vec![ClusterName::new("ne").unwrap(), ClusterName::new("we").unwrap()];
        let finding = |problem: Problem| Finding {
            cluster: "we".into(),
            role: Role::Server,
            severity: problem.severity(),
            problem,
        };
        let soon = Problem::ExpiresSoon { path: "we/tls/server.crt".into(), until: "2027-01-01T00:00:00Z".into() };
        let fine = Verified { clusters: clusters.clone(), findings: vec![finding(soon.clone())] };
        let name = Problem::MissingName { path: "we/tls/server.crt".into(), name: "store.we".into() };
        let bad = Verified { clusters, findings: vec![finding(soon), finding(name)] };
        expect![[r#"
            ⚠️  we server: we/tls/server.crt: expires at 2027-01-01T00:00:00Z
               → issue the leaves again: tombolo certs issue --force
            ✅ the certificates of ne, we will do
            ⚠️  we server: we/tls/server.crt: expires at 2027-01-01T00:00:00Z
               → issue the leaves again: tombolo certs issue --force
            ❌ we server: we/tls/server.crt: does not cover the name store.we
               → issue the server leaf again with --dns or --ip for that name
            ❌ 1 error in the certificates of ne, we
        "#]]
        .assert_eq(&(fine.text() + &bad.text()));
        assert!(fine.ok() && !bad.ok());
    }
}
