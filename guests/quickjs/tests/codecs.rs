//! Codecs as makers write them, in the engine as it runs in the gateway but for the sandbox around it.

use js::Js;
use tidegate_guest::testing::{self, BenchDecoder};
use tidegate_guest::{Refusal, Route};

fn route(script: &str, options: &[(&str, &str)]) -> Route {
    let mut all = vec![("script", script)];
    all.extend_from_slice(options);
    Route { message_type: "up".into(), ..testing::route(&all) }
}

fn decode(script: &str, payload: &[u8]) -> Result<String, Refusal> {
    testing::decode::<Js>(&route(script, &[]), payload)
}

/// Lines of an expression, which is the data.
fn data(expression: &str) -> String {
    decode(&format!("function decodeUplink(input) {{ return {{ data: {expression} }}; }}"), &[1, 2, 255])
        .unwrap_or_else(|refusal| panic!("{expression}: {refusal}"))
}

#[test]
fn each_of_the_three_functions_is_called_as_its_servers_call_it() {
    let scripts = [
        "function decodeUplink(input) { return { data: { port: input.fPort, first: input.bytes[0], all: input.bytes.length } }; }",
        "function Decoder(bytes, port) { return { port: port, first: bytes[0], all: bytes.length }; }",
        "function Decode(fPort, bytes) { return { port: fPort, first: bytes[0], all: bytes.length }; }",
        "const decodeUplink = ({ bytes, fPort }) => ({ data: { port: fPort, first: bytes[0], all: bytes.length } });",
        "exports.decodeUplink = function (input) { return { data: { port: input.fPort, first: input.bytes[0], all: input.bytes.length } }; };",
        "module.exports = { decodeUplink: (i) => ({ data: { port: i.fPort, first: i.bytes[0], all: i.bytes.length } }) };",
    ];
    for script in scripts {
        assert_eq!(decode(script, &[7, 8]).unwrap(), "up port=1.0,first=7.0,all=2.0\n", "{script}");
        let other = testing::decode::<Js>(&route(script, &[("port", "85")]), &[7, 8]).unwrap();
        assert_eq!(other, "up port=85.0,first=7.0,all=2.0\n", "{script}");
    }
    // Some servers take the data without the object around it.
    assert_eq!(decode("function decodeUplink() { return { temp: 5 }; }", &[]).unwrap(), "up temp=5.0\n");
    // The standard's function goes before the older ones.
    let all = "function Decode(p, b) { return { old: 1 }; } function Decoder(b, p) { return { old: 2 }; } \
               function decodeUplink(i) { return { data: { new: 1 } }; }";
    assert_eq!(decode(all, &[]).unwrap(), "up new=1.0\n");
}

#[test]
fn the_port_of_a_network_server_goes_before_that_of_the_route() {
    let route = route("function Decoder(bytes, port) { return { port: port }; }", &[("port", "9")]);
    let decode = |port: &str| {
        let attributes = [("f_port".to_owned(), port.to_owned())].into();
        let context = testing::Context { attributes, ..testing::Context::default() };
        testing::decode_with::<Js>(&route, &[], testing::RECEIVED_NS, &context).unwrap()
    };
    assert_eq!(decode("85"), "up port=85.0\n");
    assert_eq!(decode("no port"), "up port=9.0\n");
}

#[test]
fn the_input_is_what_the_standard_says() {
    assert_eq!(data("{ a: Array.isArray(input.bytes), b: input.bytes[2] }"), "up a=true,b=255.0\n");
    assert_eq!(
        data("{ a: input.recvTime instanceof Date, b: input.recvTime.getTime() }"),
        "up a=true,b=1700000000000.0\n"
    );
    let script = "function decodeUplink({ variables }) { return { data: { h: Number(variables.height), u: variables.unit } }; }";
    let route = route(script, &[("variables", "{\"height\": 120, \"unit\": \"cm\"}")]);
    assert_eq!(testing::decode::<Js>(&route, &[]).unwrap(), "up h=120.0,u=\"cm\"\n");
}

