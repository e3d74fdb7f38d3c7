//! Answers of codecs beside what their examples say.

use serde_json::Value;

use crate::codecs::example::Expectation;

/// The answer of a codec.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub data: Option<Value>,
    pub normalized: Option<Value>,
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
    /// The text of an exception, or of a limit that ended the codec.
    pub failed: Option<String>,
}

/// The differences of an answer, and the numbers that are the same once rounded.
#[derive(Debug, Default, PartialEq)]
pub struct Differences {
    pub texts: Vec<String>,
    pub rounded: u64,
}

impl Differences {
    /// Compares an answer, value by value.
    pub fn of(expected: &Expectation, answer: &Answer) -> Self {
        let mut all = Self::default();
        match expected {
            Expectation::Answer { data, normalized, errors, warnings } => {
                let fails = errors.as_ref().is_some_and(|errors| !errors.is_empty());
                match (&answer.failed, fails) {
                    (Some(failed), false) => all.add("", "an answer", failed),
                    // Some servers make an error of what is thrown.
                    (Some(failed), true) => {
                        let errors = errors.iter().flatten();
                        let missing: Vec<_> = errors.filter(|error| !failed.contains(&***error)).collect();
                        if let Some(missing) = missing.first() {
                            all.add("errors", missing, failed);
                        }
                        return all;
                    }
                    (None, _) => {
                        all.texts("errors", errors.as_deref(), &answer.errors);
                        all.texts("warnings", warnings.as_deref(), &answer.warnings);
                        if !fails {
                            all.part("data", data.as_ref(), answer.data.as_ref());
                        }
                        all.part("normalized", normalized.as_ref(), answer.normalized.as_ref());
                    }
                }
            }
            Expectation::Values(values) => {
                if let Some(failed) = &answer.failed {
                    all.add("", "an answer", failed);
                    return all;
                }
                all.texts("errors", Some(&[]), &answer.errors);
                // One payload has some of the values that a device can send.
                let mut found = 0;
                for (path, texts) in values {
                    if let Some(got) = at_path(answer.data.as_ref(), path) {
                        found += 1;
                        all.named(path, texts, got);
                    }
                }
                if found == 0 && !values.is_empty() {
                    all.add("", &format!("one of {} values", values.len()), "none");
                }
            }
        }
        all
    }

    fn add(&mut self, path: &str, expected: &str, got: &str) {
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        self.texts.push(format!("{path}expected {expected}, got {got}"));
    }

    fn texts(&mut self, name: &str, expected: Option<&[String]>, got: &[String]) {
        if let Some(expected) = expected
            && expected != got
        {
            self.add(name, &format!("{expected:?}"), &format!("{got:?}"));
        }
    }

    fn part(&mut self, name: &str, expected: Option<&Value>, got: Option<&Value>) {
        match (expected, got) {
            (None, _) => {}
            // An example that says so of nothing.
            (Some(Value::Null), None) => {}
            (Some(Value::Object(members)), None) if members.is_empty() => {}
            (Some(expected), None) => self.add(name, &expected.to_string(), "nothing"),
            (Some(expected), Some(got)) => self.values(name, expected, got),
        }
    }

    fn values(&mut self, path: &str, expected: &Value, got: &Value) {
        match (expected, got) {
            (Value::Object(expected), Value::Object(got)) => {
                for (name, value) in expected {
                    let path = format!("{path}.{name}");
                    match got.get(name) {
                        Some(got) => self.values(&path, value, got),
                        // Neither null nor nothing makes a field, and servers write one for the other.
                        None if value.is_null() => {}
                        None => self.add(&path, &value.to_string(), "nothing"),
                    }
                }
                let more =
                    got.iter().filter(|(name, value)| !value.is_null() && !expected.contains_key(*name));
                for (name, value) in more {
                    self.add(&format!("{path}.{name}"), "nothing", &value.to_string());
                }
            }
            (Value::Array(expected), Value::Array(got)) => {
                for index in 0..expected.len().max(got.len()) {
                    let path = format!("{path}[{index}]");
                    match (expected.get(index), got.get(index)) {
                        (Some(expected), Some(got)) => self.values(&path, expected, got),
                        (expected, got) => {
                            let shown =
                                |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
                            self.add(&path, &shown(expected), &shown(got));
                        }
                    }
                }
            }
            (Value::Number(one), Value::Number(other)) => {
                let (one, other) = (one.as_f64().unwrap_or(f64::NAN), other.as_f64().unwrap_or(f64::NAN));
                if is_rounded(one, other) {
                    self.rounded += 1;
                } else if one != other {
                    self.add(path, &expected.to_string(), &got.to_string());
                }
            }
            (expected, got) if expected == got => {}
            (Value::String(mask), Value::String(got)) if is_masked(mask, got) => {}
            (expected, got) => self.add(path, &expected.to_string(), &got.to_string()),
        }
    }

    /// Compares a value that is written as a text.
    fn named(&mut self, path: &str, texts: &[String], got: &Value) {
        let shown = got.as_str().map_or_else(|| got.to_string(), str::to_owned);
        if texts.contains(&shown) {
            return;
        }
        let numbers = (texts.first().and_then(|text| text.parse::<f64>().ok()), got.as_f64());
        match numbers {
            (Some(expected), Some(got)) if is_rounded(expected, got) => self.rounded += 1,
            (Some(expected), Some(got)) if expected == got => {}
            _ => self.add(path, &texts.join(" or "), &shown),
        }
    }
}

