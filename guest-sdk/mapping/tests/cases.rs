//! Mappings of devices, payloads and their lines; and mappings that cannot be meant.

use tidegate_guest::{Lines, Refusal, Route, ignored};
use tidegate_mapping::Mapping;

fn mapping(options: &[(&str, &str)]) -> Result<Mapping, String> {
    Mapping::read(&Route { message_type: "m".into(), ..tidegate_guest::testing::route(options) })
}

fn decode(options: &[(&str, &str)], payload: &[u8]) -> Result<String, Refusal> {
    let mapping = mapping(options).map_err(|why| Refusal::new("CONFIGURE", why))?;
    tidegate_guest::testing::Context::default().decode_one(payload, &mut |message, lines: &mut Lines| {
        mapping.decode(message.payload, message.received_ns, lines)
    })
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[track_caller]
fn lines(options: &[(&str, &str)], payload: &[u8], expected: &str) {
    assert_eq!(decode(options, payload).unwrap(), expected);
}

#[track_caller]
fn refused(options: &[(&str, &str)], payload: &[u8], words: &[&str]) {
    let refusal = decode(options, payload).unwrap_err().to_string();
    assert!(words.iter().all(|word| refusal.contains(word)), "{refusal}");
}

const METER: [(&str, &str); 2] = [
    ("measurement", "energy_meter"),
    (
        "fields",
        r#"{"battery":"u8@1","energy_kwh":"u32be@2 * 0.001","power_w":"i24be@6","signal":{"value":"u8@9","none":"0xff"}}"#,
    ),
];

#[test]
fn an_energy_meter_of_ten_bytes() {
    let payload = hex("01 64 00 0f 42 40 00 03 e8 7f");
    lines(&METER, &payload, "energy_meter battery=100.0,energy_kwh=1000.0,power_w=1000.0,signal=127.0\n");
    lines(
        &METER,
        &hex("01 64 00 0f 42 41 ff ff ff ff"),
        "energy_meter battery=100.0,energy_kwh=1000.001,power_w=-1.0\n",
    );
    refused(&METER, &payload[..8], &["TOO_SHORT", "fields.power_w", "bytes 6 to 8", "8 bytes"]);
}

#[test]
fn bits_conditions_types_and_texts_of_a_payload() {
    let options = [(
        "fields",
        r#"{"open":"u8@0[0]","level":"u8@0[4..7]","temp":{"value":"i16be@1 * 0.1","if":"u8@0 & 0x02","none":["0x7fff"],"unit":"C"},
            "count":{"value":"u16le@3","type":"integer"},"name":"text:u8@5","tail":"u8@+0","last":"u8@-1","flag":{"value":"u8@0[1]","type":"integer"}}"#,
    )];
    let payload = hex("a3 ff 9c 05 00 02 61 62 09 07");
    lines(
        &options,
        &payload,
        "m open=true,level=10.0,temp_C=-10.0,count=5i,name=\"ab\",tail=9.0,last=7.0,flag=1i\n",
    );
    // The condition does not hold; the value means none.
    for (first, second) in [("a1", "ff 9c"), ("a3", "7f ff")] {
        let payload = hex(&format!("{first} {second} 05 00 00 09"));
        let written = decode(&options, &payload).unwrap();
        assert!(!written.contains("temp_C") && written.contains("tail=9.0"), "{written}");
    }
}

