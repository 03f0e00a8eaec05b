//! A step is `<ms> <event>…`; the output is what each line changed. `a=1` puts, `-a` deletes, `xa` ends with its lease,
//! `?a` cannot be read, `!a` is refused; `[` and `]` are a list's ends.

use expect_test::Expect;
use tombolo_core::hold::{Absent, Canary, Change, Event, Hold, HoldConfig, Presence, Standing};
use tombolo_core::id::{Epoch, Millis};

pub(crate) const CONFIG: HoldConfig =
    HoldConfig { silent_after_ms: 100, absent: Absent::Doubtful, canary: Canary::Awaited };

fn event(word: &str) -> Event<String, u32> {
    match word {
        "[" => Event::Relisting,
        "]" => Event::Listed,
        "canary" => Event::Canary(Presence::Seen),
        "nocanary" => Event::Canary(Presence::Gone),
        "nobeat" => Event::BeatGone,
        "beat" => Event::Beat,
        "lost" => Event::Lost,
        "tick" => Event::Tick,
        _ => match word.split_once('=') {
            Some(("epoch", n)) => Event::Epoch(Epoch(n.parse().unwrap())),
            Some((key, value)) => Event::Upsert(key.into(), value.parse().unwrap()),
            None if word.starts_with('-') => Event::Delete(word[1..].into()),
            None if word.starts_with('x') => Event::Expired(word[1..].into()),
            None if word.starts_with('?') => Event::Unreadable(word[1..].into()),
            None if word.starts_with('!') => Event::Refuse(word[1..].into()),
            None => panic!("no event: {word}"),
        },
    }
}

fn show(change: Change<String, u32>) -> String {
    match change {
        Change::Put(key, value, Standing::Sure) => format!("{key}={value}"),
        Change::Put(key, value, Standing::Doubtful(doubt)) => format!("{key}={value}?{doubt:?}"),
        Change::Remove(key) => format!("-{key}"),
    }
}

pub(crate) fn check_with(config: HoldConfig, script: &str, expected: Expect) {
    tell(Hold::new(config), script, expected);
}

pub(crate) fn tell(mut hold: Hold<String, u32>, script: &str, expected: Expect) {
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (ms, words) = line.split_once(' ').unwrap();
        let now = Millis(ms.parse().unwrap());
        let changes: Vec<String> =
            words.split_whitespace().flat_map(|word| hold.on(event(word), now)).map(show).collect();
        out += format!("{line} => {}", changes.join(" ")).trim_end();
        out += "\n";
    }
    let held: Vec<String> = hold.iter().map(|(k, v, s)| show(Change::Put(k.clone(), *v, s))).collect();
    out += format!("held: {}\n", held.join(" ")).trim_end();
    expected.assert_eq(&out);
}

pub(crate) fn check(script: &str, expected: Expect) {
    check_with(CONFIG, script, expected);
}
