//! Splits checked lines: a newline inside a quoted value is part of its line.

/// The lines of a text whose every line was checked, each ended by a newline; without it.
pub fn split_checked(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = line_end(rest);
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// The end of the first line. A quote opens a value only directly behind an unescaped `=` in the
/// fields; everywhere else it stands for itself.
pub fn line_end(text: &[u8]) -> usize {
    let (mut at, mut in_fields) = (0, false);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\n' => return at,
            b'\\' => at += 1,
            b' ' => in_fields = true,
            b'=' if in_fields && text.get(at + 1) == Some(&b'"') => at = string_end(text, at + 2),
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The closing quote of the string value whose content begins at `at`.
fn string_end(text: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at,
            b'\\' if matches!(text.get(at + 1), Some(b'"' | b'\\')) => at += 2,
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_are_no_strings_and_newlines_in_strings_end_no_line() {
        let text = b"m,t=\"a \"f=1,s=\"x\ny\",b\\==2 1\nm\\ n s=\"\\\"\n\\\\\" 2\nlast f=1 3\n";
        let lines: Vec<&[u8]> = split_checked(text).collect();
        assert_eq!(
            lines,
            [&b"m,t=\"a \"f=1,s=\"x\ny\",b\\==2 1"[..], &b"m\\ n s=\"\\\"\n\\\\\" 2"[..], &b"last f=1 3"[..],]
        );
    }
}