#[test]
fn tags_and_times_of_bytes() {
    let tags = ("tags", r#"{"serial":"hex:2@0","port":"u8@2"}"#);
    let fields = ("fields", r#"{"v":"u8@3"}"#);
    let line = |time: &str| decode(&[tags, fields, ("time", time)], &hex("be ef 07 01 65 53 f1 00 00 0a"));
    let expected = |time: &str| format!("m,serial=beef,port=7 v=1.0 {time}\n");
    for (time, ns) in [
        (r#"{"value":"u32be@4","format":"unix_s"}"#, "1700000000000000000"),
        (r#"{"value":"u32be@4","format":"s","base":"2000-01-01T00:00:00Z"}"#, "2646684800000000000"),
        (r#"{"value":"u16be@8","format":"s","base":"u32be@4"}"#, "1700000010000000000"),
        (r#"{"value":"u16be@8 * 0.5","format":"s","base":"u32be@4"}"#, "1700000005000000000"),
    ] {
        assert_eq!(line(time).unwrap(), expected(ns), "{time}");
    }
    // 0 minus 10 s of age.
    let age =
        decode(&[fields, ("time", r#"{"value":"i8@0","format":"s","base":"receipt"}"#)], &hex("f6 00 00 01"));
    assert_eq!(age.unwrap(), "m v=1.0 1699999990000000000\n");
    let error = mapping(&[fields, ("time", "u32be@0")]).unwrap_err();
    assert!(error.contains("options.time") && error.contains("unix_s"), "{error}");
    let huge = r#"{"value":"u64be@0","format":"s"}"#;
    refused(&[fields, ("time", huge)], &[0xff; 8], &["BAD_TIME", "64-bit nanoseconds"]);
}

#[test]
fn records_of_bytes_are_lines() {
    let records =
        r#"{"at":2,"size":3,"count":"u8@1","tags":{"channel":"u8@0"},"fields":{"t":"i16be@1 * 0.1"}}"#;
    let options = [("tags", r#"{"unit":"u8@0"}"#), ("records", records)];
    let payload = hex("05 02 01 00 d5 02 ff 9c 63");
    lines(&options, &payload, "m,unit=5,channel=1 t=21.3\nm,unit=5,channel=2 t=-10.0\n");
    refused(&options, &payload[..6], &["TOO_SHORT", "record 1", "bytes 5 to 7", "6 bytes"]);
    refused(&options, &hex("05 ff 01"), &["TOO_SHORT", "record 0"]);

    // To the end, each with a length of its own.
    let options = [
        ("fields", r#"{"battery":"u8@0"}"#),
        ("records", r#"{"at":"+0","fields":{"name":"text:u8@0","v":"u8@+0"}}"#),
    ];
    lines(
        &options,
        &hex("64 02 61 62 07 00 09"),
        "m battery=100.0\nm name=\"ab\",v=7.0\nm name=\"\",v=9.0\n",
    );
    refused(&options, &hex("64 02 61 62"), &["TOO_SHORT", "record 0", "records.fields.v", "byte 4"]);
    lines(&options, &hex("64"), "m battery=100.0\n");
    let endless = [("records", r#"{"fields":{"v":{"value":"u8@0","if":"u8@0 == 1"}}}"#)];
    refused(&endless, &[0; 2_000], &["TOO_MANY_RECORDS"]);
    let empty = [("records", r#"{"fields":{"v":"text:*@9"}}"#)];
    assert!(decode(&empty, &[1, 2]).is_err());
}

const SENSOR: &str =
    r#"{"id":"x1","at":"2023-11-14T22:13:20Z","t":{"in":21,"out":null},"list":[1,{"v":"7.5"}],"on":true}"#;

#[test]
fn values_of_json_by_pointer() {
    let options = [
        ("format", "json"),
        ("tags", r#"{"id":"/id"}"#),
        ("time", "/at"),
        (
            "fields",
            r#"{"t":"/t","second":{"value":"/list/1/v * 2","type":"float"},"first":{"value":"/list/0","type":"integer"},
                "on":"/on","gone":"/nowhere","if_x1":{"value":"/list/0","if":"/id == 'x1'"},"if_not":{"value":"/list/0","if":"/id == 'x2'"}}"#,
        ),
    ];
    lines(
        &options,
        SENSOR.as_bytes(),
        "m,id=x1 t_in=21.0,second=15.0,first=1i,on=true,if_x1=1.0 1700000000000000000\n",
    );
    refused(&options, b"{", &["BAD_JSON"]);
    refused(
        &[("format", "json"), ("fields", r#"{"a":"/id * 2"}"#)],
        SENSOR.as_bytes(),
        &["fields.a", "\"x1\"", "number"],
    );
    lines(&[("format", "json"), ("fields", r#"{"a":"/nowhere"}"#)], SENSOR.as_bytes(), "");
}

#[test]
fn records_of_json_are_lines() {
    let payload = br#"{"dev":"d","at":1700000000,"r":[{"o":1,"t":1},{"o":2,"t":{"a":2}},{"t":3}]}"#;
    let options = [
        ("format", "json"),
        ("tags", r#"{"dev":"/dev"}"#),
        ("time", r#"{"value":"/at","format":"unix_s"}"#),
        (
            "records",
            r#"{"at":"/r","time":{"value":"/o","format":"s","base":"2023-11-14T22:13:20Z"},"fields":{"t":"/t"}}"#,
        ),
    ];
    lines(
        &options,
        payload,
        "m,dev=d t=1.0 1700000001000000000\nm,dev=d t_a=2.0 1700000002000000000\nm,dev=d t=3.0 1700000000000000000\n",
    );
    let whole = [("format", "json"), ("records", r#"{"at":""}"#)];
    lines(&whole, br#"[{"a":1},7]"#, "m a=1.0\nm value=7.0\n");
    refused(&whole, br#"{"a":1}"#, &["records.at", "an object", "expected an array"]);
}

#[test]
fn a_document_without_fields_follows_the_rules_of_objects() {
    let expected = "m,id=x1 t_in=21.0,list_0=1.0,list_1_v=7.5,on=true 1700000000000000000\n";
    let rules = [("tags", "id"), ("time_field", "at"), ("strings", "parse")];
    lines(&[&[("format", "json")][..], &rules].concat(), SENSOR.as_bytes(), expected);
    // {"id": "x1", "t": {"in": 21.5}, 7: h'00ff', "n": -3, "u": undefined, "d": 4([-2, 27315])}, of indefinite length.
    let cbor = hex(
        "bf 62 6964 7f 61 78 61 31 ff 61 74 a1 62 696e f9 4d60 07 42 00ff 61 6e 22 61 75 f7 61 64 c4 82 21 19 6ab3 ff",
    );
    lines(&[("format", "cbor"), ("tags", "id")], &cbor, "m,id=x1 t_in=21.5,7=\"00ff\",n=-3.0,d=273.15\n");
    // {"id": "x1", "t": {"in": 21.5}, "n": -3, "b": h'01', "l": [1, true], "big": 2^63}
    let msgpack = hex(
        "86 a2 6964 a2 7831 a1 74 81 a2 696e cb 4035800000000000 a1 6e fd a1 62 c4 01 01 a1 6c 92 01 c3 \
         a3 626967 cf 8000000000000000",
    );
    lines(
        &[("format", "msgpack"), ("tags", "id")],
        &msgpack,
        "m,id=x1 t_in=21.5,n=-3.0,b=\"01\",l_0=1.0,l_1=true,big=9.223372036854776e+18\n",
    );
    for (format, payload, words) in [
        ("cbor", "a1 61 61", ["BAD_CBOR", "ends after 3 bytes"]),
        ("cbor", "01 02", ["NOT", "BAD_CBOR"]),
        ("cbor", "a0 02", ["BAD_CBOR", "1 bytes follow"]),
        ("cbor", "ff", ["BAD_CBOR", "byte 0"]),
        ("msgpack", "81 a1", ["BAD_MSGPACK", "ends after 2 bytes"]),
        ("msgpack", "c1", ["BAD_MSGPACK", "0xc1"]),
        ("msgpack", "80 00", ["BAD_MSGPACK", "1 bytes follow"]),
        ("msgpack", "93 01 02 03", ["NOT_AN_OBJECT", "an array"]),
        ("msgpack", "81 c0 01", ["BAD_MSGPACK", "a key"]),
    ] {
        let refusal = decode(&[("format", format)], &hex(payload)).unwrap_err().to_string();
        assert!(words.iter().all(|word| refusal.contains(word)) || words[0] == "NOT", "{payload}: {refusal}");
    }
}

#[test]
fn nesting_and_announced_lengths_take_nothing() {
    let deep = |byte: u8, end: u8| [vec![byte; 256], vec![end]].concat();
    for (format, payload) in [
        ("cbor", deep(0x81, 0x01)),
        ("cbor", deep(0x9f, 0x01)),
        ("cbor", deep(0xc1, 0x01)),
        ("msgpack", deep(0x91, 0x01)),
        ("json", deep(b'[', b'1')),
    ] {
        let refusal = decode(&[("format", format), ("fields", r#"{"a":"/a"}"#)], &payload).unwrap_err();
        assert!(["TOO_DEEP", "BAD_CBOR"].contains(&&*refusal.code), "{format}: {refusal}");
    }
    for (format, payload) in [
        ("cbor", "bb ffffffffffffffff"),
        ("cbor", "9b 00000000ffffffff 01"),
        ("cbor", "7b 7fffffffffffffff"),
        ("msgpack", "dd ffffffff"),
        ("msgpack", "df ffffffff"),
        ("msgpack", "db ffffffff 61"),
    ] {
        assert!(decode(&[("format", format)], &hex(payload)).is_err(), "{payload}");
    }
}

#[test]
fn rows_of_csv_are_lines() {
    let payload = b"time,temp (C),state,id\r\n1700000000,21.5,on,a\r\n1700000060,,off,b\r\n";
    let options = [
        ("format", "csv"),
        ("tags", r#"{"id":"id"}"#),
        ("time", r#"{"value":"time","format":"unix_s"}"#),
        ("fields", r#"{"temp":"'temp (C)' * 2","state":"state"}"#),
    ];
    lines(
        &options,
        payload,
        "m,id=a temp=43.0,state=true 1700000000000000000\nm,id=b state=false 1700000060000000000\n",
    );
    lines(
        &[("format", "csv"), ("header", "a,b"), ("delimiter", ";"), ("strings", "keep")],
        b"1;x\n2;y\n",
        "m a=\"1\",b=\"x\"\nm a=\"2\",b=\"y\"\n",
    );
    refused(&options, b"time,id\n1\n", &["BAD_CSV", "row 2"]);
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_key() {
    let field = |text: &str| vec![("fields", text.to_owned())];
    let options = |more: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        more.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
    };
    for (options, words) in [
        (options(&[]), &["options.fields", "u16be@6"][..]),
        (options(&[("feilds", "{}")]), &["feilds", "fields"]),
        (options(&[("format", "xml")]), &["options.format", "msgpack"]),
        (options(&[("fields", "{}")]), &["options.fields", "empty"]),
        (options(&[("fields", "x")]), &["options.fields", "table"]),
        (field(r#"{"t":"u16@2"}"#), &["options.fields.t", "u16@2", "u16be or u16le"]),
        (field(r#"{"t":"u8@2 *0.1"}"#), &["options.fields.t", "blanks"]),
        (field(r#"{"t":{"valu":"u8@2"}}"#), &["options.fields.t.valu", "value, type, unit"]),
        (field(r#"{"t":{"type":"float"}}"#), &["options.fields.t", "value is missing"]),
        (field(r#"{"t":{"value":"u8@2","type":"int"}}"#), &["options.fields.t.type", "integer"]),
        (field(r#"{"t":{"value":"u8@2 * 0.1","type":"integer"}}"#), &["options.fields.t.type", "float"]),
        (field(r#"{"t":{"value":"u8@2","none":"256"}}"#), &["options.fields.t.none", "256"]),
        (field(r#"{"t":{"value":"u8@2","if":"u8@0 = 1"}}"#), &["options.fields.t.if", "=="]),
        (field(r#"{"time":"u8@2"}"#), &["options.fields.time", "time_"]),
        (field(r#"{"t":"text:4@2 * 2"}"#), &["options.fields.t", "no number"]),
        (
            field(r#"{"a":{"value":"u8@0","unit":"b"},"a_b":"u8@1"}"#),
            &["options.fields.a_b", "options.fields.a"],
        ),
        (
            options(&[("fields", r#"{"t":"u16be@9"}"#), ("payload_bytes", "10")]),
            &["options.fields.t", "byte 11", "10 bytes"],
        ),
        (options(&[("fields", r#"{"t":"u8@0"}"#), ("payload_bytes", "x")]), &["options.payload_bytes", "10"]),
        (options(&[("fields", r#"{"t":"u8@0"}"#), ("only", "x")]), &["options.only"]),
        (options(&[("fields", r#"{"t":"u8@0"}"#), ("header", "x")]), &["options.header", "Csv"]),
        (
            options(&[("records", r#"{"size":2,"fields":{"t":"u16be@1"}}"#)]),
            &["options.records.fields.t", "byte 3", "2 bytes"],
        ),
        (options(&[("records", r#"{"size":2}"#)]), &["options.records", "fields"]),
        (options(&[("records", r#"{"step":2,"fields":{"t":"u8@1"}}"#)]), &["options.records.step", "size"]),
        (options(&[("records", r#"{"count":"x","fields":{"t":"u8@1"}}"#)]), &["options.records.count"]),
        (options(&[("format", "json"), ("fields", r#"{"t":"a/b"}"#)]), &["options.fields.t", "pointer"]),
        (
            options(&[("format", "csv"), ("header", "a,b"), ("fields", r#"{"t":"c"}"#)]),
            &["options.fields.t", "\"c\"", "a, b"],
        ),
        (options(&[("format", "csv"), ("records", r#"{"at":"x"}"#)]), &["options.records"]),
        (options(&[("format", "json"), ("records", "{}")]), &["options.records", "pointer"]),
    ] {
        let pairs: Vec<(&str, &str)> = options.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let error = mapping(&pairs).expect_err(&format!("{pairs:?}"));
        assert!(words.iter().all(|word| error.contains(word)), "{pairs:?}: {error}");
    }
}

#[test]
fn a_time_that_is_missing_is_reported_or_refused() {
    let _ = ignored::take();
    let fields = ("fields", r#"{"v":"/v"}"#);
    let options = [("format", "json"), fields, ("time", "/at")];
    lines(&options, br#"{"v":1}"#, "m v=1.0\n");
    assert_eq!(ignored::take().unwrap(), "ignored: time=1\ntime (time)");
    let strict = [("format", "json"), fields, ("time", r#"{"value":"/at","missing":"refuse"}"#)];
    refused(&strict, br#"{"v":1}"#, &["BAD_TIME", "time is missing"]);
    refused(&options, br#"{"v":1,"at":"x"}"#, &["BAD_TIME", "time is x"]);
}
