//! A URL as it may be shown: without user, password and secrets of the query.

use std::fmt;

/// Displays a URL of a server or a database with its credentials hidden. A text that is no URL is shown as one
/// would be: all before the last `@` is hidden.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RedactedUrl<'a>(pub &'a str);

const HIDDEN: &str = "(hidden)";

/// Parts of the names of query keys whose values are secrets.
const SECRET_WORDS: [&str; 4] = ["pass", "token", "secret", "key"];

impl fmt::Display for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if !scheme.contains('@') => (Some(scheme), rest),
            _ => (None, self.0),
        };
        if let Some(scheme) = scheme {
            write!(f, "{scheme}://")?;
        }
        let (place, query) = match rest.split_once('?') {
            // A password may contain the mark.
            Some((place, query)) if !query.contains('@') => (place, Some(query)),
            _ => (rest, None),
        };
        match place.rsplit_once('@') {
            Some((credentials, host)) => match credentials.split_once(':') {
                // Without a colon it may be a token.
                None => write!(f, "{HIDDEN}@{host}")?,
                Some((user, _)) => write!(f, "{user}:{HIDDEN}@{host}")?,
            },
            None => f.write_str(place)?,
        }
        let Some(query) = query else { return Ok(()) };
        for (at, pair) in query.split('&').enumerate() {
            f.write_str(if at == 0 { "?" } else { "&" })?;
            match pair.split_once('=') {
                Some((key, _)) if is_secret(key) => write!(f, "{key}={HIDDEN}")?,
                _ => f.write_str(pair)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RedactedUrl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// `p` is the token of InfluxDB's older API.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key == "p" || SECRET_WORDS.iter().any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_a_url_is_shown() {
        for (url, shown) in [
            ("http://127.0.0.1:8181", "http://127.0.0.1:8181"),
            ("https://u:s3cret@host/path", "https://u:(hidden)@host/path"),
            ("https://s3cret@host", "https://(hidden)@host"),
            ("https://u:s3c/r?e@t@host", "https://u:(hidden)@host"),
            ("u:s3cret@host", "u:(hidden)@host"),
            (
                "http://host/write?db=x&p=s3cret&Token=s3cret",
                "http://host/write?db=x&p=(hidden)&Token=(hidden)",
            ),
            ("postgres://u:s3cret@h/d?sslmode=require", "postgres://u:(hidden)@h/d?sslmode=require"),
            ("", ""),
        ] {
            assert_eq!(RedactedUrl(url).to_string(), shown);
            assert_eq!(format!("{:?}", RedactedUrl(url)), format!("{shown:?}"));
        }
    }
}
