//! A strict, borrowing pull reader for JSON (RFC 8259).
