//! Ways of doing the same work, measured in turns: what slows the machine for a while slows them all.

use std::time::Duration;

use anyhow::Result;

use crate::figures::percentile;

/// One way: does so many operations, and says how long they took together.
pub type Way<'a> = Box<dyn FnMut(usize) -> Result<Duration> + 'a>;

/// What the rounds of one way took: nanoseconds of one operation, a round each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Of these values.
    pub fn new(values: Vec<f64>) -> Self {
        Self(values)
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// A percentile; of a machine that is busy with other things, a low one is nearer to the truth.
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&mut self.0.clone(), percent)
    }

    /// What this took more than another way in the same rounds.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(mine, others)| mine - others).collect())
    }
}

/// Runs `rounds` rounds of all ways, `each` operations a way, every other round backwards. A round before them is not
/// counted: it warms what the first operations find cold.
///
/// # Errors
/// A way's own.
pub fn take_turns(ways: &mut [Way<'_>], rounds: usize, each: usize) -> Result<Vec<Sample>> {
    let mut samples = vec![Sample(Vec::with_capacity(rounds)); ways.len()];
    for round in 0..=rounds {
        let mut order: Vec<usize> = (0..ways.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for way in order {
            let took = ways[way](each)?.as_nanos() as f64 / each as f64;
            if round > 0 {
                samples[way].0.push(took);
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::time::Duration;

    use super::{Sample, Way, take_turns};

    #[test]
    fn every_way_has_its_turn_in_every_round() {
        let order = RefCell::new(Vec::new());
        let way = |name: char, ns: u64| -> Way<'_> {
            let order = &order;
            Box::new(move |each| {
                order.borrow_mut().push(name);
                Ok(Duration::from_nanos(ns * each as u64))
            })
        };
        let samples = take_turns(&mut [way('a', 10), way('b', 12)], 2, 5).unwrap();
        assert_eq!(order.borrow().iter().collect::<String>(), "abbaab");
        assert_eq!(samples, [Sample(vec![10.0, 10.0]), Sample(vec![12.0, 12.0])]);
        assert_eq!(samples[1].beyond(&samples[0]).median(), 2.0);
    }
}
