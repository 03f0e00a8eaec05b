//! As much DNS as a TXT question over UDP and its answer need (RFC 1035 §4.1). For the test's own client and server;
//! real resolvers understand it too, which is shown with Go's.

/// The name that is asked for. Any other is answered as well.
const NAME: [&[u8]; 3] = [b"which", b"rebel-base", b"mesh"];

const HEADER: usize = 12;
const TXT: [u8; 2] = [0, 16];
const INTERNET: [u8; 2] = [0, 1];

/// A recursive query for TXT with this id.
pub fn query(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion desired; one question and nothing else.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME {
        bytes.push(u8::try_from(label.len()).expect("a label is short"));
        bytes.extend(label);
    }
    bytes.push(0);
    bytes.extend(TXT);
    bytes.extend(INTERNET);
    bytes
}

/// The answer to a query: its id, its question, and the text if it asks for TXT. `None` when it is no query.
pub fn answer(query: &[u8], text: &str) -> Option<Vec<u8>> {
    let question = question(query)?;
    let length = u8::try_from(text.len()).ok()?;
    let wanted = question.ends_with(&[TXT, INTERNET].concat());
    let mut bytes = query[..2].to_vec();
    // An authoritative response without error; recursion as it was desired.
    bytes.extend([0x84 | (query[2] & 1), 0, 0, 1, 0, u8::from(wanted), 0, 0, 0, 0]);
    bytes.extend(question);
    if wanted {
        // The question's name, TTL 0.
        bytes.extend([0xc0, 12]);
        bytes.extend(TXT);
        bytes.extend(INTERNET);
        bytes.extend([0, 0, 0, 0, 0, length + 1, length]);
        bytes.extend(text.as_bytes());
    }
    Some(bytes)
}

/// The question of a query that has exactly one: name, type and class.
fn question(query: &[u8]) -> Option<&[u8]> {
    let header = query.get(..HEADER)?;
    let is_query = header[2] & 0xf8 == 0 && header[4..10] == [0, 1, 0, 0, 0, 0];
    let mut end = HEADER;
    loop {
        match usize::from(*query.get(end)?) {
            0 => break,
            length @ 1..=63 => end += 1 + length,
            _ => return None,
        }
    }
    query.get(HEADER..end + 5).filter(|_| is_query)
}

/// The text of an answer to the query with this id; `None` when it is no such answer.
pub fn text_of(id: u16, bytes: &[u8]) -> Option<&str> {
    let asked = query(id);
    let header = bytes.get(..HEADER)?;
    let fits = header[..2] == id.to_be_bytes() && header[2] & 0x80 != 0 && header[3] & 0xf == 0 && header[7] == 1;
    let rest = bytes.get(HEADER..)?.strip_prefix(&asked[HEADER..])?;
    // Behind name, type, class, TTL and length.
    let text = rest.get(12..)?;
    let length = usize::from(*text.first()?);
    std::str::from_utf8(text.get(1..=length)?).ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_answered_with_its_id() {
        let answer = answer(&query(0x1234), "{\"Cluster\":\"ne\"}").unwrap();
        assert_eq!(text_of(0x1234, &answer), Some("{\"Cluster\":\"ne\"}"));
        assert_eq!(text_of(0x1235, &answer), None);
        assert_eq!(answer[..4], [0x12, 0x34, 0x85, 0]);
    }

    #[test]
    fn what_is_no_query_gets_no_answer() {
        let good = query(7);
        assert_eq!(answer(b"which of you is it?", "x"), None);
        assert_eq!(answer(&good[..good.len() - 1], "x"), None);
        assert_eq!(answer(&answer(&good, "x").unwrap(), "x"), None);
        let mut address = good.clone();
        address[good.len() - 3] = 1;
        assert_eq!(answer(&address, "x").unwrap()[6..8], [0, 0]);
    }
}
