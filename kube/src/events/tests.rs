use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn warning(service: &str, note: &str) -> Warning {
    Warning { service: ServiceKey::new("default", service), reason: "BadAnnotation", note: note.into() }
}

#[test]
fn a_warning_is_told_once_and_again_before_it_is_forgotten() {
    let mut said = Said::default();
    let minute = |n: u64| Millis(n * 60_000);
    let mut check = |at, warnings: &[(&str, &str)], expected: &[&str]| {
        let warnings = warnings.iter().map(|(service, note)| warning(service, note)).collect();
        let notes: Vec<String> = said.due(warnings, at).into_iter().map(|w| w.note).collect();
        assert_eq!(notes, expected, "{at:?}");
    };
    check(minute(0), &[("a", "x")], &["x"]);
    check(minute(1), &[("a", "x")], &[]);
    check(minute(2), &[("a", "x"), ("b", "x")], &["x"]);
    check(minute(3), &[("a", "y"), ("b", "x")], &[]);
    check(minute(6), &[("a", "y"), ("a", "x"), ("b", "x")], &["x; y"]);
    check(minute(30), &[("b", "x")], &[]);
    check(minute(31), &[("a", "y"), ("b", "x")], &["y"]);
    check(minute(52), &[("a", "y"), ("b", "x")], &["x"]);
}

#[test]
fn a_note_has_an_end() {
    assert!(shorten("é".repeat(2_000)).len() <= 1_024);
    assert_eq!(shorten("short".into()), "short");
}

proptest! {
    /// However many warnings come and go, Events are few.
    #[test]
    fn events_are_few(rounds in vec(vec((0..200_u16, 0..3_u8), 0..60), 1..40)) {
        let (mut said, mut told, mut at) = (Said::default(), 0, 0);
        for round in rounds {
            let warnings = round.into_iter().map(|(n, note)| warning(&n.to_string(), &note.to_string())).collect();
            told += said.due(warnings, Millis(at)).len() as u64;
            prop_assert!(told <= BURST + at / REFILL_MS, "{told} after {at} ms");
            at += 2_000;
        }
    }
}
