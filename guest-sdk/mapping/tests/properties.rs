//! Any bytes under any mapping: lines or a refusal, and never a panic.

use proptest::prelude::*;
use tidegate_guest::{Lines, Route};
use tidegate_mapping::Mapping;

fn mapping(options: &[(&str, &str)]) -> Result<Mapping, String> {
    Mapping::read(&Route { message_type: "m".into(), ..tidegate_guest::testing::route(options) })
}

fn decode(mapping: &Mapping, payload: &[u8]) -> Result<String, String> {
    let decoded = tidegate_guest::testing::Context::default()
        .decode_one(payload, &mut |message, lines: &mut Lines| {
            mapping.decode(message.payload, message.received_ns, lines)
        });
    decoded.map_err(|refusal| refusal.to_string())
}

/// A number of any width, with the type that reads it.
fn numbers() -> impl Strategy<Value = (String, Vec<u8>, i128)> {
    (1..=8_usize, any::<bool>(), any::<bool>(), any::<u64>()).prop_map(|(bytes, signed, little, value)| {
        let bits = 8 * bytes as u32;
        let raw = value & (u64::MAX >> (64 - bits));
        let expected = match signed {
            true => i128::from(((raw << (64 - bits)) as i64) >> (64 - bits)),
            false => i128::from(raw),
        };
        let mut payload = raw.to_be_bytes()[8 - bytes..].to_vec();
        if little {
            payload.reverse();
        }
        let order = match (bytes, little) {
            (1, _) => "",
            (_, true) => "le",
            (_, false) => "be",
        };
        (format!("{}{bits}{order}", if signed { "i" } else { "u" }), payload, expected)
    })
}

proptest! {
    #[test]
    fn a_number_of_any_width_is_itself((name, payload, expected) in numbers(), before in 0..5_usize) {
        let fields = format!(r#"{{"v":{{"value":"{name}@{before}","type":"integer"}}}}"#);
        let mapping = mapping(&[("fields", &fields)]).unwrap();
        let padded = [vec![0xee; before], payload.clone()].concat();
        match i64::try_from(expected) {
            Ok(expected) => prop_assert_eq!(decode(&mapping, &padded).unwrap(), format!("m v={expected}i\n")),
            Err(_) => prop_assert!(decode(&mapping, &padded).unwrap_err().contains("64 bits")),
        }
        for short in 0..padded.len() {
            prop_assert!(decode(&mapping, &padded[..short]).unwrap_err().starts_with("TOO_SHORT"));
        }
    }

    #[test]
    fn the_short_way_to_a_number_is_the_long_way(
        payload in prop::collection::vec(any::<u8>(), 0..10),
        name in "[ui](8|16[bl]e|24[bl]e|48[bl]e)@[0-3]",
        bits in prop_oneof![Just(""), Just("[0]"), Just("[7]"), Just("[2..6]")],
        scale in prop_oneof![Just(""), Just(" * 0.1"), Just(" * 3 - 40"), Just(" / 7"), Just(" * 1e15")],
        none in 0..300_i32,
        pinned in prop_oneof![Just("float"), Just("integer")],
    ) {
        let scale = if bits.len() == 3 { "" } else { scale };
        let whole = scale.is_empty() || scale.contains('3') || scale.contains("e15");
        let pinned = if bits.len() == 3 { "boolean" } else if whole { pinned } else { "float" };
        let table = |more: &str| {
            let none = if bits.is_empty() { format!(r#""none":{},"#, none % 100) } else { String::new() };
            format!(r#"{{"v":{{"value":"{name}{bits}{scale}",{none}"type":"{pinned}"{more}}},"next":"u8@+0"}}"#)
        };
        let short = mapping(&[("fields", &table(""))]).unwrap();
        // A condition that always holds leads the long way.
        let long = mapping(&[("fields", &table(r#","if":"u8@0 >= 0""#))]).unwrap();
        if !payload.is_empty() {
            prop_assert_eq!(decode(&short, &payload), decode(&long, &payload));
        }
    }

    #[test]
    fn any_bytes_make_lines_or_a_refusal(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let fields = r#"{"a":"u8@0[0..3]","b":{"value":"f32le@1","if":"u8@0 & 1"},"c":"text:u8@5","d":"bcd:2@+1","e":"i16be@-2 * 0.1"}"#;
        let records = r#"{"at":3,"count":"u8@1","fields":{"x":"text:u8@0","y":"f16be@+0"}}"#;
        let time = r#"{"value":"u32be@2","format":"unix_s","base":"u8@0"}"#;
        for options in [
            &[("fields", fields)][..],
            &[("records", records), ("time", time)],
            &[("records", r#"{"size":3,"fields":{"x":"i24le@0"}}"#)],
            &[("format", "cbor")],
            &[("format", "cbor"), ("fields", r#"{"a":"/a/0","b":"/b"}"#)],
            &[("format", "msgpack"), ("strings", "parse")],
            &[("format", "msgpack"), ("records", r#"{"at":"/a"}"#)],
            &[("format", "json"), ("records", r#"{"at":""}"#)],
            &[("format", "csv"), ("delimiter", ";")],
        ] {
            let _ = decode(&mapping(options).unwrap(), &payload);
        }
    }

    #[test]
    fn any_text_as_an_option_is_a_mapping_or_says_the_key(
        source in "(u8|i16be|f32le|bcd:2|text:u8|hex:4|x)?@?[+-]?[0-9]{0,3}(\\[[0-9.]{0,4}\\])?( [*/+-] [0-9.e-]{0,4}){0,2}",
        condition in "u8@0( (==|&|<|!) ?[0-9x\"]{0,3})?",
        none in "(0x)?[0-9a-f.-]{0,6}",
    ) {
        let table = format!("{{\"t\":{{\"value\":{source:?},\"if\":{condition:?},\"none\":{none:?}}}}}");
        match mapping(&[("fields", &table)]) {
            Ok(mapping) => drop(decode(&mapping, &[1, 2, 3, 4, 5, 6, 7, 8])),
            Err(error) => prop_assert!(error.contains("options.fields.t"), "{}", error),
        }
    }
}
