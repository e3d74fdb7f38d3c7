//! CSV (RFC 4180), with one difference that the usual readers lose: an empty cell is NULL, and `""` is
//! the empty text, as PostgreSQL writes them.

/// A cell: None is NULL.
pub type CsvCell = Option<String>;

/// An error in the text, and its line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    #[error("line {line}: a quote without an end")]
    OpenQuote { line: usize },
    #[error("line {line}: {found:?} after a closing quote: expected a comma or the end of the line")]
    AfterQuote { line: usize, found: char },
    #[error("line {line}: a quote inside a cell that does not begin with a quote")]
    StrayQuote { line: usize },
}

/// Reads records one by one, each with the number of its first line.
#[derive(Debug)]
pub struct CsvRecords<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> CsvRecords<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 }
    }

    /// Reads one cell; true if another one follows in this record.
    fn cell(&mut self) -> Result<(CsvCell, bool), CsvError> {
        let line = self.line;
        if let Some(quoted) = self.rest.strip_prefix('"') {
            let mut cell = String::new();
            let mut rest = quoted;
            loop {
                let Some(end) = rest.find('"') else { return Err(CsvError::OpenQuote { line }) };
                cell.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix('"') {
                    Some(behind) => {
                        cell.push('"');
                        rest = behind;
                    }
                    None => break,
                }
            }
            self.line += cell.matches('\n').count();
            self.rest = rest;
            return Ok((Some(cell), self.separator()?));
        }
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let text = self.rest[..end].trim_end_matches('\r');
        if text.contains('"') {
            return Err(CsvError::StrayQuote { line });
        }
        self.rest = &self.rest[end..];
        let cell = (!text.is_empty()).then(|| text.to_owned());
        Ok((cell, self.separator()?))
    }

    /// Skips the end of a cell; true if another one follows in this record.
    fn separator(&mut self) -> Result<bool, CsvError> {
        if let Some(rest) = self.rest.strip_prefix(',') {
            self.rest = rest;
            return Ok(true);
        }
        let rest = self.rest.strip_prefix('\r').unwrap_or(self.rest);
        match rest.chars().next() {
            None => self.rest = rest,
            Some('\n') => {
                self.rest = &rest[1..];
                self.line += 1;
            }
            Some(found) => return Err(CsvError::AfterQuote { line: self.line, found }),
        }
        Ok(false)
    }
}

impl Iterator for CsvRecords<'_> {
    type Item = Result<(usize, Vec<CsvCell>), CsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        // A blank line, as at the end of a file, is no record.
        loop {
            let blank = self.rest.strip_prefix("\r\n").or_else(|| self.rest.strip_prefix('\n'));
            match blank {
                Some(rest) => {
                    self.rest = rest;
                    self.line += 1;
                }
                None => break,
            }
        }
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        let mut cells = Vec::new();
        loop {
            match self.cell() {
                Ok((cell, more)) => {
                    cells.push(cell);
                    if !more {
                        return Some(Ok((line, cells)));
                    }
                }
                Err(fault) => {
                    self.rest = "";
                    return Some(Err(fault));
                }
            }
        }
    }
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

    fn read(text: &str) -> Vec<(usize, Vec<CsvCell>)> {
        CsvRecords::new(text).map(Result::unwrap).collect()
    }

    fn cell(text: &str) -> CsvCell {
        Some(text.into())
    }

    #[test]
    fn an_empty_cell_is_null_and_empty_quotes_are_the_empty_text() {
        assert_eq!(
            read("a,,\"\"\r\nb,\"x,\"\"y\"\"\nz\",\n\n"),
            [(1, vec![cell("a"), None, cell("")]), (2, vec![cell("b"), cell("x,\"y\"\nz"), None]),]
        );
    }

    #[test]
    fn faults_name_their_line() {
        let fault = |text| CsvRecords::new(text).find_map(Result::err).unwrap();
        assert_eq!(fault("a\n\"b"), CsvError::OpenQuote { line: 2 });
        assert_eq!(fault("\"a\"b\n"), CsvError::AfterQuote { line: 1, found: 'b' });
        assert_eq!(fault("a\nb\"c\n"), CsvError::StrayQuote { line: 2 });
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
            let read: Vec<Vec<CsvCell>> = read(&text).into_iter().map(|(_, cells)| cells).collect();
            prop_assert_eq!(read, records);
        }
    }
}
