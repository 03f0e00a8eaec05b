//! Figures of a bench: percentiles, targets, and how they are told.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::story;

/// What `--json` writes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The machine: processor, cores, kernel.
    pub machine: String,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// What it should not exceed.
    pub target: Option<f64>,
    /// Whether it does not.
    pub met: Option<bool>,
    /// The same work by something else, in the same run and unit.
    pub baseline: Option<f64>,
    /// Under which load and with which parts, in words.
    pub conditions: String,
}

impl Figure {
    /// A figure in milliseconds, to be at most `target`.
    pub fn ms(name: &str, value: f64, target: Option<f64>, baseline: Option<f64>, conditions: &str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit: "ms".into(),
            target,
            met: target.map(|target| value <= target),
            baseline,
            conditions: conditions.to_owned(),
        }
    }
}

impl Figures {
    /// Figures of this machine.
    pub fn of_this_machine(figures: Vec<Figure>) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let model = model.map_or("unknown processor", |(_, model)| model);
        Self { machine: format!("{model}, {cores} cores, Linux {}", kernel.trim()), figures }
    }

    /// Prints a table.
    pub fn tell(&self) {
        story::chapter(&self.machine);
        story::say(&format!("{:<34} {:>10} {:>10} {:>8} {:>10}", "", "value", "target", "", "baseline"));
        for figure in &self.figures {
            let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.2} {}", figure.unit));
            let met = match figure.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let (value, target) = (number(Some(figure.value)), number(figure.target));
            story::say(&format!(
                "{:<34} {value:>10} {target:>10} {met:>8} {:>10}",
                figure.name,
                number(figure.baseline)
            ));
        }
        let mut said = std::collections::BTreeSet::new();
        for figure in self.figures.iter().filter(|f| said.insert(&f.conditions)) {
            story::say(&format!("  {}", figure.conditions));
        }
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(file, text).with_context(|| format!("write {}", file.display()))
    }
}

/// The smallest sample that at least `percent` of all samples do not exceed; 0 of none.
pub fn percentile(samples: &mut [f64], percent: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let rank = (samples.len() * percent).div_ceil(100);
    samples.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut samples, 50), 100.0);
        assert_eq!(percentile(&mut samples, 99), 198.0);
        assert_eq!(percentile(&mut samples, 100), 200.0);
        assert_eq!(percentile(&mut [3.0], 99), 3.0);
        assert_eq!(percentile(&mut [], 50), 0.0);
    }
}
