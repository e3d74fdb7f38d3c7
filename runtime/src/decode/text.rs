//! Texts of guests, kept within bounds.

pub use crate::domain::detail::truncate as cut;
