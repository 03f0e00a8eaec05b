//! The same Service by other protocols and families.

use anyhow::Result;

use super::{ALL, Outcome, Question, RATE, STEADY, SWITCH, Step, all_answer, shares};
use crate::answers::Answer;
use crate::clock::Seen;
use crate::load::{self, Dial};
use crate::mesh::Mesh;

pub(super) fn carry_out(mesh: &mut Mesh, step: &Step, questions: &[Question]) -> Result<Outcome> {
    all_answer(mesh)?;
    let logs = mesh.run().logs();
    let ne = mesh.cluster("ne");
    let ways = u32::try_from(questions.len())?;
    let mut loads = Vec::new();
    for (n, question) in questions.iter().enumerate() {
        let dial = Dial::new(ne.dialled(question.frontend), question.way, RATE / ways);
        let name = format!("x-wing-{}-{n}", step.name);
        loads.push((question.name, load::begin(&name, &ne.site.nodes[0].place, &dial, &logs)?));
    }
    let enough = STEADY / questions.len();
    let mut answers: Vec<(&str, Vec<Answer>)> = Vec::new();
    for (name, mut load) in loads {
        load.wait_for("enough requests", SWITCH, |seen| match seen.len() {
            n if n >= enough => Seen::Ready(()),
            n => Seen::NotYet(format!("{n}, not {enough}")),
        })?;
        answers.push((name, load.end()?));
    }
    let (mut outcome, tally) = Outcome::of(step, answers.iter().flat_map(|(_, answers)| answers));
    outcome.by_way = answers.iter().map(|(name, answers)| ((*name).to_owned(), count(answers))).collect();
    outcome.expect_none_failed(&tally);
    outcome.expect_shares(&tally.by_cluster, &shares(mesh, ALL));
    Ok(outcome)
}

fn count(answers: &[Answer]) -> u64 {
    u64::try_from(answers.len()).expect("a demo makes few requests")
}
