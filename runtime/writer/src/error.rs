//! `WriterError`: the writer cannot start, or an output cannot be opened.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    #[error("output.url {url:?} cannot be used: {why}")]
    Url { url: String, why: String },
    #[error(
        "output.token, output.username or output.password has a character that an HTTP header cannot contain"
    )]
    Credential,
    #[error("the HTTP client cannot start: {0}")]
    Client(String),
    #[error("the writer's thread cannot start")]
    Thread(#[source] io::Error),
}
