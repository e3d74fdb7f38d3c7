//! Texts of guests, kept within bounds.
