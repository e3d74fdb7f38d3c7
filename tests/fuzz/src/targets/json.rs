//! A JSON text: the reader of the SDK gives the verdict and the values of `serde_json`, read or skipped.

#[path = "../../../../guest-sdk/json/tests/oracle/serde_json.rs"]
mod oracle;

use tidegate_json::{Kind, Reader};

pub fn run(text: &[u8]) {
    oracle::compare(text);
    numbers(text);
}

/// A text that is one number, in all the forms that a caller may ask for.
fn numbers(text: &[u8]) {
    let mut reader = Reader::new(text);
    if reader.peek() != Ok(Kind::Number) {
        return;
    }
    let Ok(number) = reader.number() else { return };
    let plain: f64 = number.text().parse().expect("a number of JSON is one of Rust");
    assert_eq!(number.as_f64().map(f64::to_bits), plain.is_finite().then_some(plain.to_bits()), "{number:?}");
    assert_eq!(number.as_i64().ok(), number.text().parse().ok(), "{number:?}");
    if let Some(value) = number.scaled(9) {
        // Exact where a float is near enough to tell.
        let near = plain * 1e9;
        assert!((value as f64 - near).abs() <= 1.0 + near.abs() * 1e-12, "{number:?} {value}");
    }
    let _ = (number.fits_f64(), number.is_shortest_decimal(), number.as_u64());
}
