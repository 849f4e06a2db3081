//! Text in double quotes, written and read the way Go does it: the `fields` format prints it, `txn` reads it.

use std::fmt::Write as _;

/// `bytes` in double quotes; what is not printable or not UTF-8 is escaped.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            escape(&mut out, character);
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn escape(out: &mut String, character: char) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\u{07}' => out.push_str("\\a"),
        '\u{08}' => out.push_str("\\b"),
        '\u{0c}' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{0b}' => out.push_str("\\v"),
        _ if is_printable(character) => out.push(character),
        '\0'..='\u{7f}' => {
            let _ = write!(out, "\\x{:02x}", u32::from(character));
        }
        '\u{80}'..='\u{ffff}' => {
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        }
        _ => {
            let _ = write!(out, "\\U{:08x}", u32::from(character));
        }
    }
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space, by the standard library's Unicode table.
fn is_printable(character: char) -> bool {
    // The quote is escaped for another reason than its looks. A letter in front keeps combining marks, which only a
    // string's first character has escaped.
    character == '\'' || format!("a{character}").escape_debug().count() == 2
}

/// Reads a quoted text at the start of `input`: double quotes with escapes, or backquotes without. Returns the bytes
/// and what follows the closing quote, or `None` if `input` does not start with a well-formed one.
pub(crate) fn unquote(input: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = input.strip_prefix('`') {
        let (text, rest) = raw.split_once('`')?;
        return Some((text.as_bytes().to_vec(), rest));
    }
    let mut rest = input.strip_prefix('"')?;
    let mut out = Vec::new();
    loop {
        let character = rest.chars().next()?;
        rest = &rest[character.len_utf8()..];
        match character {
            '"' => return Some((out, rest)),
            '\\' => rest = unescape(rest, &mut out)?,
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Reads what follows a backslash; returns what is left after it.
fn unescape<'a>(input: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let kind = input.chars().next()?;
    let simple = match kind {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' => Some(b'\\'),
        '"' => Some(b'"'),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Some(&input[1..]);
    }
    let (start, length, radix) = match kind {
        'x' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        '0'..='7' => (0, 3, 8),
        _ => return None,
    };
    let digits = input.get(start..start + length)?;
    if !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let number = u32::from_str_radix(digits, radix).ok()?;
    match kind {
        'u' | 'U' => out.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes()),
        _ => out.push(u8::try_from(number).ok()?),
    }
    Some(&input[start + length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_escapes_what_cannot_be_seen() {
        assert_eq!(quoted(b"plain text"), r#""plain text""#);
        assert_eq!(quoted(b"v\"1\tx\\\n\x07\x08\x0b\x0c\r"), r#""v\"1\tx\\\n\a\b\v\f\r""#);
        assert_eq!(quoted(b"\x00\x7f\xff\xc3"), r#""\x00\x7f\xff\xc3""#);
        assert_eq!(quoted("grüße e\u{301} 'x' 日本".as_bytes()), "\"grüße e\u{301} 'x' 日本\"");
        assert_eq!(quoted("\u{a0}\u{200b}\u{e000}\u{10ffff}".as_bytes()), r#""\u00a0\u200b\ue000\U0010ffff""#);
    }

    #[test]
    fn unquoting_undoes_quoting() {
        for bytes in [&b"a b"[..], b"\x00\xff\"\\\n", "\u{a0}ü\u{10ffff}".as_bytes(), b""] {
            let text = format!("{} rest", quoted(bytes));
            assert_eq!(unquote(&text), Some((bytes.to_vec(), " rest")));
        }
    }

    #[test]
    fn unquoting_refuses_what_is_not_quoted() {
        for text in ["", "a", "\"a", "\"\\q\"", "\"\\x1\"", "\"\\ud800\"", "\"\\400\"", "\"\\u+123\"", "`a"] {
            assert_eq!(unquote(text), None, "{text}");
        }
        assert_eq!(unquote("`a\\n`"), Some((b"a\\n".to_vec(), "")));
        assert_eq!(unquote(r#""\101""#), Some((b"A".to_vec(), "")));
    }
}
