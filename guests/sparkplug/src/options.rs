//! The options of a route.

use tidegate_guest::Route;

/// The form of UInt64 values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    Unsigned,
    /// Above 63 bits the value is left out.
    Integer,
    Float,
}

/// The form of historical values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Historical {
    Write,
    Tag,
    Skip,
}

#[derive(Debug)]
pub struct Options {
    pub measurement: String,
    /// Levels of the topic before `spBv1.0`.
    pub prefix_levels: usize,
    pub wide: Wide,
    pub historical: Historical,
    /// False: transient values are left out.
    pub writes_transient: bool,
    /// True: bytes and files become text in base64.
    pub writes_bytes: bool,
    /// True: an array is one text of JSON, not a field for each element.
    pub arrays_as_json: bool,
    /// True: bdSeq, and metrics of `Node Control` and `Device Control`, are written too.
    pub writes_control: bool,
}

const KNOWN: [&str; 8] =
    ["measurement", "prefix_levels", "uint64", "historical", "transient", "bytes", "arrays", "control"];

impl Options {
    pub fn read(route: &Route) -> Result<Self, String> {
        route.allow_options(&KNOWN)?;
        let prefix = route.option("prefix_levels").unwrap_or("0");
        Ok(Self {
            measurement: route.option("measurement").unwrap_or("sparkplug").to_owned(),
            prefix_levels: prefix.parse().ok().filter(|levels| *levels <= 16).ok_or_else(|| {
                format!("option \"prefix_levels\" is {prefix:?}: expected 0 to 16, the levels before spBv1.0")
            })?,
            wide: choose(
                route,
                "uint64",
                &[("unsigned", Wide::Unsigned), ("integer", Wide::Integer), ("float", Wide::Float)],
            )?,
            historical: choose(
                route,
                "historical",
                &[("write", Historical::Write), ("tag", Historical::Tag), ("skip", Historical::Skip)],
            )?,
            writes_transient: choose(route, "transient", &[("write", true), ("skip", false)])?,
            writes_bytes: choose(route, "bytes", &[("skip", false), ("base64", true)])?,
            arrays_as_json: choose(route, "arrays", &[("fields", false), ("json", true)])?,
            writes_control: choose(route, "control", &[("skip", false), ("write", true)])?,
        })
    }
}

/// The choice of an option; the first is the default.
fn choose<T: Copy>(route: &Route, key: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let Some(value) = route.option(key) else { return Ok(choices[0].1) };
    choices.iter().find(|(name, _)| *name == value).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("option {key:?} is {value:?}: expected {}", names.join(" or "))
    })
}
