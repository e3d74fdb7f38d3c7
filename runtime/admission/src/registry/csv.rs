//! CSV (RFC 4180), with one difference that the usual readers lose: an empty cell is NULL, and `""` is
//! the empty text, as PostgreSQL writes them.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use crate::limits::CSV_RECORD_BYTES_MAX;

/// A cell: None is NULL.
pub type CsvCell<'a> = Option<Cow<'a, str>>;

/// An error in the text, and its line.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    #[error("line {line}: a quote without an end")]
    OpenQuote { line: usize },
    #[error("line {line}: {found:?} after a closing quote: expected a comma or the end of the line")]
    AfterQuote { line: usize, found: char },
    #[error("line {line}: a quote inside a cell that does not begin with a quote")]
    StrayQuote { line: usize },
    #[error("line {line}: bytes that are not UTF-8")]
    NotUtf8 { line: usize },
    #[error("line {line}: a record of more than {CSV_RECORD_BYTES_MAX} bytes; a quote may have no end")]
    TooLong { line: usize },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads records one by one, each with the number of its first line. Only one record is in memory.
#[derive(Debug)]
pub struct CsvReader<R> {
    source: R,
    record: Vec<u8>,
    line: usize,
}

impl<R: BufRead> CsvReader<R> {
    pub fn new(source: R) -> Self {
        Self { source, record: Vec::new(), line: 1 }
    }

    /// The cells of the next record, and the number of its first line.
    ///
    /// # Errors
    /// The record is not valid, or the source cannot be read. Nothing can be read behind it.
    pub fn next_record(&mut self) -> Result<Option<(usize, Vec<CsvCell<'_>>)>, CsvError> {
        let line = loop {
            let line = self.line;
            self.read_record()?;
            if line == 1 && self.record.starts_with("\u{feff}".as_bytes()) {
                self.record.drain(.."\u{feff}".len());
            }
            match self.record.as_slice() {
                // A blank line, as at the end of a file, is no record.
                b"\n" | b"\r\n" => {}
                b"" => return Ok(None),
                _ => break line,
            }
        };
        let text = str::from_utf8(&self.record).map_err(|fault| {
            let good = &self.record[..fault.valid_up_to()];
            CsvError::NotUtf8 { line: line + newlines(good) }
        })?;
        Ok(Some((line, CellReader { rest: text.strip_suffix('\n').unwrap_or(text), line }.cells()?)))
    }

    /// Reads to the first end of a line that is in no quotes: so many lines have an even number of quotes.
    fn read_record(&mut self) -> Result<(), CsvError> {
        self.record.clear();
        let (first, mut quotes) = (self.line, 0);
        loop {
            let (from, room) = (self.record.len(), CSV_RECORD_BYTES_MAX + 1 - self.record.len());
            self.source.by_ref().take(room as u64).read_until(b'\n', &mut self.record)?;
            let read = &self.record[from..];
            quotes += read.iter().filter(|byte| **byte == b'"').count();
            if self.record.len() > CSV_RECORD_BYTES_MAX {
                return Err(self.too_long(first));
            }
            if !read.ends_with(b"\n") {
                return Ok(());
            }
            self.line += 1;
            if quotes % 2 == 0 {
                return Ok(());
            }
        }
    }

    /// The error of a record without an end; a stray quote may be the cause.
    fn too_long(&self, line: usize) -> CsvError {
        let text = String::from_utf8_lossy(&self.record);
        match (CellReader { rest: &text, line }).cells() {
            Ok(_) | Err(CsvError::OpenQuote { .. }) => CsvError::TooLong { line },
            Err(fault) => fault,
        }
    }
}

