//! The options of a route.

use std::collections::BTreeMap;

use tidegate_guest::Route;

/// The rule for a field that stands in a payload twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// A further line, which gets a time of its own.
    Lines,
    /// The message is refused.
    Refuse,
}

#[derive(Debug)]
pub struct Options {
    pub measurement: String,
    pub repeats: Repeats,
    /// Names in place of `temperature_1`, without the ends of components.
    names: BTreeMap<String, String>,
}

impl Options {
    pub fn read(route: &Route) -> Result<Self, String> {
        route.allow_options(&["measurement", "names", "repeats"])?;
        let mut names = BTreeMap::new();
        for pair in
            route.option("names").unwrap_or_default().split(',').filter(|pair| !pair.trim().is_empty())
        {
            let (from, to) =
                pair.split_once('=').map(|(from, to)| (from.trim(), to.trim())).unwrap_or_default();
            if from.is_empty() || to.is_empty() {
                return Err(format!(
                    "option \"names\" has {:?}: expected NAME_CHANNEL=NAME, such as temperature_1=water",
                    pair.trim()
                ));
            }
            if names.insert(from.to_owned(), to.to_owned()).is_some() {
                return Err(format!("option \"names\" names {from} twice"));
            }
        }
        Ok(Self {
            measurement: route.option("measurement").unwrap_or("lpp").to_owned(),
            names,
            repeats: match route.option("repeats") {
                None | Some("lines") => Repeats::Lines,
                Some("refuse") => Repeats::Refuse,
                Some(other) => {
                    return Err(format!("option \"repeats\" is {other:?}: expected lines or refuse"));
                }
            },
        })
    }

    /// The name of a record's field, without the end of its component.
    pub fn write_name(&self, name: &str, channel: u8, out: &mut String) {
        use std::fmt::Write as _;
        out.clear();
        let _ = write!(out, "{name}_{channel}");
        if let Some(chosen) = self.names.get(out.as_str()) {
            out.clear();
            out.push_str(chosen);
        }
    }
}