/// True if an example has fewer decimals than the answer, and is the answer with as many; or if the two differ in their
/// last digits only, as mathematical functions of engines do. A whole number is never rounded: it would stand for any
/// fraction.
fn is_rounded(expected: f64, got: f64) -> bool {
    let difference = (expected - got).abs();
    if difference == 0.0 {
        return false;
    }
    let decimals = |number: f64| number.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let (few, many) = (decimals(expected), decimals(got));
    // A half goes either way; it is a little more than one where a float cannot hold it.
    difference <= LAST_DIGITS * expected.abs().max(got.abs())
        || 0 < few && few < many && difference <= 0.500_001 * 10_f64.powi(-(few as i32))
}

/// The part of a number that its last digits are: the sixteenth, after some steps of calculation.
const LAST_DIGITS: f64 = 1e-13;

/// True if an example has an X in place of each digit that depends on the moment, as `XXXX-XX-XXTXX:XX:XX.XXXZ`.
fn is_masked(mask: &str, got: &str) -> bool {
    mask.len() == got.len()
        && mask.contains("XX-XX")
        && mask
            .bytes()
            .zip(got.bytes())
            .all(|(mask, got)| mask == got || mask == b'X' && got.is_ascii_digit())
}

/// The value at a path such as `alarm.temperature`.
fn at_path<'a>(value: Option<&'a Value>, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value?, |value, name| value.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(expected: Value, got: Value) -> Differences {
        let expected =
            Expectation::Answer { data: Some(expected), normalized: None, errors: None, warnings: None };
        Differences::of(&expected, &Answer { data: Some(got), ..Answer::default() })
    }

    #[test]
    fn each_value_that_differs_is_shown_with_its_path() {
        let got = differences(
            json!({"a": 1, "b": {"c": "x", "gone": true, "nothing": null}, "list": [1, 2, 3]}),
            json!({"a": 1.0, "b": {"c": "y", "more": 0, "none": null}, "list": [1, 5]}),
        );
        assert_eq!(
            got.texts,
            [
                "data.b.c: expected \"x\", got \"y\"",
                "data.b.gone: expected true, got nothing",
                "data.b.more: expected nothing, got 0",
                "data.list[1]: expected 2, got 5",
                "data.list[2]: expected 3, got nothing",
            ]
        );
        assert_eq!(
            differences(json!({"a": [1, {"b": "x"}]}), json!({"a": [1.0, {"b": "x"}]})),
            Differences::default()
        );
    }

    #[test]
    fn a_rounded_number_is_counted_and_a_wrong_one_is_not() {
        let rounded = |expected, got| {
            let got = differences(json!({"v": expected}), json!({"v": got}));
            (got.texts.len(), got.rounded)
        };
        assert_eq!(rounded(21.57, 21.5678), (0, 1));
        assert_eq!(rounded(0.3, 0.1 + 0.2), (0, 1));
        assert_eq!(rounded(-1.5, -1.4999), (0, 1));
        assert_eq!(rounded(21.57, 21.56), (1, 0));
        assert_eq!(rounded(21.57, 21.5), (1, 0));
        assert_eq!(rounded(21.0, 21.4), (1, 0));
        assert_eq!(rounded(21.57, 21.5778), (1, 0));
        assert_eq!(rounded(1e21, 1e21), (0, 0));
        assert_eq!(rounded(1713.0065082323433, 1713.006508232343), (0, 1));
        assert_eq!(rounded(1713.0065082323433, 1713.00650823), (1, 0));
    }

    #[test]
    fn a_masked_time_is_any_time_of_its_form() {
        let of = |mask: &str, got: &str| differences(json!({"t": mask}), json!({"t": got})).texts.len();
        assert_eq!(of("XXXX-XX-XXTXX:XX:XX.XXXZ", "2020-08-02T15:00:00.000Z"), 0);
        assert_eq!(of("XXXX-XX-XXTXX:XX:XX.XXXZ", "2020-08-02T15:00:00.0000"), 1);
        assert_eq!(of("XXXX", "2020"), 1);
    }

    #[test]
    fn what_is_thrown_can_be_the_error_that_is_expected() {
        let expected = Expectation::Answer {
            data: None,
            normalized: None,
            errors: Some(vec!["unknown port".to_owned()]),
            warnings: None,
        };
        let failed = |text: &str| Answer { failed: Some(text.to_owned()), ..Answer::default() };
        assert_eq!(
            Differences::of(&expected, &failed("Error: unknown port, at line 1")),
            Differences::default()
        );
        assert_eq!(Differences::of(&expected, &failed("TypeError: x")).texts.len(), 1);
        let errors = Answer { errors: vec!["unknown port".to_owned()], ..Answer::default() };
        assert_eq!(Differences::of(&expected, &errors), Differences::default());
        let none = Answer { data: Some(json!({"a": 1})), ..Answer::default() };
        assert_eq!(Differences::of(&expected, &none).texts, ["errors: expected [\"unknown port\"], got []"]);
    }

    #[test]
    fn values_by_path_are_numbers_or_names() {
        let expected = |texts: &[&str]| {
            Expectation::Values(vec![("a.b".to_owned(), texts.iter().map(|&text| text.to_owned()).collect())])
        };
        let of = |texts: &[&str], got: Value| {
            let answer = Answer { data: Some(json!({"a": {"b": got}})), ..Answer::default() };
            Differences::of(&expected(texts), &answer).texts.len()
        };
        assert_eq!(of(&["1", "on"], json!("on")), 0);
        assert_eq!(of(&["26", ""], json!(26.0)), 0);
        assert_eq!(of(&["1", "on"], json!("off")), 1);
        assert_eq!(of(&["1", "on"], json!({})), 1);
        let nothing = Answer { data: Some(json!({})), ..Answer::default() };
        assert_eq!(
            Differences::of(&expected(&["1"]), &nothing).texts,
            ["expected one of 1 values, got none"]
        );
    }
}
