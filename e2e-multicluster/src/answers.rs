//! What a client saw: one answer a request, and what a number of them together say about shares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of one request. `x-wing` prints one as a line of JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The request's number, from 0.
    pub n: u64,
    /// When it was due, in microseconds of `CLOCK_MONOTONIC`; the schedule does not depend on earlier answers.
    pub at_us: u64,
    /// From when it was due until its answer was complete, in microseconds.
    pub took_us: u64,
    /// The cluster that answered in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The pod that did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Which of the client's sockets it came over, from 0: a kept one until it broke.
    #[serde(default)]
    pub socket: u64,
    /// Why there was no answer in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Sums over answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests made.
    pub requests: u64,
    /// Requests without an answer in time.
    pub failed: u64,
    /// Answers by cluster.
    pub by_cluster: BTreeMap<String, u64>,
    /// The first failure's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<String>,
}

impl Tally {
    /// The sums of these answers.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Self {
        let mut tally = Self::default();
        for answer in answers {
            tally.requests += 1;
            match &answer.cluster {
                Some(cluster) => *tally.by_cluster.entry(cluster.clone()).or_default() += 1,
                None => {
                    tally.failed += 1;
                    tally.first_error = tally.first_error.or_else(|| answer.error.clone());
                }
            }
        }
        tally
    }

    /// Adds another tally's sums.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        for (cluster, count) in other.by_cluster {
            *self.by_cluster.entry(cluster).or_default() += count;
        }
        self.first_error = self.first_error.take().or(other.first_error);
    }
}

/// Expected shares, as relative weights by cluster: an absent cluster must not answer at all.
pub type Shares = BTreeMap<String, u32>;

/// How many standard deviations a count may be from its expectation. A table's slot is picked at random for each
/// connection, so counts are binomial: a right share fails this about once in 1.7 million checks.
pub const DEVIATIONS: f64 = 5.0;

/// Says what is wrong with the shares of these answers; `None` when nothing is.
pub fn disagreement(by_cluster: &BTreeMap<String, u64>, expected: &Shares) -> Option<String> {
    if let Some((stranger, count)) = by_cluster.iter().find(|(name, _)| !expected.contains_key(*name)) {
        return Some(format!("{count} answers came from {stranger}, which should give none"));
    }
    let total: u64 = by_cluster.values().sum();
    let weights: u32 = expected.values().sum();
    expected.iter().find_map(|(name, weight)| {
        let count = by_cluster.get(name).copied().unwrap_or(0);
        let share = f64::from(*weight) / f64::from(weights);
        let (low, high) = bounds(total, share);
        let fits = (low..=high).contains(&to_f64(count)) && total > 0;
        (!fits).then(|| format!("{count} of {total} answers came from {name}, expected {low:.0} to {high:.0}"))
    })
}

/// The counts that a share of `total` may give.
fn bounds(total: u64, share: f64) -> (f64, f64) {
    let total = to_f64(total);
    let slack = DEVIATIONS * (total * share * (1.0 - share)).sqrt();
    ((total * share - slack).max(0.0), (total * share + slack).min(total))
}

/// Request counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts of a test's requests are exact as f64")]
pub fn to_f64(count: u64) -> f64 {
    count as f64
}

/// When a change of the expected clusters had been carried out, as seen by requests: microseconds after `since_us`.
///
/// It is the due time of the last request that a cluster of the old set alone answered, or of the first that each
/// cluster of only the new set answered, whichever was later; 0 when no answer showed the old state.
pub fn switch_us(answers: &[Answer], since_us: u64, before: &Shares, after: &Shares) -> Option<u64> {
    let later = || answers.iter().filter(|a| a.at_us >= since_us);
    let due_of = |a: &Answer| a.at_us - since_us;
    let of = |a: &Answer, set: &Shares| a.cluster.as_ref().is_some_and(|c| set.contains_key(c));
    let last_old = later().filter(|a| of(a, before) && !of(a, after)).map(due_of).max().unwrap_or(0);
    let mut switch = last_old;
    for newcomer in after.keys().filter(|c| !before.contains_key(*c)) {
        switch = switch.max(later().find(|a| a.cluster.as_ref() == Some(newcomer)).map(due_of)?);
    }
    Some(switch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(of: &[(&str, u32)]) -> Shares {
        of.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    fn answers(of: &[(u64, &str)]) -> Vec<Answer> {
        let one = |(at_us, cluster): &(u64, &str)| Answer {
            at_us: *at_us,
            cluster: (!cluster.is_empty()).then(|| (*cluster).to_owned()),
            error: cluster.is_empty().then(|| "refused".to_owned()),
            ..Answer::default()
        };
        of.iter().map(one).collect()
    }

    #[test]
    fn shares_within_five_deviations_agree() {
        let thirds = shares(&[("ne", 2), ("we", 2), ("fc", 2)]);
        assert_eq!(disagreement(&counts(&[("ne", 190), ("we", 210), ("fc", 200)]), &thirds), None);
        let odd = disagreement(&counts(&[("ne", 100), ("we", 250), ("fc", 250)]), &thirds);
        assert_eq!(odd.as_deref(), Some("100 of 600 answers came from ne, expected 142 to 258"));
        assert!(disagreement(&counts(&[]), &thirds).is_some());
    }

    #[test]
    fn a_cluster_that_should_not_answer_is_named() {
        let found = disagreement(&counts(&[("ne", 599), ("we", 1)]), &shares(&[("ne", 1)]));
        assert_eq!(found.as_deref(), Some("1 answers came from we, which should give none"));
    }

    #[test]
    fn the_switch_is_the_last_old_or_the_first_new_answer() {
        let (ne, others) = (shares(&[("ne", 1)]), shares(&[("we", 1), ("fc", 1)]));
        let seen = answers(&[(5, "ne"), (12, "ne"), (14, "we"), (16, ""), (18, "ne"), (20, "fc"), (22, "we")]);
        assert_eq!(switch_us(&seen, 10, &ne, &others), Some(10));
        assert_eq!(switch_us(&seen, 10, &others, &ne), Some(12));
        assert_eq!(switch_us(&seen[..3], 10, &ne, &others), None);
    }

    #[test]
    fn a_tally_counts_failures_apart() {
        let tally = Tally::of(&answers(&[(1, "ne"), (2, ""), (3, "ne")]));
        assert_eq!((tally.requests, tally.failed, tally.by_cluster), (3, 1, counts(&[("ne", 2)])));
        assert_eq!(tally.first_error.as_deref(), Some("refused"));
    }
}
