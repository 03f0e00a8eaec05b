use expect_test::{Expect, expect};

use super::*;
use crate::source::decode::{Item, Name};

fn item(name: &str, revision: &str) -> Item {
    let name = Name { namespace: None, name: name.into() };
    Item { name, revision: revision.into(), object: Ok(None) }
}

fn put(name: &str, revision: &str) -> Heard {
    Heard::Event(Event::Put(item(name, revision)))
}

fn page(items: &[&str], revision: &str, more: Option<&str>) -> Heard {
    let items = items.iter().map(|name| item(name, "1")).collect();
    Heard::Page(Page { items, revision: revision.into(), more: more.map(str::to_owned) })
}

fn list_end(revision: &str) -> Heard {
    Heard::Event(Event::ListEnd { revision: revision.into() })
}

fn refused(status: u16, retry_after: Option<u64>) -> Heard {
    let retry_after = retry_after.map(Duration::from_secs);
    Heard::Refused(Refusal { status, message: "no".to_owned(), retry_after })
}

/// What is seen and asked as things are heard, each at its second; waits are only said to be there.
#[expect(clippy::needless_pass_by_value, reason = "fixtures are written in place")]
fn check(heard: Vec<(u64, Heard)>, expected: Expect) {
    use std::fmt::Write as _;
    let mut follow = Follow::new(1);
    let mut out = format!("ask {:?}\n", follow.ask());
    for (second, heard) in heard {
        let mut seen = Vec::new();
        let step = follow.hear(Duration::from_secs(second), heard, &mut seen);
        for seen in seen {
            match seen {
                Seen::Put(item) => writeln!(out, "  put {}", item.name).unwrap(),
                other => writeln!(out, "  {other:?}").unwrap(),
            }
        }
        if let Some(Step { ask, after }) = step {
            let wait = if after.is_zero() { "at once" } else { "after a while" };
            writeln!(out, "ask {ask:?} {wait}").unwrap();
        }
    }
    expected.assert_eq(&out);
}

