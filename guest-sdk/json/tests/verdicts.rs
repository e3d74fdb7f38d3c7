//! The verdict on whole texts, as a table: what RFC 8259 allows and what it does not.

use tidegate_json::{DEPTH_MAX, ErrorKind, Reader};

fn verdict(text: &[u8]) -> Result<(), tidegate_json::Error> {
    Reader::new(text).end()
}

const ACCEPTED: &[&[u8]] = &[
    b"0",
    b"-0",
    b"-0.0",
    b"1e400",
    b"-1E-400",
    b"1e+07",
    b"0e0",
    b"123456789012345678901234567890",
    b" \t\r\n null \n",
    b"true",
    b"false",
    b"\"\"",
    b"[]",
    b"{}",
    b"[ ]",
    b"{ }",
    b"[[],{}]",
    b"{\"\":0}",
    b"{\"a\":1,\"a\":2}",
    b"{\"a\" : [ 1 , 2 ] , \"b\":{ } }",
    b"\"\x7f\"",
    b"\"\\u0000\"",
    b"\"\\ud83d\\ude00\"",
    b"\"\\uD83D\\uDE00 \\\" \\\\ \\/ \\b\\f\\n\\r\\t\"",
    b"\"\\uffff\"",
    "\"ä€😀\u{2028}\"".as_bytes(),
    "{\"ключ\":\"значение\"}".as_bytes(),
    "\"\u{feff}\"".as_bytes(),
];

const REFUSED: &[&[u8]] = &[
    b"",
    b" ",
    b"01",
    b"-01",
    b"00",
    b"-",
    b"+1",
    b".5",
    b"1.",
    b"1.e1",
    b"1e",
    b"1e+",
    b"0x1",
    b"1_000",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"nul",
    b"nulll",
    b"True",
    b"tru e",
    b"[",
    b"]",
    b"[1",
    b"[1,",
    b"[1,]",
    b"[,1]",
    b"[1 2]",
    b"[1}",
    b"{",
    b"}",
    b"{]",
    b"{\"a\"",
    b"{\"a\":",
    b"{\"a\":1",
    b"{\"a\":1,",
    b"{\"a\":1,}",
    b"{\"a\" 1}",
    b"{\"a\":1 \"b\":2}",
    b"{\"a\":1]",
    b"{,}",
    b"{1:2}",
    b"{a:1}",
    b"{'a':1}",
    b"{\"a\":1}}",
    b"{} {}",
    b"1 2",
    b"[1]x",
    b"// c\n1",
    b"\"",
    b"\"a",
    b"\"abcdefgh",
    b"\"\n\"",
    b"\"abcdefg\n\"",
    b"\"abcdefgh\tabcdefgh\"",
    b"\"\x00\"",
    b"\"\x1f\"",
    b"\"\\x41\"",
    b"\"\\",
    b"\"\\\"",
    b"\"\\u12\"",
    b"\"\\u12G4\"",
    b"\"\\u+123\"",
    b"\"\\ud800\"",
    b"\"\\ud800x\"",
    b"\"\\ud800\\n\"",
    b"\"\\ud800\\u0041\"",
    b"\"\\ud800\\ud800\"",
    b"\"\\udc00\"",
    b"\"\\ud83d\\u\"",
    b"{\"\\ud800\":1}",
    b"\"\xff\"",
    b"\"\xc3\"",
    b"\"\xc3\x28 and some more text\"",
    b"\"\xc0\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xe2\x82",
    b"\xef\xbb\xbf{}",
    b"\xff\xfe{\0}\0",
    b"\0",
    b"1\0",
    b"[1]\x0c",
    b"\xc2\xa01",
    b"{\"a\":\"\xff\"}",
    b"{\"\xff\":1}",
];

#[test]
fn what_the_grammar_allows_is_accepted_and_nothing_else() {
    for text in ACCEPTED {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(verdict(text), Ok(()), "{shown}");
    }
    for text in REFUSED {
        let shown = String::from_utf8_lossy(text);
        assert!(verdict(text).is_err(), "{shown}");
    }
}

