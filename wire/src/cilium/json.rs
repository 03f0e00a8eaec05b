//! JSON as Go's `encoding/json` reads and writes it, which is what Cilium's records are.
//!
//! A library would be stricter than Go in some places and laxer in others. Here field names match in any case (U+212A
//! and U+017F included), a repeated field overwrites a scalar and merges into a map or struct, null leaves a scalar as
//! it was, broken UTF-8 and lone surrogates become U+FFFD, an integer is digits alone. Writing is compact, in field
//! order, map keys sorted, with `<`, `>`, `&`, U+2028 and U+2029 escaped.
//!
//! Source: Go 1.25 `encoding/json` (`decode.go`, `fold.go`, `encode.go`).

use std::borrow::Cow;

pub(super) use super::json_values::{Go, List, Map, Ptr, go_struct};

/// Go's own limit on nesting.
const MAX_DEPTH: usize = 10_000;

/// Where a text stops being what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The field as a path from the outermost, empty for the document itself.
    pub field: String,
    /// Offset in bytes.
    pub offset: usize,
    /// What was expected there.
    pub expected: &'static str,
}

impl std::fmt::Display for JsonError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "expected {} at byte {}", self.expected, self.offset)
    }
}

impl std::error::Error for JsonError {}

impl JsonError {
    /// The same error, seen from the object that holds `name`.
    pub(super) fn within(mut self, name: &str) -> Self {
        self.field = if self.field.is_empty() { name.to_owned() } else { format!("{name}.{}", self.field) };
        self
    }
}

type Result<T> = std::result::Result<T, JsonError>;

/// Reads a whole document into a value that holds its defaults.
pub(super) fn read<T: Go>(bytes: &[u8], into: &mut T) -> Result<()> {
    let mut reader = Reader { bytes, pos: 0, depth: 0 };
    into.read(&mut reader)?;
    match reader.peek() {
        None => Ok(()),
        Some(_) => Err(reader.expected("the end")),
    }
}

/// Writes a whole document.
pub(super) fn write<T: Go>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    value.write(&mut out);
    out
}

/// Whether Go takes `key` for the field `name`, which is ASCII.
pub(super) fn folds(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    key == name || key.chars().map(fold).eq(name.chars().map(fold))
}