/// Reads the cells of one record, without the end of its last line.
struct CellReader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> CellReader<'a> {
    fn cells(mut self) -> Result<Vec<CsvCell<'a>>, CsvError> {
        let mut cells = Vec::with_capacity(5);
        loop {
            let (cell, more) = self.cell()?;
            cells.push(cell);
            if !more {
                return Ok(cells);
            }
        }
    }

    /// Reads one cell; true if another one follows.
    fn cell(&mut self) -> Result<(CsvCell<'a>, bool), CsvError> {
        if let Some(quoted) = self.rest.strip_prefix('"') {
            return self.quoted(quoted);
        }
        let (text, rest) = match self.rest.split_once(',') {
            Some((text, rest)) => (text, Some(rest)),
            None => (self.rest, None),
        };
        let text = text.trim_end_matches('\r');
        if text.contains('"') {
            return Err(CsvError::StrayQuote { line: self.line });
        }
        self.rest = rest.unwrap_or_default();
        Ok(((!text.is_empty()).then_some(Cow::Borrowed(text)), rest.is_some()))
    }

    fn quoted(&mut self, quoted: &'a str) -> Result<(CsvCell<'a>, bool), CsvError> {
        let (mut cell, mut rest) = (Cow::Borrowed(""), quoted);
        loop {
            let Some(end) = rest.find('"') else { return Err(CsvError::OpenQuote { line: self.line }) };
            // Adding to an empty one borrows.
            cell += &rest[..end];
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(behind) => {
                    cell += "\"";
                    rest = behind;
                }
                None => break,
            }
        }
        self.line += newlines(cell.as_bytes());
        if let Some(behind) = rest.strip_prefix(',') {
            self.rest = behind;
            return Ok((Some(cell), true));
        }
        match rest.strip_prefix('\r').unwrap_or(rest).chars().next() {
            None => Ok((Some(cell), false)),
            Some(found) => Err(CsvError::AfterQuote { line: self.line, found }),
        }
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Appends a record.
pub fn write(cells: &[Option<&str>], out: &mut String) {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        match cell {
            None => {}
            Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
                out.push('"');
                out.push_str(&text.replace('"', "\"\""));
                out.push('"');
            }
            Some(text) => out.push_str(text),
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, Vec<Option<String>>)> {
        let (mut reader, mut records) = (CsvReader::new(text.as_bytes()), Vec::new());
        while let Some((line, cells)) = reader.next_record().unwrap() {
            records.push((line, cells.into_iter().map(|cell| cell.map(Cow::into_owned)).collect()));
        }
        records
    }

    fn fault(text: &[u8]) -> String {
        let mut reader = CsvReader::new(text);
        loop {
            match reader.next_record() {
                Ok(record) => assert!(record.is_some(), "no fault in {:?}", text.escape_ascii()),
                Err(fault) => return fault.to_string(),
            }
        }
    }

    fn cell(text: &str) -> Option<String> {
        Some(text.into())
    }

    #[test]
    fn an_empty_cell_is_null_and_empty_quotes_are_the_empty_text() {
        assert_eq!(
            read("\u{feff}a,,\"\"\r\nb,\"x,\"\"y\"\"\nz\",\n\nc"),
            [
                (1, vec![cell("a"), None, cell("")]),
                (2, vec![cell("b"), cell("x,\"y\"\nz"), None]),
                (5, vec![cell("c")])
            ]
        );
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(fault(b"a\n\"b"), "line 2: a quote without an end");
        assert_eq!(
            fault(b"\"a\"b\n"),
            "line 1: 'b' after a closing quote: expected a comma or the end of the line"
        );
        assert!(fault(b"a\n\"b\n\",\"c\nd\"e\n").starts_with("line 4: 'e' after a closing quote"));
        let stray = "a quote inside a cell that does not begin with a quote";
        assert_eq!(fault(b"a\nb\"c\n"), format!("line 2: {stray}"));
        assert_eq!(fault(b"a\nb\"c\nd,\"\"\n"), format!("line 2: {stray}"));
        assert_eq!(fault(b"a\n\"b\n\xff\"\n"), "line 3: bytes that are not UTF-8");
    }

    #[test]
    fn a_record_without_an_end_is_refused_before_it_is_in_memory() {
        let long = "x\n".repeat(CSV_RECORD_BYTES_MAX);
        let fault_of = |text: String| fault(text.as_bytes());
        assert!(fault_of(format!("a\n\"{long}\"\n")).starts_with("line 2: a record of more than"));
        assert!(fault_of(long.replace('\n', "x")).starts_with("line 1: a record of more than"));
        assert!(fault_of(format!("a\nb\"{long}")).starts_with("line 2: a quote inside a cell"));
        let mut endless = CsvReader::new(std::io::BufReader::new(std::io::repeat(b'x')));
        assert!(endless.next_record().is_err());
        assert!(endless.record.capacity() <= 4 * CSV_RECORD_BYTES_MAX);
        let fits = "y".repeat(CSV_RECORD_BYTES_MAX - 3);
        assert_eq!(read(&format!("a\n\"{fits}\"\n")).len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            records in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of("[a-z,\"\n\r é]{0,6}"), 2..5), 1..6),
        ) {
            // A record of NULLs alone begins with a comma; one cell alone could look blank.
            let mut text = String::new();
            for record in &records {
                write(&record.iter().map(Option::as_deref).collect::<Vec<_>>(), &mut text);
            }
            let read: Vec<Vec<Option<String>>> = read(&text).into_iter().map(|(_, cells)| cells).collect();
            prop_assert_eq!(read, records);
        }
    }
}
