//! What `status --wait` shows while it waits: a picture that is drawn anew on a terminal, lines elsewhere.

use std::io::IsTerminal as _;

use super::status::SitesStatus;
use crate::args::Format;
use crate::output::{Report as _, print_problem, redraw};

/// How waiting is shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The whole status, in place of the one before, whose lines these are.
    Picture(usize),
    /// What is waited for, whenever it is something else.
    Lines(Vec<String>),
    /// Nothing: somebody reads JSON.
    None,
}

impl View {
    /// What suits who looks.
    pub(crate) fn new(format: Format) -> Self {
        match format {
            Format::Json => Self::None,
            Format::Text if std::io::stdout().is_terminal() => Self::Picture(0),
            Format::Text => Self::Lines(Vec::new()),
        }
    }

    /// Shows where things stand.
    pub(crate) fn show(&mut self, status: &SitesStatus) {
        match self {
            Self::None => {}
            Self::Picture(lines) => {
                let text = format!("{}⌛ waiting; Ctrl-C ends it\n", status.text());
                redraw(*lines, &text);
                *lines = text.lines().count();
            }
            Self::Lines(before) => {
                let now = waited_for(status);
                for line in now.iter().filter(|line| !before.contains(line)) {
                    print_problem(line);
                }
                *before = now;
            }
        }
    }

    /// Makes room for the result.
    pub(crate) fn end(&mut self) {
        if let Self::Picture(lines) = self {
            redraw(std::mem::take(lines), "");
        }
    }
}

fn waited_for(status: &SitesStatus) -> Vec<String> {
    let of = |c: &super::status::SiteStatus| {
        let who = c.cluster.clone().unwrap_or_else(|| format!("context {}", c.context));
        c.problems.iter().map(move |problem| format!("⌛ {who}: {problem}")).collect::<Vec<_>>()
    };
    status.clusters.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::status::SiteStatus;

    #[test]
    fn lines_name_who_and_what() {
        let site = |cluster: Option<&str>, problems: &[&str]| SiteStatus {
            context: "kind-we".into(),
            cluster: cluster.map(str::to_owned),
            problems: problems.iter().map(ToString::to_string).collect(),
            ..SiteStatus::default()
        };
        let clusters = vec![site(Some("ne"), &["agents: 1 of 2 ready", "b"]), site(None, &["not enabled"])];
        let status = SitesStatus { connected: false, clusters };
        let told = ["⌛ ne: agents: 1 of 2 ready", "⌛ ne: b", "⌛ context kind-we: not enabled"];
        assert_eq!(waited_for(&status), told);
        assert_eq!(View::new(Format::Json), View::None);
    }
}