#[test]
fn a_streamed_list_a_watch_and_its_next_one() {
    check(
        vec![
            (0, Heard::Opened),
            (0, put("a", "5")),
            (0, Heard::Event(Event::Bookmark { revision: "6".into() })),
            (1, list_end("7")),
            (2, put("b", "8")),
            (3, Heard::Event(Event::Gone { name: item("a", "").name, revision: "9".into() })),
            (270, Heard::Closed),
            (270, Heard::Opened),
            (300, Heard::Event(Event::Bookmark { revision: "20".into() })),
            (540, Heard::Closed),
        ],
        expect![[r#"
            ask Stream
              ListBegan
              put a
              ListComplete
              put b
              Gone(Name { namespace: None, name: "a" })
            ask Watch { revision: "9" } at once
              Readable
            ask Watch { revision: "20" } at once
        "#]],
    );
}

#[test]
fn a_server_without_streamed_lists_is_paged() {
    check(
        vec![
            (0, refused(422, None)),
            (0, page(&["a", "b"], "7", Some("next"))),
            (0, page(&["c"], "7", None)),
            (0, Heard::Opened),
            (0, put("a", "8")),
        ],
        expect![[r#"
            ask Stream
            ask Page { more: None } at once
              ListBegan
              put a
              put b
            ask Page { more: Some("next") } at once
              put c
              ListComplete
            ask Watch { revision: "7" } at once
              Readable
              put a
        "#]],
    );
}

#[test]
fn a_list_that_breaks_off_is_never_complete_and_the_other_way_is_tried() {
    check(
        vec![
            (0, Heard::Opened),
            (0, put("a", "5")),
            (1, Heard::Closed),
            (1, page(&["a"], "7", Some("next"))),
            (2, refused(410, None)),
            (3, Heard::Opened),
            (3, Heard::Broken("reset".to_owned())),
            (4, page(&["a"], "", None)),
        ],
        expect![[r#"
            ask Stream
              ListBegan
              put a
              Unreadable("the server ended the watch before its time")
            ask Page { more: None } after a while
              ListBegan
              put a
            ask Page { more: Some("next") } at once
              Unreadable("HTTP 410: no")
            ask Stream after a while
              ListBegan
              Unreadable("reset")
            ask Page { more: None } after a while
              ListBegan
              put a
              Unreadable("the list has no resourceVersion")
            ask Stream after a while
        "#]],
    );
}

#[test]
fn a_watch_that_ends_early_or_is_too_old_is_listed_again_and_is_no_fault() {
    for end in [
        Heard::Closed,
        Heard::Broken("reset".to_owned()),
        Heard::Event(Event::Failed { code: 410, message: "too old".to_owned() }),
    ] {
        check(
            vec![(0, Heard::Opened), (0, list_end("7")), (100, end), (101, Heard::Opened), (101, list_end("3"))],
            expect![[r"
                ask Stream
                  ListBegan
                  ListComplete
                ask Stream after a while
                  ListBegan
                  ListComplete
            "]],
        );
    }
}

#[test]
fn a_busy_server_is_asked_the_same_again() {
    check(
        vec![(0, Heard::Opened), (0, list_end("7")), (270, Heard::Closed), (270, refused(429, Some(3)))],
        expect![[r#"
            ask Stream
              ListBegan
              ListComplete
            ask Watch { revision: "7" } at once
              Unreadable("HTTP 429: no")
            ask Watch { revision: "7" } after a while
        "#]],
    );
}

#[test]
fn a_resource_that_may_not_be_read_is_a_fault() {
    check(
        vec![(0, refused(403, None)), (0, refused(403, None)), (0, Heard::Broken("refused".to_owned()))],
        expect![[r#"
            ask Stream
              Unreadable("HTTP 403: no")
            ask Page { more: None } after a while
              Unreadable("HTTP 403: no")
            ask Stream after a while
              Unreadable("refused")
            ask Page { more: None } after a while
        "#]],
    );
}

#[test]
fn waits_grow_with_jitter_are_bounded_and_respect_the_server() {
    let mut follow = Follow::new(7);
    let mut wait = |heard| follow.hear(Duration::ZERO, heard, &mut Vec::new()).unwrap().after;
    let waits: Vec<Duration> = (0..40).map(|_| wait(refused(500, None))).collect();
    assert!(waits[0] <= FIRST_WAIT);
    assert!(waits[..8].windows(2).all(|w| w[0] <= w[1] * 2), "{waits:?}");
    assert!(waits[20..].iter().all(|w| *w <= LONGEST_WAIT && *w >= LONGEST_WAIT / 2), "{waits:?}");
    assert!(waits[20..].windows(2).any(|w| w[0] != w[1]), "no jitter: {waits:?}");
    assert!(wait(refused(429, Some(60))) >= Duration::from_secs(60));
    assert!(wait(refused(429, Some(86_400))) <= LONGEST_RETRY_AFTER + LONGEST_WAIT);
}

#[test]
fn only_a_steady_watch_ends_a_series_of_failures() {
    let mut follow = Follow::new(7);
    let mut wait = |lived: u64| {
        let (mut seen, lived) = (Vec::new(), Duration::from_secs(lived));
        // Whichever way the list is read, it is read; then the watch lives and breaks.
        if follow.ask() == (Ask::Page { more: None }) {
            follow.hear(Duration::ZERO, page(&[], "7", None), &mut seen);
        }
        follow.hear(Duration::ZERO, Heard::Opened, &mut seen);
        follow.hear(Duration::ZERO, list_end("7"), &mut seen);
        follow.hear(lived, Heard::Broken("reset".to_owned()), &mut seen).unwrap().after
    };
    let short: Vec<Duration> = (0..10).map(|_| wait(1)).collect();
    assert!(short[9] > FIRST_WAIT * 10, "{short:?}");
    assert!(wait(31) <= FIRST_WAIT);
}
