//! Figures of a bench: percentiles, targets, and how they are told.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

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
    /// What it should not exceed, or not fall below.
    pub target: Option<f64>,
    /// Whether that is so.
    pub met: Option<bool>,
    /// The same work by something else, in the same run and unit.
    pub baseline: Option<f64>,
    /// What the tenth and the ninetieth percentile of the rounds were, where there were rounds; the value is their median.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<[f64; 2]>,
    /// Under which load and with which parts, in words.
    pub conditions: String,
}

impl Figure {
    /// A figure, with nothing to compare it with yet.
    pub fn new(name: &str, value: f64, unit: &str, conditions: &str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit: unit.to_owned(),
            target: None,
            met: None,
            baseline: None,
            spread: None,
            conditions: conditions.to_owned(),
        }
    }

    /// A figure in milliseconds, to be at most `target`.
    pub fn ms(name: &str, value: f64, target: Option<f64>, baseline: Option<f64>, conditions: &str) -> Self {
        let figure = Self { baseline, ..Self::new(name, value, "ms", conditions) };
        match target {
            Some(target) => figure.at_most(target),
            None => figure,
        }
    }

    /// The rounds that it is the median of.
    #[must_use]
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { spread: Some([low, high]), ..self }
    }

    /// It should be at most this.
    #[must_use]
    pub fn at_most(self, target: f64) -> Self {
        Self { met: Some(self.value <= target), target: Some(target), ..self }
    }

    /// It should be at least this.
    #[must_use]
    pub fn at_least(self, target: f64) -> Self {
        Self { met: Some(self.value >= target), target: Some(target), ..self }
    }

    /// What something else took for the same work in the same run.
    #[must_use]
    pub fn beside(self, baseline: f64) -> Self {
        Self { baseline: Some(baseline), ..self }
    }
}

impl fmt::Display for Figures {
    /// A table, and below it each condition once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n== {}", self.machine)?;
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        writeln!(f, "{:width$} {:>12} {:>12} {:>7} {:>12}  spread", "", "value", "target", "", "baseline")?;
        for figure in &self.figures {
            let number =
                |value: Option<f64>| value.map_or_else(String::new, |v| format!("{} {}", short(v), figure.unit));
            let met = match figure.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let (value, target, baseline) =
                (number(Some(figure.value)), number(figure.target), number(figure.baseline));
            let spread =
                figure.spread.map_or_else(String::new, |[low, high]| format!("{} to {}", short(low), short(high)));
            let line = format!("{:width$} {value:>12} {target:>12} {met:>7} {baseline:>12}  {spread}", figure.name);
            writeln!(f, "{}", line.trim_end())?;
        }
        let mut said = BTreeSet::new();
        for figure in self.figures.iter().filter(|figure| said.insert(&figure.conditions)) {
            writeln!(f, "  {}", figure.conditions)?;
        }
        Ok(())
    }
}

/// Three digits that count, or the whole number.
fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
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
