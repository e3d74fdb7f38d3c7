//! The query of a decoder that is put, and the parts of its body.

use crate::admin::respond::ApiError;
use crate::rollout::limits::CASES_BYTES_MAX;
use crate::rollout::{ExpectedVersion, PutFile};

/// The query of a decoder that is put.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PutQuery {
    /// Bytes at the beginning of the body that are cases, not the file.
    pub cases_bytes: usize,
    pub expect_same: bool,
    /// The file is judged and not put.
    pub dry_run: bool,
    /// The version that the author began with.
    pub expect_version: Option<ExpectedVersion>,
    /// The extension of the file that the body is.
    pub file: String,
}

impl Default for PutQuery {
    fn default() -> Self {
        Self { cases_bytes: 0, expect_same: false, dry_run: false, expect_version: None, file: "wasm".into() }
    }
}

impl PutQuery {
    /// # Errors
    /// It has another part, or a value that is none.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let mut parsed = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("cases_bytes", bytes))
                    if bytes.parse().is_ok_and(|bytes: u64| bytes <= CASES_BYTES_MAX) =>
                {
                    parsed.cases_bytes = bytes.parse().unwrap_or_default();
                }
                Some(("file", extension)) => {
                    // The bytes come later.
                    PutFile::new(extension, Vec::new()).map_err(bad_file)?;
                    extension.clone_into(&mut parsed.file);
                }
                Some(("expect_version", version)) => {
                    let bad = |message| ApiError { status: 400, code: "BAD_QUERY", message };
                    let version = ExpectedVersion::parse(version).map_err(bad)?;
                    parsed.expect_version = Some(version);
                }
                Some(("expect_same", "true")) => parsed.expect_same = true,
                Some(("expect_same", "false")) => parsed.expect_same = false,
                Some(("dry_run", "true")) => parsed.dry_run = true,
                Some(("dry_run", "false")) => parsed.dry_run = false,
                _ => {
                    let message = format!(
                        "invalid query {pair:?}: expected file=EXTENSION, cases_bytes=N (at most {CASES_BYTES_MAX}), expect_same=true, dry_run=true or expect_version=VERSION"
                    );
                    return Err(ApiError { status: 400, code: "BAD_QUERY", message });
                }
            }
        }
        Ok(parsed)
    }

    /// Parts a body into the cases and the file.
    ///
    /// # Errors
    /// It has fewer bytes than the cases, or those are no text.
    pub fn part_body(&self, mut body: Vec<u8>) -> Result<(Option<String>, Vec<u8>), ApiError> {
        if self.cases_bytes == 0 {
            return Ok((None, body));
        }
        let bad = |message: &str| ApiError { status: 400, code: "BAD_CASES", message: message.into() };
        if body.len() < self.cases_bytes {
            return Err(bad("the body has fewer bytes than cases_bytes"));
        }
        let component = body.split_off(self.cases_bytes);
        let cases = String::from_utf8(body).map_err(|_| bad("the cases are not UTF-8"))?;
        Ok((Some(cases), component))
    }
}

/// The answer to a body that is no file of a decoder.
pub(crate) fn bad_file(message: String) -> ApiError {
    ApiError { status: 400, code: "BAD_FILE", message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cases_and_a_component_as_the_query_says() {
        let query = PutQuery::parse("cases_bytes=3&expect_same=true").unwrap();
        assert_eq!(query, PutQuery { cases_bytes: 3, expect_same: true, ..PutQuery::default() });
        let expected = PutQuery::parse("expect_version=none").unwrap().expect_version;
        assert_eq!(expected, Some(ExpectedVersion::Nothing));
        assert!(PutQuery::parse("dry_run=true").unwrap().dry_run);
        assert_eq!(PutQuery::parse("file=toml").unwrap().file, "toml");
        assert_eq!(query.part_body(b"{}\n\0asm".to_vec()).unwrap(), (Some("{}\n".into()), b"\0asm".to_vec()));
        assert_eq!(query.part_body(b"{}".to_vec()).unwrap_err().code, "BAD_CASES");
        assert_eq!(query.part_body(b"\xff\xff\xffx".to_vec()).unwrap_err().code, "BAD_CASES");
        let alone = PutQuery::parse("").unwrap();
        assert_eq!(alone.part_body(b"\0asm".to_vec()).unwrap(), (None, b"\0asm".to_vec()));
        for bad in [
            "cases_bytes=x",
            "cases_bytes=99999999999",
            "expect_same=1",
            "dry_run",
            "other=1",
            "cases_bytes",
            "file=exe",
            "expect_version=",
            "expect_version=json@1.0.0",
        ] {
            assert_eq!(PutQuery::parse(bad).unwrap_err().status, 400, "{bad}");
        }
    }
}
