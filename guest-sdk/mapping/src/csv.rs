//! Payloads of CSV (RFC 4180): rows of columns, with a header that names them.

use std::borrow::Cow;

use tidegate_guest::Refusal;

use crate::limits::{COLUMNS_MAX, RECORDS_MAX};

/// The rows of a payload.
#[derive(Debug)]
pub struct Table<'a> {
    pub header: Vec<Cow<'a, str>>,
    pub rows: Vec<Vec<Cow<'a, str>>>,
}

fn bad(row: usize, text: impl std::fmt::Display) -> Refusal {
    Refusal::new("BAD_CSV", format!("row {row}: {text}"))
}

/// Reads a payload. `header`: the names of the columns, where the payload has none. Blank rows are skipped.
///
/// # Errors
/// `BAD_CSV`: a row with another number of columns, a quote that does not end, or a ceiling.
pub fn read<'a>(text: &'a str, delimiter: u8, header: Option<&'a [String]>) -> Result<Table<'a>, Refusal> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut table = Table {
        header: header.unwrap_or_default().iter().map(|name| Cow::Borrowed(name.as_str())).collect(),
        rows: Vec::new(),
    };
    let (mut rest, mut number) = (text, 0);
    while !rest.is_empty() {
        number += 1;
        let (row, behind) = row(rest, delimiter, number)?;
        rest = behind;
        if row.len() == 1 && row[0].trim().is_empty() {
            continue;
        }
        if table.header.is_empty() {
            table.header = row.into_iter().map(trimmed).collect();
            continue;
        }
        if row.len() != table.header.len() {
            let text = format!("{} columns: expected {}, as the header has", row.len(), table.header.len());
            return Err(bad(number, text));
        }
        if table.rows.len() == RECORDS_MAX {
            return Err(bad(number, format!("more than {RECORDS_MAX} rows: send fewer in one message")));
        }
        table.rows.push(row);
    }
    Ok(table)
}

fn trimmed(name: Cow<'_, str>) -> Cow<'_, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(name.trim()),
        Cow::Owned(name) => Cow::Owned(name.trim().to_owned()),
    }
}

type Row<'a> = Vec<Cow<'a, str>>;

/// One row, and what follows it.
fn row(text: &str, delimiter: u8, number: usize) -> Result<(Row<'_>, &str), Refusal> {
    let mut row = Vec::new();
    let mut rest = text;
    loop {
        if row.len() == COLUMNS_MAX {
            return Err(bad(number, format!("more than {COLUMNS_MAX} columns")));
        }
        let (value, behind) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted, number)?,
            None => {
                let ends = |byte: &u8| *byte == delimiter || *byte == b'\n';
                let end = rest.as_bytes().iter().position(ends).unwrap_or(rest.len());
                let (value, behind) = rest.split_at(end);
                let is_last = behind.is_empty() || behind.starts_with('\n');
                let value = if is_last { value.strip_suffix('\r').unwrap_or(value) } else { value };
                (Cow::Borrowed(value), behind)
            }
        };
        row.push(value);
        let behind = behind.strip_prefix('\r').filter(|rest| rest.starts_with('\n')).unwrap_or(behind);
        match behind.as_bytes().first() {
            None => return Ok((row, "")),
            Some(b'\n') => return Ok((row, &behind[1..])),
            Some(byte) if *byte == delimiter => rest = &behind[1..],
            Some(_) => return Err(bad(number, "text behind a quoted value: expected a delimiter")),
        }
    }
}

/// A value behind its first quote, and what follows its last.
fn quoted_value(text: &str, number: usize) -> Result<(Cow<'_, str>, &str), Refusal> {
    let mut from = 0;
    loop {
        let Some(quote) = text[from..].find('"') else {
            return Err(bad(number, "a quote that does not end: expected \" behind the value"));
        };
        let at = from + quote;
        if text[at + 1..].starts_with('"') {
            from = at + 2;
            continue;
        }
        let value = &text[..at];
        let value = if from == 0 { Cow::Borrowed(value) } else { value.replace("\"\"", "\"").into() };
        return Ok((value, &text[at + 1..]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> String {
        match read(text, b',', None) {
            Ok(table) => {
                let rows = std::iter::once(&table.header).chain(&table.rows);
                rows.map(|row| row.join("|")).collect::<Vec<_>>().join("\n")
            }
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn rows_are_read_as_rfc_4180_has_them() {
        assert_eq!(table("a, b\r\n1,2\r\n\n3,\"x,\"\"y\"\"\n\"\r\n"), "a|b\n1|2\n3|x,\"y\"\n");
        assert_eq!(table("\u{feff}a,b\n,\n"), "a|b\n|");
        assert_eq!(table(""), "");
    }

    #[test]
    fn a_bad_row_is_named() {
        assert_eq!(table("a,b\n1\n"), "BAD_CSV: row 2: 1 columns: expected 2, as the header has");
        assert!(table("a,b\n\"1,2\n").contains("row 2: a quote"));
        assert!(table("a,b\n\"1\"x,2\n").contains("text behind"));
    }
}
