//! The same verdict and the same values as `serde_json`, on texts that a generator made and on
//! texts that were damaged afterwards.
//!
//! A longer run, with the number of texts (10 million take about two minutes):
//! `FUZZ_TEXTS=10000000 cargo test --release -p tidegate-json --test against_serde_json -- --ignored`

#[path = "oracle/serde_json.rs"]
mod oracle;

use proptest::prelude::*;
use tidegate_json::{NotI64, Reader};

use oracle::{compare, oracle};

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \n\t\r]{1,3}"]
}

fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u64>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter_map("finite", |value| value.is_finite().then(|| value.to_string())),
        (-1e6..1e6).prop_map(|value: f64| format!("{value:.3}")),
        "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,24})?([eE][+-]?[0-9]{1,3})?",
    ]
}

fn string_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_]{0,12}".prop_map(|text| format!("\"{text}\"")),
        ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        "([a-z]|\\\\[nrtbf/\"\\\\]|\\\\u[0-9a-cA-C][0-9a-fA-F]{3}|\\\\ud[89ab][0-9a-f]{2}\\\\uD[C-F][0-9A-F]{2}|é|€|😀){0,9}"
            .prop_map(|text| format!("\"{text}\"")),
    ]
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        number_text(),
        string_text(),
    ];
    let spaced = (blanks(), leaf, blanks()).prop_map(|(a, b, c)| a + &b + &c);
    spaced.prop_recursive(5, 48, 6, |inner| {
        let member = (blanks(), string_text(), blanks(), inner.clone());
        let member = member.prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            proptest::collection::vec(inner, 0..6).prop_map(|all| format!("[{}]", all.join(","))),
            proptest::collection::vec(member, 0..6).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

/// Bytes that mean something to a JSON reader, so that damage is seldom only in a string.
const MEANINGFUL: &[u8] = b"{}[]:,\"\\u0dD8cC1e-+.9tfn \n\x00\x1f\x7f\x80\xc3\xa9\xed\xa0\xf0\xff";

fn damage(text: &mut Vec<u8>, place: usize, byte: u8, how: u8) {
    let at = place % (text.len() + 1);
    let byte = MEANINGFUL[byte as usize % MEANINGFUL.len()];
    match how % 5 {
        0 => text.insert(at, byte),
        1 => text.truncate(at),
        2 if at < text.len() => drop(text.remove(at)),
        3 if at < text.len() => {
            let other = (at * 7 + 1) % text.len();
            text.swap(at, other);
        }
        _ if at < text.len() => text[at] = byte,
        _ => text.push(byte),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn valid_texts_are_read_as_serde_json_reads_them(text in json_text()) {
        prop_assert!(oracle(text.as_bytes()).is_some());
        compare(text.as_bytes());
    }

    #[test]
    fn damaged_texts_get_the_verdict_of_serde_json(
        text in json_text(),
        blows in proptest::collection::vec(any::<(usize, u8, u8)>(), 1..4),
    ) {
        let mut text = text.into_bytes();
        for (place, byte, how) in blows {
            damage(&mut text, place, byte, how);
        }
        compare(&text);
    }

    #[test]
    fn bytes_at_random_get_the_verdict_of_serde_json(
        picks in proptest::collection::vec(any::<u8>(), 0..24),
    ) {
        let text: Vec<u8> = picks.iter().map(|&pick| MEANINGFUL[pick as usize % MEANINGFUL.len()]).collect();
        compare(&text);
    }

    #[test]
    fn numbers_are_rounded_as_the_standard_library_rounds(text in number_text()) {
        let number = Reader::new(text.as_bytes()).number().unwrap();
        prop_assert_eq!(number.text(), &text);
        let expected: f64 = text.parse().unwrap();
        let expected = expected.is_finite().then_some(expected.to_bits());
        prop_assert_eq!(number.as_f64().map(f64::to_bits), expected);
        prop_assert_eq!(number.as_i64().ok(), text.parse::<i64>().ok());
        prop_assert_eq!(number.as_u64(), text.trim_start_matches("-0").parse::<u64>().ok().or((text == "-0").then_some(0)).filter(|_| number.is_integer()));
    }
}

#[test]
fn the_ends_of_the_integers_are_exact() {
    let of = |text: &str| Reader::new(text.as_bytes()).number().unwrap().as_i64();
    assert_eq!(of("9223372036854775807"), Ok(i64::MAX));
    assert_eq!(of("9223372036854775808"), Err(NotI64::OutOfRange));
    assert_eq!(of("-9223372036854775808"), Ok(i64::MIN));
    assert_eq!(of("-9223372036854775809"), Err(NotI64::OutOfRange));
    assert_eq!(of("18446744073709551616"), Err(NotI64::OutOfRange));
    assert_eq!(of("-0"), Ok(0));
    assert_eq!(of("1.0"), Err(NotI64::NotInteger));
    assert_eq!(of("1e2"), Err(NotI64::NotInteger));
    let huge = "9".repeat(400);
    assert_eq!(of(&huge), Err(NotI64::OutOfRange));
    assert_eq!(Reader::new(huge.as_bytes()).number().unwrap().as_f64(), None);
    assert_eq!(Reader::new(b"1e400").number().unwrap().as_f64(), None);
    assert_eq!(Reader::new(b"1e-400").number().unwrap().as_f64(), Some(0.0));
    let exponent = format!("0.{}1e400", "0".repeat(399));
    assert_eq!(Reader::new(exponent.as_bytes()).number().unwrap().as_f64(), Some(1.0));
}

/// Texts from a seed, damaged by a generator of its own: no shrinking, but a hundred times as many
/// a second as proptest.
#[test]
#[ignore = "a long run; see the head of this file"]
fn many_damaged_texts_get_the_verdict_of_serde_json() {
    let texts: u64 = std::env::var("FUZZ_TEXTS").map_or(1_000_000, |text| text.parse().unwrap());
    let seed: u64 = std::env::var("FUZZ_SEED").map_or(1, |text| text.parse().unwrap());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 24
    };
    let bases: &[&str] = &[
        r#"{"ts":"2026-11-23T08:59:58.25Z","site_id":"lab-1","seq":7,"metrics":{"temp":21.5,"on":true,"n":null}}"#,
        r#"[1, -2.5e3, "a\u00e9\ud83d\ude00\n", {"k": [[], {}, "é€😀"]}, 1e400, 12345678901234567890]"#,
        r#""abcdefgh\\\"ijklmnop\/qrstuvwx\u0041yz""#,
        "{ \"a\" : [ true , false , null ] ,\r\n\t\"long key with é inside it\" : { \"b\" : -0 } }",
        "-123.456e-7",
    ];
    let mut accepted = 0u64;
    for _ in 0..texts {
        let mut text = bases[random() as usize % bases.len()].as_bytes().to_vec();
        for _ in 0..random() % 4 {
            damage(&mut text, random() as usize, random() as u8, random() as u8);
        }
        accepted += u64::from(Reader::new(&text).end().is_ok());
        compare(&text);
    }
    println!("{texts} texts, {accepted} accepted, the same verdict and values on each");
}
