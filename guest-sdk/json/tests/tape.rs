//! Tapes at their limits, and the bits of an entry, which decoders in other languages read too.

use tidegate_json::{TAPE_ENTRIES_MAX, TapeWriter};

fn written(text: &str) -> Option<Vec<u64>> {
    let mut writer = TapeWriter::default();
    writer.write(text.as_bytes()).unwrap().then(|| writer.entries().to_vec())
}

#[test]
fn an_entry_has_the_bits_that_the_interface_names() {
    let entry = |start: u64, bytes: u64, key_bytes: u64, gap: u64, kind: u64| {
        start | bytes << 16 | key_bytes << 32 | gap << 40 | kind << 48
    };
    let (integer, verbatim, escaped_key) = (1 << 52, 1 << 53, 1 << 51);
    assert_eq!(
        written(r#"{"a": [1, -0, 2.50, 2.5], "b\n":"x", "c" :{"d":"\t"}, "e":true,"f":false,"g":null}"#)
            .unwrap(),
        [
            entry(0, 11, 0, 0, 0),
            entry(6, 4, 1, 3, 1),
            entry(7, 1, 0, 0, 4) | integer | verbatim,
            entry(10, 2, 0, 0, 4) | integer,
            entry(14, 4, 0, 0, 4),
            entry(20, 3, 0, 0, 4) | verbatim,
            entry(33, 1, 3, 3, 2) | escaped_key,
            entry(42, 1, 1, 3, 0),
            entry(48, 2, 1, 3, 3),
            entry(58, 4, 1, 2, 5),
            entry(67, 5, 1, 2, 6),
            entry(77, 4, 1, 2, 7),
        ]
    );
}

#[test]
fn a_text_that_does_not_fit_has_no_tape() {
    let array = |values: usize| format!("[{}]", vec!["1"; values].join(","));
    assert_eq!(written(&array(TAPE_ENTRIES_MAX - 1)).unwrap().len(), TAPE_ENTRIES_MAX);
    assert_eq!(written(&array(TAPE_ENTRIES_MAX)), None);
    let nested = format!("{}{}", "[[1],".repeat(100), "1".to_owned() + &"]".repeat(100));
    assert_eq!(written(&nested), None);
    let long_key = |bytes: usize| format!(r#"{{"{}":1}}"#, "k".repeat(bytes));
    assert!(written(&long_key(255)).is_some());
    assert_eq!(written(&long_key(256)), None);
    let blanks = |bytes: usize| format!(r#"{{"k":{}1}}"#, " ".repeat(bytes));
    assert!(written(&blanks(253)).is_some());
    assert_eq!(written(&blanks(254)), None);
    let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(written(&long(65_535)).is_some());
    assert_eq!(written(&long(65_536)), None);
    // A large text leaves nothing behind for the next.
    let mut writer = TapeWriter::default();
    assert_eq!(writer.write(nested.as_bytes()), Ok(false));
    assert_eq!(writer.write(b"7"), Ok(true));
    assert_eq!(writer.entries().len(), 1);
}
