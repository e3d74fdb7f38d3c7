//! Errors of a configuration without the secrets in it: TOML's errors quote the line, and some the value.

/// Parts of the names of keys and variables whose values are secrets, or may contain one.
const SECRET_WORDS: [&str; 5] = ["token", "pass", "secret", "url", "postgres"];

/// True for a key, or a variable, whose value is never shown in an error.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let last = name.rsplit(['.', '_']).next().unwrap_or_default();
    // A file, a folder and `require_token` are no secrets.
    !matches!(last, "file" | "dir")
        && !name.contains("require")
        && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// The text of a TOML error: `TOML parse error at line 3, column 9`, the line quoted, and a message.
pub fn toml_error(text: &str) -> String {
    let mut hidden = false;
    let mut lines = Vec::new();
    for line in text.trim_end().lines() {
        match quoted(line) {
            Some((number, source)) if is_secret(source.split('=').next().unwrap_or_default()) => {
                hidden = true;
                let key = source.split('=').next().unwrap_or_default().trim();
                lines.push(format!("{number}| {key} = (hidden)"));
            }
            // Where the value stands, and how long it is.
            _ if hidden && line.trim_start().starts_with('|') => {}
            _ if hidden && line.contains("expected ") => {
                let expected = line.rsplit("expected ").next().unwrap_or_default();
                lines.push(format!("expected {expected}"));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.join("\n")
}

/// The number and the source of a quoted line: `3 | token = 7`.
fn quoted(line: &str) -> Option<(&str, &str)> {
    let (number, source) = line.split_once('|')?;
    number.trim().parse::<u64>().ok()?;
    Some((number, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sections::Config;

    fn error(text: &str) -> String {
        toml_error(&toml::from_str::<Config>(text).unwrap_err().to_string())
    }

    #[test]
    fn an_error_in_the_line_of_a_secret_quotes_none_of_it() {
        for text in [
            "[output]\ntoken = s3cret\n",
            "[output]\ntoken = \"s3cret\n",
            "[output]\npassword = 53cr37\n",
            "[output]\nurl = 'http://u:s3cret@h\n",
            "[output]\ntoken = \"s3cret\" \"s3cret\"\n",
            "[output]\ntokens = \"s3cret\"\n",
            "[mqtt]\npassword = [\"s3cret\"]\n",
            "[tenants.a]\noutput_token = {s3cret = 1}\n",
            "[fleet]\npostgres = 'postgres://u:s3cret@h\n",
        ] {
            let error = error(text);
            assert!(!error.contains("s3cret") && !error.contains("53cr37"), "{text}: {error}");
            assert!(error.contains("line 2") && error.contains("(hidden)"), "{text}: {error}");
        }
        assert!(error("[output]\npassword = 537\n").contains("expected a string"));
    }

    #[test]
    fn other_errors_quote_their_line() {
        let error = error("[output]\nbatch_lines = \"many\"\n");
        assert!(error.contains("batch_lines = \"many\""), "{error}");
        assert!(!is_secret("admin.token_file") && !is_secret("TIDEGATE_REGISTRY__REQUIRE_TOKEN"));
        assert!(is_secret("TIDEGATE_OUTPUT__TOKEN") && is_secret("PG_PASS") && is_secret("output.url"));
    }
}