#[test]
fn what_is_no_number_of_a_database_makes_no_field() {
    assert_eq!(
        data("{ a: NaN, b: 1 / 0, c: null, d: undefined, e: () => 1, f: Symbol(), g: [], h: {}, ok: true }"),
        "up ok=true\n"
    );
    assert_eq!(data("{}"), "");
    assert_eq!(data("null"), "");
    assert_eq!(
        data("{ a: new Date(0), b: 12345678901n, c: -0 }"),
        "up a=\"1970-01-01T00:00:00.000Z\",b=12345678901.0,c=-0.0\n"
    );
}

#[test]
fn errors_refuse_and_warnings_do_not() {
    let refusal =
        decode("function decodeUplink() { return { errors: ['bad frame', 'short'] }; }", &[]).unwrap_err();
    assert_eq!((&*refusal.code, &*refusal.detail), ("CODEC_ERRORS", "bad frame; short"));
    let refusal =
        decode("function decodeUplink() { return { data: { a: 1 }, errors: ['x'] }; }", &[]).unwrap_err();
    assert_eq!(refusal.code, "CODEC_ERRORS");
    let lines = decode(
        "function decodeUplink() { return { data: { a: 1 }, errors: [], warnings: ['low battery'] }; }",
        &[],
    );
    assert_eq!(lines.unwrap(), "up a=1.0\n");
}

#[test]
fn what_is_thrown_names_line_and_column() {
    let refusal = decode("function read(b) {\n  return b.x.y;\n}\nfunction decodeUplink(i) {\n  return { data: { a: read(i) } };\n}", &[])
        .unwrap_err();
    assert_eq!(refusal.code, "CODEC_THREW");
    assert!(refusal.detail.contains("decodeUplink threw TypeError: "), "{refusal}");
    assert!(refusal.detail.contains(", at line 2, column "), "{refusal}");
    assert!(refusal.detail.contains(" in read, called at line 5, column "), "{refusal}");
    let refusal = decode("function decodeUplink() { throw 'no port'; }", &[]).unwrap_err();
    assert_eq!(refusal.detail, "decodeUplink threw no port");
    let refusal = decode("function decodeUplink() { throw { toString() { throw 1; } }; }", &[]).unwrap_err();
    assert!(refusal.detail.contains("without a text"), "{refusal}");
    let error = |script: &str| decode(script, &[]).unwrap_err().detail;
    let syntax = error("function decodeUplink(i) {\n  return { data: ;\n}");
    assert!(syntax.contains("SyntaxError") && syntax.contains("line 2, column "), "{syntax}");
    let top = error("var a = 1;\nmissing();\nfunction decodeUplink() {}");
    assert!(top.contains("ReferenceError") && top.contains("line 2, column 1"), "{top}");
}

#[test]
fn an_answer_that_is_none_is_refused_with_what_would_be_one() {
    for (body, expected) in [
        ("return;", "answered nothing"),
        ("return 5;", "answered no object"),
        ("return [1];", "answered an array"),
        ("return Promise.resolve({ data: { a: 1 } });", "answered a promise"),
        ("const a = {}; a.a = a; return { data: a };", "more than 32 levels"),
        ("return { data: new Array(5000).fill(1) };", "more than 4096 values"),
        ("return { data: new Array(1e9) };", "more than 4096 values"),
    ] {
        let refusal = decode(&format!("function decodeUplink() {{ {body} }}"), &[]).unwrap_err();
        assert_eq!(refusal.code, "CODEC_ANSWER", "{body}");
        assert!(refusal.detail.contains(expected), "{body}: {refusal}");
    }
}

#[test]
fn a_script_that_cannot_serve_is_refused_with_the_reason() {
    let error = |script: &str, options: &[(&str, &str)]| {
        testing::decode::<Js>(&route(script, options), &[]).unwrap_err().detail
    };
    assert!(error("", &[]).contains("there is no script"));
    assert!(error("var x = 1;", &[]).contains("decodeUplink(input), Decoder(bytes, port) or"));
    let good = "function decodeUplink() { return { data: {} }; }";
    assert!(error(good, &[("prot", "1")]).contains("script_bytes_max, port"));
    assert!(error(good, &[("variables", "[1]")]).contains("a table of texts"));
    assert!(error(good, &[("port", "256")]).contains("0 to 255"));
    assert!(error(good, &[("output", "text")]).contains("decoded, normalized or json"));
    assert!(error(good, &[("output", "normalized")]).contains("normalizeUplink"));
    let long = format!("{good}//{}", "x".repeat(65_536));
    assert!(error(&long, &[]).contains("expected at most 65536"));
    assert!(testing::decode::<Js>(&route(&long, &[("script_bytes_max", "70000")]), &[]).is_ok());
    assert!(error(good, &[("script_bytes_max", "1000000000")]).contains("1 to 524288"));
}