/// A scanner by the word has its faults at the ends of words.
#[test]
fn a_special_byte_is_seen_at_every_offset_of_a_word() {
    let bad: &[&[u8]] = &[b"\n", b"\xff", b"\\x", b"\x80", b"\x00", b"\\ud800", b"\"x"];
    let good: &[&[u8]] = &[b"\\n", "é".as_bytes(), "😀".as_bytes(), b"\\\\", b"\x7f", b"\\\""];
    for before in 0..20 {
        for after in 0..20 {
            let text = |middle: &[u8]| {
                let mut text = vec![b'"'];
                text.extend(std::iter::repeat_n(b'a', before));
                text.extend(middle);
                text.extend(std::iter::repeat_n(b'b', after));
                text.push(b'"');
                text
            };
            for middle in bad {
                assert!(verdict(&text(middle)).is_err(), "{middle:?} after {before}");
            }
            for middle in good {
                let text = text(middle);
                let mut reader = Reader::new(&text);
                let ours = reader.string().map(|text| text.decode().into_owned());
                assert_eq!(ours.unwrap(), serde_json::from_slice::<String>(&text).unwrap());
            }
        }
    }
}

#[test]
fn nesting_has_a_ceiling_whether_read_or_skipped() {
    let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
    let most = DEPTH_MAX as usize;
    assert!(verdict(&nested(most)).is_ok());
    let error = verdict(&nested(most + 1)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooDeep);
    assert_eq!(error.at, most);
    assert!(serde_json::from_slice::<serde_json::Value>(&nested(most)).is_ok());
    assert!(serde_json::from_slice::<serde_json::Value>(&nested(most + 1)).is_err());

    let text = nested(most + 1);
    let mut reader = Reader::new(&text);
    for _ in 0..most {
        reader.array().unwrap();
        assert!(reader.next_element().unwrap());
    }
    assert_eq!(reader.array().unwrap_err().kind, ErrorKind::TooDeep);
    assert!(verdict(&b"[{\"a\":".repeat(100_000)).is_err());
}

#[test]
fn an_error_says_what_was_expected_and_where() {
    let says = |text: &str| verdict(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(says(r#"{"a": 1, "b": 2x}"#), "expected ',' or '}' at byte 15, found 'x'");
    assert_eq!(says("[1"), "expected ',' or ']' at byte 2, found the end of the text");
    assert_eq!(says("{} x"), "expected the end of the text at byte 3, found 'x'");
    assert_eq!(says("[nul]"), "expected null at byte 4, found ']'");
    assert_eq!(says("\u{feff}{}"), "the text begins with a byte order mark");
    assert_eq!(
        says("\"a\u{1}\""),
        "control character 0x01 in a string at byte 2, expected its escape \\u0001"
    );
    assert_eq!(says(r#"["\ud800"]"#), "half of a surrogate pair at byte 2, expected both halves");
    let not_utf8 = verdict(b"[\"abc\xff\"]").unwrap_err();
    assert_eq!(not_utf8.to_string(), "a string is not UTF-8 at byte 5");
    assert!(says("NaN").contains("expected a value at byte 0, found 'N'"));
    for text in ["NaN", "nan", "Infinity", "-Infinity"] {
        assert!(says(text).contains("JSON has no NaN"), "{}", says(text));
    }
}

#[test]
fn a_reader_used_wrongly_gives_an_error_and_never_a_wrong_verdict() {
    let misplaced = |error: tidegate_json::Error| error.kind == ErrorKind::Misplaced;
    assert!(misplaced(Reader::new(b"1}").next_key().unwrap_err()));
    assert!(misplaced(Reader::new(b"1,\"a\":2").next_key().unwrap_err()));
    assert!(misplaced(Reader::new(b"1]").next_element().unwrap_err()));
    let mut reader = Reader::new(b"{1}");
    reader.object().unwrap();
    assert!(misplaced(reader.number().unwrap_err()));
    let mut reader = Reader::new(b"{}");
    reader.object().unwrap();
    assert!(misplaced(reader.end().unwrap_err()));
    let mut reader = Reader::new(b"1");
    reader.number().unwrap();
    assert!(misplaced(reader.number().unwrap_err()));
}
