//! The query of a URL, by the names that a path knows.

use axum::http::Uri;

use crate::admin::respond::ApiError;

/// Names and values, decoded; each name once.
#[derive(Debug)]
pub(crate) struct Query(Vec<(String, String)>);

/// The text of a part of a query.
///
/// # Errors
/// It is not UTF-8.
pub(crate) fn decode(text: &str) -> Result<String, ApiError> {
    let plain = text.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&plain).decode_utf8();
    decoded.map(Into::into).map_err(|_| bad(format!("{text:?} is not UTF-8")))
}

fn bad(message: String) -> ApiError {
    ApiError { status: 400, code: "BAD_QUERY", message }
}

/// The parts of a query, decoded.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), ApiError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

impl Query {
    /// Reads a query in which these names may stand.
    ///
    /// # Errors
    /// Another stands there, one stands there twice, or it is not UTF-8.
    pub fn of(uri: &Uri, names: &[&str]) -> Result<Self, ApiError> {
        let mut known: Vec<(String, String)> = Vec::new();
        for pair in pairs(uri.query().unwrap_or_default()) {
            let (name, value) = pair?;
            if !names.contains(&name.as_str()) {
                return Err(bad(format!("unknown name {name:?}: expected {}", names.join(", "))));
            }
            if known.iter().any(|(known, _)| *known == name) {
                return Err(bad(format!("{name} is given twice")));
            }
            known.push((name, value));
        }
        Ok(Self(known))
    }

    /// The value of a name; `None` if it is not given, or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// The number of a name.
    ///
    /// # Errors
    /// It is no number up to `most`.
    pub fn number(&self, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if number <= most => Ok(Some(number)),
            _ => Err(bad(format!("{name} = {text:?}: expected a number from 0 to {most}"))),
        }
    }

    /// All names with their values.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_have_their_values_and_others_are_refused() {
        let query = |text: &str| Query::of(&format!("/x?{text}").parse().unwrap(), &["tenant", "limit"]);
        let read = query("tenant=a%20b+c&limit=7").unwrap();
        assert_eq!((read.text("tenant"), read.number("limit", 7).unwrap()), (Some("a b c"), Some(7)));
        assert_eq!(query("tenant=").unwrap().text("tenant"), None);
        assert_eq!(query("limit=8").unwrap().number("limit", 7).unwrap_err().status, 400);
        for bad in ["other=1", "tenant=a&tenant=b", "tenant=%ff"] {
            assert_eq!(query(bad).unwrap_err().code, "BAD_QUERY", "{bad}");
        }
    }
}
