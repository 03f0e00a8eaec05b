//! Durations as Go writes them, which is how Kubernetes' own fields and tools do: `30s`, `1m30s`, `1.5h`, `500ms`.

/// Nanoseconds of each unit, with its name.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Milliseconds of a positive duration, rounded down; `None` when it is malformed, negative, or below a millisecond.
pub(super) fn millis(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanos = 0_u64;
    while !rest.is_empty() {
        let (part, after) = part(rest)?;
        nanos = nanos.checked_add(part)?;
        rest = after;
    }
    Some(nanos / 1_000_000).filter(|ms| *ms > 0)
}

/// The nanoseconds of the first number with its unit, and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let (_, unit) = UNITS.into_iter().find(|(known, _)| *known == name)?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    Some((whole.checked_mul(unit)?.checked_add(of_unit(fraction, unit))?, after))
}

/// The part of a unit that a decimal fraction is; what is finer than a nanosecond is dropped.
fn of_unit(fraction: &str, unit: u64) -> u64 {
    let digits = fraction.bytes().map(|digit| u64::from(digit - b'0'));
    let worth = core::iter::successors(Some(unit / 10), |worth| Some(worth / 10));
    digits.zip(worth).map(|(digit, worth)| digit * worth).sum()
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}
