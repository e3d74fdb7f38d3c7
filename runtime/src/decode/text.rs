//! Texts of guests, kept within bounds.

/// The beginning of a text, at most so many bytes, never half a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
