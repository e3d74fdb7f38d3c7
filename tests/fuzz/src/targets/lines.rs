//! Lines of a guest: what the line check accepts, a second parser reads as the same lines.
//!
//! Names that end in a backslash, which the second parser refuses, are left to the tests of the line check.

use influxdb_line_protocol::{ParsedLine, parse_lines};

use tidegate_core::line_protocol::{
    Dialect, LineChecker, LineContext, LineFaultKind, LineRules, TenantTag, split_checked,
};

use crate::choices::Choices;

const RECEIVED_NS: i64 = 1_780_315_196_370_000_000;

fn rules() -> LineRules {
    LineRules {
        table_prefix: (*b"a_").into(),
        tenant_tag: Some(TenantTag { key: (*b"tenant").into(), spliced: (*b",tenant=acme").into() }),
        past_max_ns: Some(1_000_000_000),
        ..LineRules::default()
    }
}

/// The lines of a text as the second parser reads them. `None`: one that it refuses.
fn parsed(text: &str) -> Vec<Option<ParsedLine<'_>>> {
    let line = |line: Result<_, influxdb_line_protocol::Error>| match line {
        Ok(line) => Some(line),
        Err(error) => {
            assert!(error.to_string().contains("backslash"), "{text:?}: {error}");
            None
        }
    };
    parse_lines(text).map(line).collect()
}

/// Checks that each line is whole and has the identity, once.
fn check_complete(text: &str, out: &[u8], count: u32, with_tenant: bool) {
    let out = std::str::from_utf8(out).expect("accepted lines are UTF-8");
    let lines = parsed(out);
    assert_eq!(lines.len(), count as usize, "{text:?} became {out:?}");
    assert_eq!(split_checked(out.as_bytes()).count(), count as usize, "{text:?} became {out:?}");
    for line in lines.into_iter().flatten() {
        let tags = line.series.tag_set.as_ref().expect("the identity is there");
        let values = |key: &str| {
            tags.iter()
                .filter(|(name, _)| *name == key)
                .map(|(_, value)| value.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(values("device_id"), ["d"], "{text:?} became {out:?}");
        if with_tenant {
            assert_eq!(values("tenant"), ["acme"], "{text:?} became {out:?}");
        }
        assert!(line.timestamp.is_some() && !line.field_set.is_empty(), "{text:?} became {out:?}");
        let fields = line.field_set.iter().map(|(name, _)| name.to_string());
        let mut names: Vec<String> = tags.iter().map(|(name, _)| name.to_string()).chain(fields).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "a key twice: {text:?} became {out:?}");
        assert!(!with_tenant || line.series.measurement.to_string().starts_with("a_"), "{out:?}");
    }
}

/// Checks that a line is the guest's, but for the identity and a time that was not there.
fn check_unchanged(text: &str, out: &[u8]) {
    let out = std::str::from_utf8(out).expect("accepted lines are UTF-8");
    let (before, after) = (parse_lines(text).collect::<Vec<_>>(), parsed(out));
    if before.len() != after.len() {
        // A carriage return alone in a line, and blanks, are read otherwise.
        return;
    }
    for (before, after) in before.into_iter().zip(after) {
        let (Ok(before), Some(after)) = (before, after) else { continue };
        assert_eq!(before.series.measurement.to_string(), after.series.measurement.to_string(), "{text:?}");
        assert_eq!(before.field_set, after.field_set, "{text:?}");
        assert!(before.timestamp.is_none() || before.timestamp == after.timestamp, "{text:?}");
        let of = |line: &ParsedLine<'_>| {
            let tags = line.series.tag_set.iter().flatten();
            let own = tags.map(|(name, value)| (name.to_string(), value.to_string()));
            own.filter(|(name, _)| name != "device_id").collect::<Vec<_>>()
        };
        assert_eq!(of(&before), of(&after), "{text:?}");
    }
}

pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = choices.u8();
    let dialect = if choice & 1 == 0 { Dialect::V3 } else { Dialect::V1V2 };
    let rules = rules();
    let with_rules = choice & 2 != 0;
    let context = |dialect| LineContext {
        identity_tags: b",device_id=d",
        received_ns: RECEIVED_NS,
        dialect,
        rules: with_rules.then_some(&rules),
    };
    let text = choices.rest;
    let shown = String::from_utf8_lossy(text);
    let mut checker = LineChecker::default();
    let mut out = b"before\n".to_vec();
    let verdict = checker.check(text, context(dialect), &mut out);
    let out = out.split_off(b"before\n".len());

    let (mut kept, mut faults) = (Vec::new(), Vec::new());
    let rest = checker.check_keeping_rest(text, context(dialect), &mut kept, &mut faults);
    match (&verdict, &rest) {
        (Ok(count), Ok(_)) => {
            assert_eq!((&kept, rest.as_ref(), faults.len()), (&out, Ok(count), 0), "{shown:?}");
            check_complete(&shown, &out, *count, with_rules);
            if !with_rules {
                check_unchanged(&shown, &out);
            }
            if dialect == Dialect::V1V2 {
                let mut newer = Vec::new();
                assert_eq!(checker.check(text, context(Dialect::V3), &mut newer), Ok(*count), "{shown:?}");
                assert_eq!(newer, out, "{shown:?}");
            }
        }
        (Err(fault), Ok(count)) => {
            assert!(out.is_empty(), "a refused message leaves nothing behind: {shown:?}");
            assert_eq!(faults.first(), Some(fault), "{shown:?}");
            check_complete(&shown, &kept, *count, with_rules);
        }
        (Err(fault), Err(rest)) => {
            let of_all = [LineFaultKind::NotUtf8, LineFaultKind::TooManyLines];
            assert!(of_all.contains(&rest.kind), "{fault:?} {rest:?}");
            assert!(kept.is_empty());
        }
        (Ok(_), Err(rest)) => panic!("{shown:?}: {rest:?}"),
    }
}
