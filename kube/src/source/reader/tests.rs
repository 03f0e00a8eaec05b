use proptest::prelude::*;

use super::*;

proptest! {
    /// However a stream is cut into frames, its lines are the same.
    #[test]
    fn lines_do_not_depend_on_frames(text in "[ab\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for pair in cuts.windows(2) {
            lines.add(&text.as_bytes()[pair[0]..pair[1]]);
            while let Some(line) = lines.next() {
                got.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        let expected: Vec<&str> = complete.split('\n').filter(|line| !line.is_empty()).collect();
        prop_assert_eq!(got, expected);
        prop_assert_eq!(lines.end() == Heard::Closed, text.is_empty() || text.ends_with('\n'));
    }
}
