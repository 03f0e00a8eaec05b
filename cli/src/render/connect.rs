//! `connect`, `disconnect` and `init` in words.

use crate::connect::{Done, Outcome, Side, shown};
use crate::init::Made;
use crate::output::Report;

impl Report for Done {
    fn text(&self) -> String {
        let sides = self.sides.iter().map(side);
        let warnings = self.warnings.iter().map(|warning| format!("⚠️  {warning}\n"));
        sides.chain(warnings).collect()
    }
}

impl Done {
    /// Appends what else was done.
    pub(crate) fn add(&mut self, other: Self) {
        self.sides.extend(other.sides);
        for warning in other.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

fn side(side: &Side) -> String {
    let (path, endpoints) = (shown(&side.path), side.endpoints.join(", "));
    let Side { cluster, peer, .. } = side;
    match side.outcome {
        Outcome::Written => format!("✅ {cluster} reads {peer} at {endpoints} ({path} written)\n"),
        Outcome::Changed => format!("✅ {cluster} reads {peer} at {endpoints} ({path} changed)\n"),
        Outcome::Unchanged => format!("✅ {cluster} reads {peer} at {endpoints} ({path} was so already)\n"),
        Outcome::Removed => format!("✅ {cluster} no longer reads {peer} ({path} removed)\n"),
        Outcome::Absent => format!("✅ {cluster} did not read {peer} (no {path})\n"),
    }
}

impl Report for Made {
    fn text(&self) -> String {
        let (root, endpoints) = (shown(&self.root), self.endpoints.join(", "));
        format!("✅ {} (id {}) in {root}, its store at {endpoints}\n", self.cluster, self.id)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tombolo_certs::Problem;
    use tombolo_core::id::ClusterName;

    use super::*;
    use crate::connect::Obstacle;

    #[test]
    fn every_outcome() {
        let name = |text| ClusterName::new(text).unwrap();
        let outcomes = [Outcome::Written, Outcome::Changed, Outcome::Unchanged, Outcome::Removed, Outcome::Absent];
        let sides = outcomes.map(|outcome| Side {
            cluster: name("ne"),
            peer: name("we"),
            path: "/m/ne/peers/we".into(),
            outcome,
            endpoints: vec!["https://we.mesh.cilium.io:2379".into()],
        });
        let problem =
            Problem::ExpiresSoon { path: "/m/we/tls/server.crt".into(), until: "2027-01-01T00:00:00Z".into() };
        let warnings = vec![Obstacle::Certificate { cluster: name("we"), problem }];
        let mut done = Done { sides: sides.into(), warnings: warnings.clone() };
        done.add(Done { sides: vec![], warnings });
        let made = Made { cluster: name("ne"), id: 1, root: "/m/ne".into(), endpoints: vec!["https://a:1".into()] };
        expect![[""]].assert_eq(&(done.text() + &made.text()));
    }
}
