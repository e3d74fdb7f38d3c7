//! The formats of payloads.

/// The format of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Bytes,
    Json,
    Cbor,
    Msgpack,
    Csv,
}

impl Format {
    /// # Errors
    /// It is none; names those that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "bytes" => Self::Bytes,
            "json" => Self::Json,
            "cbor" => Self::Cbor,
            "msgpack" => Self::Msgpack,
            "csv" => Self::Csv,
            _ => return Err("expected bytes, json, cbor, msgpack or csv".into()),
        })
    }
}
