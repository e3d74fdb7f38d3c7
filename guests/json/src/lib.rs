//! Any JSON object to lines, by the rules of `tidegate-objects`: for devices that speak no envelope.
//!
//! Nested keys are joined by `_`, elements of arrays by their index: `{"a": {"b": [1, 2]}}` becomes
//! `a_b_0` and `a_b_1`. Null makes no field. Of a key that stands twice, the message is refused: two
//! values under one name cannot both be right. The README has the options.

mod walk;

use tidegate_guest::json::Reader;
use tidegate_guest::{Decoder, Lines, Message, Refusal, Route};
use tidegate_objects::{ObjectRules, Objects};

#[derive(Debug)]
pub struct Json {
    rules: ObjectRules,
    objects: Objects,
}

impl Decoder for Json {
    fn configure(route: &Route) -> Result<Self, String> {
        route.allow_options(&ObjectRules::OPTIONS)?;
        Ok(Self { rules: ObjectRules::read(route)?, objects: Objects::default() })
    }

    fn decode(&mut self, message: &Message<'_>, lines: &mut Lines) -> Result<(), Refusal> {
        let mut walk = self.objects.walk(&self.rules);
        match message.tape() {
            Some(tape) => walk::tape(&mut walk, tape.value())?,
            None => {
                let mut reader = Reader::new(message.payload);
                walk::text(&mut walk, &mut reader)?;
                reader.end()?;
            }
        }
        walk.finish(lines)
    }
}

