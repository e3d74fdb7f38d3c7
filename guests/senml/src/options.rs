//! The options of a route.

use tidegate_guest::Route;

/// The form of the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A line for each record, with its name as a tag.
    Narrow,
    /// A line for each device and time, with the ends of the names as fields.
    Wide,
}

/// The form of the payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// CBOR if the first byte is no ASCII, else JSON.
    Auto,
    Json,
    Cbor,
}

#[derive(Debug)]
pub struct Options {
    pub measurement: String,
    pub layout: Layout,
    pub format: Format,
}

impl Options {
    pub fn read(route: &Route) -> Result<Self, String> {
        route.allow_options(&["measurement", "layout", "format"])?;
        Ok(Self {
            measurement: route.option("measurement").unwrap_or("senml").to_owned(),
            layout: match route.option("layout") {
                None | Some("narrow") => Layout::Narrow,
                Some("wide") => Layout::Wide,
                Some(other) => {
                    return Err(format!("option \"layout\" is {other:?}: expected narrow or wide"));
                }
            },
            format: match route.option("format") {
                None | Some("auto") => Format::Auto,
                Some("json") => Format::Json,
                Some("cbor") => Format::Cbor,
                Some(other) => {
                    return Err(format!("option \"format\" is {other:?}: expected auto, json or cbor"));
                }
            },
        })
    }
}