#[test]
fn nothing_of_a_message_reaches_the_next() {
    let script = "
        var count = 0, seen = {}; const list = []; let late;
        function decodeUplink(input) {
            count += 1; list.push(count); late = late || input.bytes[0];
            seen['k' + input.bytes[0]] = 1; globalThis.made = (globalThis.made || 0) + 1;
            var fresh = [Array.prototype.mine === undefined, Math.max(1, 2) === 2, typeof console.log === 'function',
                input.variables.n === '1', JSON.stringify({}) === '{}'].every(Boolean);
            Array.prototype.mine = 1; Math.max = function () { return 0; }; console.log = null; console = undefined;
            input.variables.n = 'changed'; JSON.stringify = null; Object.prototype.evil = 3; delete Date.prototype.toJSON;
            Object.freeze(list); /(x)(y)/.exec('xy'); decodeUplink = null;
            return { data: { count: count, list: list.length, late: late, seen: Object.keys(seen).length, made: made,
                fresh: fresh, last: RegExp.$1 === undefined || RegExp.$1 === '' } };
        }";
    let mut harness = BenchDecoder::<Js>::new(&route(script, &[("variables", "{\"n\": \"1\"}")])).unwrap();
    let first = String::from_utf8(harness.decode_batch(&[&[9]]).to_vec()).unwrap();
    assert!(first.starts_with("up count=1.0,list=1.0,late=9.0,seen=1.0,made=1.0,fresh=true"), "{first}");
    for byte in 0..20_u8 {
        let lines = String::from_utf8(harness.decode_batch(&[&[byte + 1]]).to_vec()).unwrap();
        assert_eq!(lines, first.replace("late=9.0", &format!("late={}.0", byte + 1)));
    }
}

#[test]
fn bombs_are_refused_and_the_next_message_is_right() {
    let script = "
        function deep(n) { return [n, n + 1, n + 2].map(function (m) { return deep(m + 1); }); }
        function decodeUplink(input) {
            switch (input.bytes[0]) {
                case 0: return { data: { fine: 1 } };
                case 1: { var all = []; for (;;) all.push(new Array(1000).fill(7)); }
                case 2: return { data: { a: new Array(1e7).fill(1).length } };
                case 3: { var text = 'x'; for (;;) text += text; }
                case 4: return { data: { a: new Uint8Array(1e9).length } };
                case 5: return { data: { a: 'ab'.repeat(1e9) } };
                case 6: throw new Error('x'.repeat(1e6));
            }
        }";
    let mut harness = BenchDecoder::<Js>::new(&route(script, &[])).unwrap();
    for round in 0..2 {
        for bomb in 1..=6 {
            let lines = harness.decode_batch(&[&[0], &[bomb], &[0]]).to_vec();
            assert_eq!(
                String::from_utf8(lines).unwrap(),
                "up fine=1.0\nup fine=1.0\n",
                "round {round}, bomb {bomb}"
            );
        }
    }
    let refusal = decode(script, &[1]).unwrap_err();
    assert!(refusal.detail.contains("InternalError: out of memory"), "{refusal}");
    let refusal = decode("var all = []; for (;;) all.push(new Array(1000).fill(7));", &[]).unwrap_err();
    assert!(refusal.detail.contains("the script does not start: InternalError: out of memory"), "{refusal}");
}

#[test]
fn garbage_with_cycles_is_collected() {
    let script = "function decodeUplink() {
        for (var n = 0; n < 100000; n++) { var a = { n: n }; a.self = a; }
        return { data: { n: n } };
    }";
    assert_eq!(decode(script, &[]).unwrap(), "up n=100000.0\n");
}

