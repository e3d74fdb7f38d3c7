//! Options that are lists or tables: they come as JSON.

use std::borrow::Cow;

use tidegate_guest::json::Reader;

/// The texts of a list. None: it is something else.
pub fn texts(text: &str) -> Option<Vec<String>> {
    let mut reader = Reader::new(text.as_bytes());
    let mut texts = Vec::new();
    reader.array().ok()?;
    while reader.next_element().ok()? {
        texts.push(reader.string().ok()?.decode().into_owned());
    }
    reader.end().ok()?;
    Some(texts)
}

/// The members of a table of texts. None: it is something else.
pub fn text_members(text: &str) -> Option<Vec<(String, Cow<'_, str>)>> {
    let mut reader = Reader::new(text.as_bytes());
    let mut members = Vec::new();
    reader.object().ok()?;
    while let Some(key) = reader.next_key().ok()? {
        members.push((key.decode().into_owned(), reader.string().ok()?.decode()));
    }
    reader.end().ok()?;
    Some(members)
}