tidegate_guest::export!(Json);

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_guest::ignored;
    use tidegate_objects::FIELDS_MAX;

    fn route(options: &[(&str, &str)]) -> Route {
        Route { message_type: "sensor".into(), ..tidegate_guest::testing::route(options) }
    }

    fn decode(options: &[(&str, &str)], payload: &str) -> Result<String, Refusal> {
        tidegate_guest::testing::decode::<Json>(&route(options), payload.as_bytes())
    }

    #[test]
    fn fixtures() {
        let options =
            [("tags", "unit"), ("time_field", "at"), ("time_format", "unix_s"), ("ignore", "debug")];
        tidegate_guest::testing::fixtures::<Json>(
            &route(&options),
            concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures"),
        );
    }

    #[test]
    fn integers_are_floats_unless_they_are_kept() {
        assert_eq!(decode(&[], r#"{"n":21,"x":1.5}"#).unwrap(), "sensor n=21.0,x=1.5\n");
        assert_eq!(decode(&[("integers", "keep")], r#"{"n":21}"#).unwrap(), "sensor n=21i\n");
    }

    #[test]
    fn an_integer_that_a_float_cannot_hold_is_refused_by_name_unless_it_was_asked_for() {
        let payload = r#"{"n":9007199254740993}"#;
        for options in [&[][..], &[("integers", "auto")]] {
            let refusal = decode(options, payload).unwrap_err();
            assert_eq!(refusal.code, "BAD_NUMBER");
            assert!(
                refusal.detail.contains("n is 9007199254740993") && refusal.detail.contains("keep"),
                "{refusal}"
            );
        }
        assert_eq!(decode(&[("integers", "keep")], payload).unwrap(), "sensor n=9007199254740993i\n");
        assert_eq!(decode(&[("integers", "float")], payload).unwrap(), "sensor n=9007199254740992.0\n");
        assert_eq!(decode(&[], r#"{"n":9007199254740992}"#).unwrap(), "sensor n=9007199254740992.0\n");
    }

    #[test]
    fn times_are_exact_to_the_nanosecond() {
        let time = |format: &str, number: &str| {
            let options = [("time_field", "at"), ("time_format", format)];
            let line = decode(&options, &format!(r#"{{"at":{number},"ok":true}}"#)).unwrap();
            line.trim_end().rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!(time("unix_s", "1780315196.37"), "1780315196370000000");
        assert_eq!(time("unix_s", "1780315196.123456789"), "1780315196123456789");
        assert_eq!(time("unix_ms", "1780315196370.000001"), "1780315196370000001");
        assert_eq!(time("unix_us", "1780315196370000.5"), "1780315196370000500");
        assert_eq!(time("unix_ns", "1780315196370000001"), "1780315196370000001");
        assert_eq!(time("unix_s", "1780315196"), "1780315196000000000");
    }

    #[test]
    fn a_missing_time_is_reported_or_refused() {
        let time = [("time_field", "at"), ("time_format", "rfc3339")];
        let _ = ignored::take();
        for payload in [r#"{"v":1}"#, r#"{"v":1,"at":null}"#] {
            assert_eq!(decode(&time, payload).unwrap(), "sensor v=1.0\n");
            assert_eq!(ignored::take().unwrap(), "ignored: time=1\nat (time)");
            let refusal = decode(&[&time[..], &[("time_missing", "refuse")]].concat(), payload).unwrap_err();
            assert!(refusal.to_string().starts_with("BAD_TIME: at is missing or null"), "{refusal}");
        }
        decode(&time, r#"{"v":1,"at":"2026-11-23T08:59:58Z"}"#).unwrap();
        assert_eq!(ignored::take(), None);
    }

    #[test]
    fn a_time_without_a_zone_is_in_the_zone_of_the_route() {
        let line = |zone: &str, at: &str| {
            let options = [("time_field", "at"), ("time_zone", zone)];
            decode(&options, &format!(r#"{{"v":1,"at":"{at}"}}"#))
        };
        let expected = "sensor v=1.0 1795424398000000000\n";
        assert_eq!(line("+02:00", "2026-11-23T10:59:58").unwrap(), expected);
        assert_eq!(line("+02:00", "2026-11-23T08:59:58Z").unwrap(), expected);
        assert_eq!(line("UTC", "2026-11-23T08:59:58").unwrap(), expected);
        assert!(line("Berlin", "2026-11-23T08:59:58").unwrap_err().detail.contains("+02:00"));
        assert!(decode(&[("time_zone", "UTC")], "{}").unwrap_err().detail.contains("time_field"));
    }

    #[test]
    fn fields_have_a_ceiling_and_so_have_their_names() {
        let object = |fields: usize| {
            let members: Vec<_> = (0..fields).map(|n| format!("\"key_{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(decode(&[], &object(FIELDS_MAX)).unwrap().matches('=').count(), FIELDS_MAX);
        let refusal = decode(&[], &object(FIELDS_MAX + 1)).unwrap_err();
        assert_eq!(refusal.code, "TOO_MANY_FIELDS");
        assert!(refusal.detail.contains("4096"), "{refusal}");
        // Names that are joined again and again.
        let long = format!("{{\"{}\":{}}}", "x".repeat(2_000), object(200));
        assert_eq!(decode(&[], &long).unwrap_err().code, "TOO_MANY_FIELDS");
    }

    #[test]
    fn an_object_without_fields_makes_no_line() {
        assert_eq!(decode(&[], r#"{"a":null,"b":{}}"#).unwrap(), "");
    }

    #[test]
    fn options_that_make_no_sense_are_refused_with_what_would() {
        let refusal = |options: &[(&str, &str)]| decode(options, "{}").unwrap_err().detail;
        assert!(refusal(&[("measurment", "x")]).contains("measurement"));
        assert!(refusal(&[("integers", "int")]).contains("auto, float or keep"));
        assert!(refusal(&[("time_format", "unix_s")]).contains("time_field"));
        assert!(refusal(&[("time_field", "t"), ("time_format", "epoch")]).contains("unix_ms"));
    }

    #[test]
    fn credentials_are_no_fields() {
        let payload =
            r#"{"site_id":"s","provision_token":"secret","device_id":"d","v":{"site_id":"x","n":1}}"#;
        let lines = decode(&[("tags", "")], payload).unwrap();
        assert_eq!(lines, "sensor v_site_id=\"x\",v_n=1.0\n");
    }

    #[test]
    fn readings_of_an_array_are_lines_with_their_own_time() {
        let options = [
            ("explode", "readings"),
            ("time_field", "readings_at"),
            ("time_format", "unix_s"),
            ("tags", "unit,readings_port"),
        ];
        let payload = r#"{"unit":"u1","battery":3.5,"time":"x","readings":[{"at":1700000000,"t":21,"port":1},
            {"at":1700000060,"t":21.5,"port":2}]}"#;
        let _ = ignored::take();
        assert_eq!(
            decode(&options, payload).unwrap(),
            "sensor,unit=u1 battery=3.5,time_=\"x\"\n\
             sensor,unit=u1,readings_port=1 readings_t=21.0 1700000000000000000\n\
             sensor,unit=u1,readings_port=2 readings_t=21.5 1700000060000000000\n"
        );
        assert_eq!(ignored::take().unwrap(), "ignored: time=1\nreadings_at (time)");
    }

    #[test]
    fn texts_are_parsed_and_types_are_pinned_where_the_route_says_so() {
        let payload = r#"{"t":"21.5","n":"7","on":"off","s":"x","count":3,"id":12}"#;
        let options = [("strings", "parse"), ("types", r#"{"count":"integer","id":"string"}"#)];
        assert_eq!(
            decode(&options, payload).unwrap(),
            "sensor t=21.5,n=7.0,on=false,s=\"x\",count=3i,id=\"12\"\n"
        );
        let options = [("types", r#"{"count":"integer"}"#)];
        let refusal = decode(&options, r#"{"count":3.5}"#).unwrap_err().to_string();
        assert!(refusal.contains("count is \"3.5\"") && refusal.contains("whole number"), "{refusal}");
        let refusal = decode(&[("types", r#"{"count":"int"}"#)], "{}").unwrap_err().detail;
        assert!(refusal.contains("types.count") && refusal.contains("integer"), "{refusal}");
    }

    #[test]
    fn two_values_under_one_name_are_refused() {
        assert!(decode(&[], r#"{"a":{"b":1},"a_b":2}"#).unwrap_err().detail.contains("a_b"));
        assert!(decode(&[], r#"{"n":1e999}"#).unwrap_err().to_string().starts_with("BAD_NUMBER"));
    }
}