#[test]
fn random_numbers_are_those_of_the_message() {
    let script = "var at_load = Math.random();
        function decodeUplink() { return { data: { a: Math.random(), b: Math.random(), c: at_load } }; }";
    let mut harness = BenchDecoder::<Js>::new(&route(script, &[])).unwrap();
    let mut line = |byte: u8| String::from_utf8(harness.decode_batch(&[&[byte]]).to_vec()).unwrap();
    let (one, other) = (line(1), line(2));
    assert_ne!(one, other);
    assert_eq!((line(1), line(2)), (one.clone(), other));
    let values: Vec<f64> = one[3..].trim().split(',').map(|field| field[2..].parse().unwrap()).collect();
    assert!(values.iter().all(|value| (0.0..1.0).contains(value)) && values[0] != values[1], "{values:?}");
}

#[test]
fn buffer_atob_and_btoa_are_there() {
    for (expression, expected) in [
        ("Buffer.from(input.bytes).toString('hex')", "\"0102ff\""),
        ("Buffer.from('0102', 'hex').readUInt16BE(0)", "258.0"),
        ("Buffer.from(input.bytes).readIntBE(0, 3)", "66303.0"),
        ("new Buffer('héé', 'utf8').length", "5.0"),
        ("Buffer.concat([Buffer.from([65]), Buffer.from('B')]).toString()", "\"AB\""),
        ("Buffer.from([0x41, 0xc8, 0, 0]).readFloatBE(0)", "25.0"),
        ("Buffer.isBuffer(Buffer.alloc(2, 1)) && Buffer.alloc(2, 1)[1] === 1", "true"),
        ("atob('aGVsbG8=')", "\"hello\""),
        ("btoa('hello')", "\"aGVsbG8=\""),
    ] {
        assert_eq!(data(&format!("{{ v: {expression} }}")), format!("up v={expected}\n"), "{expression}");
    }
    // Where a script does without them, they are not there: each instance is smaller.
    assert_eq!(data("{ v: typeof globalThis['Buf' + 'fer'] }"), "up v=\"undefined\"\n");
}

#[test]
fn normalized_values_and_the_whole_answer_can_be_had() {
    let script = "function decodeUplink() { return { data: { t: 215 }, warnings: ['w'] }; }
        function normalizeUplink(input) { return { data: { air: { temperature: input.data.t / 10 } }, warnings: ['n'] }; }";
    let lines = |output| testing::decode::<Js>(&route(script, &[("output", output)]), &[]).unwrap();
    assert_eq!(lines("decoded"), "up t=215.0\n");
    assert_eq!(lines("normalized"), "up air_temperature=21.5\n");
    assert_eq!(
        lines("json"),
        "up answer=\"{\\\"data\\\":{\\\"t\\\":215.0},\\\"normalized\\\":{\\\"air\\\":{\\\"temperature\\\":21.5}},\
         \\\"warnings\\\":[\\\"w\\\",\\\"n\\\"]}\"\n"
    );
}

#[test]
fn data_become_lines_by_the_rules_for_all_objects() {
    let lines = |data: &str, options: &[(&str, &str)]| {
        let script = format!("function decodeUplink() {{ return {{ data: {data} }}; }}");
        testing::decode::<Js>(&route(&script, options), &[])
    };
    let data = "{ model: 'x1', gps: { lat: 1.5, list: [1, 2] }, state: 'on', time: 5 }";
    assert_eq!(
        lines(data, &[]).unwrap(),
        "up model=\"x1\",gps_lat=1.5,gps_list_0=1.0,gps_list_1=2.0,state=\"on\",time_=5.0\n"
    );
    assert_eq!(
        lines(data, &[("tags", "model"), ("only", "gps_lat"), ("measurement", "m")]).unwrap(),
        "m,model=x1 gps_lat=1.5\n"
    );
    let history = "[{ t: 1, v: 2.5 }, { t: 2, v: 3.5 }]";
    let time = [("time_field", "t"), ("time_format", "unix_s")];
    assert_eq!(lines(history, &time).unwrap(), "up v=2.5 1000000000\nup v=3.5 2000000000\n");
    for no_object in ["5", "'x'", "[[1]]", "true"] {
        let refusal = lines(no_object, &[]).unwrap_err();
        assert!(refusal.to_string().starts_with("CODEC_ANSWER: data is neither an object nor"), "{refusal}");
    }
}

