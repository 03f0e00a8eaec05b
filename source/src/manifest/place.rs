//! Where in a file a reader's error is: the line in the file, and the field by its path.
//!
//! The YAML reader knows line and column, not the path; the text around that place shows it.

use super::ManifestError;

/// The error as a person needs it. `lines_before` is how many lines of the file precede the document.
pub(super) fn locate(document: usize, lines_before: usize, text: &str, error: &serde_saphyr::Error) -> ManifestError {
    let at = error.location();
    let (line, column) = at.map_or((1, 1), |l| (l.line() as usize, l.column() as usize));
    let message = message(error);
    let mut field = field_at(text, line, column);
    if message.starts_with("missing field") {
        // The place is the first key of the mapping that lacks the field.
        field = field.and_then(|path| path.rsplit_once('.').map(|(parent, _)| parent.to_owned()));
    }
    ManifestError { document, line: lines_before + line, column, field, message }
}

/// The reader's words without the place it repeats.
fn message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = match first.split_once(": ") {
        Some((place, rest)) if place.starts_with("error: line ") || place.starts_with("line ") => rest,
        _ => first,
    };
    let first = first.find(" at line ").map_or(first, |end| &first[..end]);
    match first {
        "invalid u16" => "not a whole number from 0 to 65535".to_owned(),
        "invalid u32" => "not a whole number from 0 to 4294967295".to_owned(),
        other => other.split(", set DuplicateKeyPolicy").next().unwrap_or(other).to_owned(),
    }
}

/// The path of keys that leads to a place, such as `spec.ports.port`; list positions are left out, the line has them.
fn field_at(text: &str, line: usize, column: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let current = lines.get(line.checked_sub(1)?)?;
    let before: String = current.chars().take(column.saturating_sub(1).max(indent(current) + 1)).collect();
    let mut path: Vec<&str> = keys_on(&before, current);
    let mut limit = key_column(current);
    for above in lines[..line - 1].iter().rev() {
        if limit == 0 {
            break;
        }
        if above.trim().is_empty() || above.trim_start().starts_with('#') || key_column(above) >= limit {
            // A list may stand at its key's own column: `ports:` above `- port: …`.
            let own_list = current.trim_start().starts_with("- ") && indent(above) == limit.saturating_sub(2);
            if !(own_list && above.trim_end().ends_with(':')) {
                continue;
            }
        }
        if let Some(key) = key_of(above) {
            path.insert(0, key);
        }
        limit = if above.trim_start().starts_with("- ") { indent(above) + 1 } else { key_column(above) };
    }
    (!path.is_empty()).then(|| path.join("."))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The column of a line's first key, behind any `- `.
fn key_column(line: &str) -> usize {
    let rest = line.trim_start_matches(' ');
    indent(line) + (rest.len() - rest.trim_start_matches("- ").len())
}

/// The key a line begins with.
fn key_of(line: &str) -> Option<&str> {
    let (key, rest) = line.trim_start_matches([' ', '-']).split_once(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| key.trim().trim_matches(['"', '\'']))
}

/// The keys that are open where `before` ends: the line's first, and those of flow mappings.
fn keys_on<'a>(before: &str, line: &'a str) -> Vec<&'a str> {
    let mut open: Vec<Option<&str>> = vec![None];
    let mut start = 0;
    for (at, c) in line.char_indices().take_while(|(at, _)| *at < before.len()) {
        match c {
            '{' | '[' => open.push(None),
            '}' | ']' if open.len() > 1 => {
                open.pop();
            }
            ':' if line[..at].ends_with('"') || line[at + 1..].starts_with(' ') || at + 1 == line.len() => {
                if let Some(last) = open.last_mut() {
                    *last = Some(line[start..at].trim_matches([' ', '-', '"', '\'']));
                }
            }
            _ => {}
        }
        if matches!(c, '{' | '[' | ',') {
            start = at + 1;
        }
    }
    let keys: Vec<&str> = open.into_iter().flatten().filter(|k| !k.is_empty()).collect();
    if keys.is_empty() { key_of(line).into_iter().collect() } else { keys }
}