/// A position in a text.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    pos: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// Calls `each` with every field's name; it must read or skip the field's value.
    pub(super) fn object(&mut self, mut each: impl FnMut(&mut Self, &str) -> Result<()>) -> Result<()> {
        self.open(b'{', "an object")?;
        if self.peek() != Some(b'}') {
            loop {
                let key = self.key()?;
                each(self, &key)?;
                if !self.more(b'}')? {
                    break;
                }
            }
        } else {
            self.pos += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `each` for every element; it must read or skip it.
    pub(super) fn array(&mut self, mut each: impl FnMut(&mut Self, usize) -> Result<()>) -> Result<()> {
        self.open(b'[', "an array")?;
        if self.peek() != Some(b']') {
            for index in 0.. {
                each(self, index)?;
                if !self.more(b']')? {
                    break;
                }
            }
        } else {
            self.pos += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes a null if one is next.
    pub(super) fn null(&mut self) -> Result<bool> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.literal("null").map(|()| true)
    }

    pub(super) fn boolean(&mut self) -> Result<bool> {
        match self.peek() {
            Some(b't') => self.literal("true").map(|()| true),
            Some(b'f') => self.literal("false").map(|()| false),
            _ => Err(self.expected("true or false")),
        }
    }

    /// An unsigned integer up to `max`; `80.0` and `8e1` are none to Go.
    pub(super) fn integer(&mut self, max: u64, expected: &'static str) -> Result<u64> {
        let start = match self.peek() {
            Some(b'0'..=b'9') => self.pos,
            _ => return Err(self.expected(expected)),
        };
        self.number()?;
        let digits = str::from_utf8(&self.bytes[start..self.pos]).unwrap_or_default();
        match digits.parse() {
            Ok(n) if n <= max => Ok(n),
            _ => Err(JsonError { field: String::new(), offset: start, expected }),
        }
    }

    pub(super) fn text(&mut self) -> Result<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return Err(self.expected("a string"));
        }
        self.pos += 1;
        let start = self.pos;
        while let Some(&b) = self.bytes.get(self.pos) {
            match b {
                b'"' => {
                    let plain = &self.bytes[start..self.pos];
                    self.pos += 1;
                    return Ok(repair(plain));
                }
                b'\\' => return self.escaped(start).map(Cow::Owned),
                0..0x20 => break,
                _ => self.pos += 1,
            }
        }
        Err(self.expected("the rest of a string"))
    }

    /// Passes over one value of any shape, without recursion: a peer chooses how deep it nests.
    pub(super) fn skip(&mut self) -> Result<()> {
        let mut closers = Vec::new();
        loop {
            let closer = match self.peek() {
                Some(b'{') => Some(b'}'),
                Some(b'[') => Some(b']'),
                _ => None,
            };
            if let Some(closer) = closer {
                self.pos += 1;
                if self.peek() == Some(closer) {
                    self.pos += 1;
                } else {
                    if self.depth + closers.len() >= MAX_DEPTH {
                        return Err(self.expected("less nesting"));
                    }
                    closers.push(closer);
                    if closer == b'}' {
                        self.key()?;
                    }
                    continue;
                }
            } else {
                self.scalar()?;
            }
            loop {
                let Some(&closer) = closers.last() else { return Ok(()) };
                if self.more(closer)? {
                    if closer == b'}' {
                        self.key()?;
                    }
                    break;
                }
                closers.pop();
            }
        }
    }

    /// An error at the next byte that is not white space.
    pub(super) fn expected(&self, expected: &'static str) -> JsonError {
        JsonError { field: String::new(), offset: self.pos, expected }
    }

    fn peek(&mut self) -> Option<u8> {
        while matches!(self.bytes.get(self.pos), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.pos += 1;
        }
        self.bytes.get(self.pos).copied()
    }

    fn open(&mut self, opener: u8, expected: &'static str) -> Result<()> {
        if self.peek() != Some(opener) {
            return Err(self.expected(expected));
        }
        self.pos += 1;
        self.depth += 1;
        Ok(())
    }

    /// After an element: whether another follows.
    fn more(&mut self, closer: u8) -> Result<bool> {
        let next = self.peek();
        let more = next == Some(b',');
        if !more && next != Some(closer) {
            return Err(self.expected("a comma or the end of what is open"));
        }
        self.pos += 1;
        Ok(more)
    }

    fn key(&mut self) -> Result<Cow<'a, str>> {
        let key = self.text()?;
        if self.peek() != Some(b':') {
            return Err(self.expected("a colon"));
        }
        self.pos += 1;
        Ok(key)
    }

    fn scalar(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'"') => self.text().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.expected("a value")),
        }
    }

    fn literal(&mut self, text: &'static str) -> Result<()> {
        if !self.bytes[self.pos..].starts_with(text.as_bytes()) {
            return Err(self.expected(text));
        }
        self.pos += text.len();
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        self.pos += usize::from(self.at(b"-"));
        if self.at(b"0") {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.at(b".") {
            self.pos += 1;
            self.digits()?;
        }
        if self.at(b"eE") {
            self.pos += 1;
            self.pos += usize::from(self.at(b"+-"));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        if !self.at(b"0123456789") {
            return Err(self.expected("a digit"));
        }
        while self.at(b"0123456789") {
            self.pos += 1;
        }
        Ok(())
    }

    fn at(&self, set: &[u8]) -> bool {
        self.bytes.get(self.pos).is_some_and(|b| set.contains(b))
    }

    /// A string's text when it has escapes; the position is at the first one.
    fn escaped(&mut self, start: usize) -> Result<String> {
        let mut out = repair(&self.bytes[start..self.pos]).into_owned();
        let mut plain = self.pos;
        loop {
            match self.bytes.get(self.pos) {
                Some(b'"') => break,
                Some(b'\\') => {
                    out.push_str(&repair(&self.bytes[plain..self.pos]));
                    self.pos += 1;
                    out.push(self.escape()?);
                    plain = self.pos;
                }
                Some(0x20..) => self.pos += 1,
                _ => return Err(self.expected("the rest of a string")),
            }
        }
        out.push_str(&repair(&self.bytes[plain..self.pos]));
        self.pos += 1;
        Ok(out)
    }

    fn escape(&mut self) -> Result<char> {
        let c = match self.bytes.get(self.pos) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.expected("an escape")),
        };
        self.pos += 1;
        Ok(c)
    }

    /// `uXXXX`, and the second half of a surrogate pair when it follows.
    fn unicode(&mut self) -> Result<char> {
        let first = self.hex4(self.pos + 1).ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.pos += 5;
        if let Some(c) = char::from_u32(first) {
            return Ok(c);
        }
        let second = self.bytes[self.pos..].starts_with(b"\\u").then(|| self.hex4(self.pos + 2)).flatten();
        match second {
            Some(low @ 0xdc00..=0xdfff) if first < 0xdc00 => {
                self.pos += 6;
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                Ok(char::from_u32(code).expect("a surrogate pair is a scalar value"))
            }
            _ => Ok(char::REPLACEMENT_CHARACTER),
        }
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 4)?;
        digits.iter().try_fold(0, |n, b| Some(n << 4 | char::from(*b).to_digit(16)?))
    }
}

/// Text from bytes, each byte that is no UTF-8 replaced on its own, as Go does it.
fn repair(mut bytes: &[u8]) -> Cow<'_, str> {
    let mut error = match str::from_utf8(bytes) {
        Ok(text) => return Cow::Borrowed(text),
        Err(error) => error,
    };
    let mut out = String::with_capacity(bytes.len());
    loop {
        out.push_str(str::from_utf8(&bytes[..error.valid_up_to()]).expect("valid up to here"));
        out.push(char::REPLACEMENT_CHARACTER);
        bytes = &bytes[error.valid_up_to() + 1..];
        match str::from_utf8(bytes) {
            Ok(rest) => {
                out.push_str(rest);
                return Cow::Owned(out);
            }
            Err(next) => error = next,
        }
    }
}

/// Writes a string with Go's escapes.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend(b"\\\""),
            '\\' => out.extend(b"\\\\"),
            '\u{8}' => out.extend(b"\\b"),
            '\u{c}' => out.extend(b"\\f"),
            '\n' => out.extend(b"\\n"),
            '\r' => out.extend(b"\\r"),
            '\t' => out.extend(b"\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.extend(format!("\\u{:04x}", u32::from(c)).into_bytes());
            }
            other => out.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}