/// The option for a script in several files.
fn files(entry: &str, files: &[(&str, &str)]) -> String {
    let quoted = |text: &str| format!("{text:?}");
    let files: Vec<_> =
        files.iter().map(|(path, text)| format!("{}:{}", quoted(path), quoted(text))).collect();
    format!("{{\"entry\":{},\"files\":{{{}}}}}", quoted(entry), files.join(","))
}

#[test]
fn a_script_in_several_files_requires_those_of_its_folder() {
    let script = files(
        "driver/index.js",
        &[
            (
                "driver/index.js",
                "let lib = require('../lib/read'); const { unit } = require('./units.json'); exports.decodeUplink = (i) => ({ data: lib.read(i.bytes, unit) });",
            ),
            ("driver/units.json", "{ \"unit\": \"C\" }"),
            (
                "lib/read.js",
                "const back = require('./index.js'); module.exports = { read: (b, u) => ({ t: b[0] * back.half, u: u }) };",
            ),
            (
                "lib/index.js",
                "exports.half = 0.5; exports.self = require('../lib') === module.exports; exports.cycle = require('./read');",
            ),
        ],
    );
    assert_eq!(decode(&script, &[42]).unwrap(), "up t=21.0,u=\"C\"\n");
    // Functions at the top of the entry, as of a script in one file.
    let script = files(
        "main.js",
        &[
            (
                "main.js",
                "var a = require('./a'); function decodeUplink(i) { a.count = (a.count || 0) + 1; return { data: { n: a.count } }; }",
            ),
            ("a.js", ""),
        ],
    );
    let route = route(&script, &[]);
    let mut decoder = BenchDecoder::<Js>::new(&route).unwrap();
    assert_eq!(decoder.decode_batch(&[&[1], &[2]]), b"up n=1.0\nup n=1.0\n", "nothing is left of a message");
}

#[test]
fn there_is_no_way_out_of_the_files() {
    for (request, words) in [
        ("'../../etc/passwd'", "leads out of the script's folder"),
        ("'/etc/passwd'", "begins with ./ or ../"),
        ("'fs'", "begins with ./ or ../"),
        ("'./b'", "no such file"),
        ("'./__proto__'", "no such file"),
        ("5", "begins with ./ or ../"),
    ] {
        let script = files(
            "d/index.js",
            &[("d/index.js", &format!("require({request}); function decodeUplink() {{}}")), ("a.js", "")],
        );
        let refusal = decode(&script, &[]).unwrap_err();
        assert!(refusal.detail.contains(words), "{request}: {refusal}");
    }
    // At the message, too, and the places are named with their files.
    let script = files(
        "index.js",
        &[
            ("index.js", "const a = require('./lib/a.js'); exports.decodeUplink = (i) => a.read(i);"),
            ("lib/a.js", "\n  exports.read = function read(i) { return require('./none'); };"),
        ],
    );
    let detail = decode(&script, &[]).unwrap_err().detail;
    assert!(detail.contains("in lib/a.js") && detail.contains("lib/a.js, line 2"), "{detail}");
}

#[test]
fn modules_import_those_of_their_folder() {
    let script = files(
        "d/index.js",
        &[
            (
                "d/index.js",
                "import { read } from '../lib/read.js';\nimport half from './half';\nexport function decodeUplink(i) { return { data: { t: read(i.bytes) * half } }; }",
            ),
            ("d/half.js", "export default 0.5;"),
            ("lib/read.js", "export const read = (b) => b[0];"),
        ],
    );
    assert_eq!(decode(&script, &[42]).unwrap(), "up t=21.0\n");
    assert_eq!(
        decode("export function decodeUplink(i) { return { data: { n: i.bytes[0] } }; }", &[3]).unwrap(),
        "up n=3.0\n"
    );
    for (import, words) in
        [("'../../x.js'", "no such file"), ("'os'", "no such file"), ("'./throws.js'", "of its own")]
    {
        let script = files(
            "d/index.js",
            &[
                ("d/index.js", &format!("import {import};\nexport function decodeUplink() {{}}")),
                ("d/throws.js", "throw new Error('of its own');"),
            ],
        );
        let refusal = decode(&script, &[]).unwrap_err();
        assert!(refusal.detail.contains(words), "{import}: {refusal}");
    }
}
