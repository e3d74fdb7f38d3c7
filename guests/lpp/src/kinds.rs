//! The types of Cayenne LPP: names and numbers as the format's public implementations have them.

/// One type: the name of its fields, and the numbers behind its type byte.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The type byte.
    pub number: u8,
    pub name: &'static str,
    pub components: &'static [Component],
}

/// One number of a type, big-endian.
#[derive(Debug, PartialEq, Eq)]
pub struct Component {
    /// The end of the field's name, with its `_`; empty for a type of one number.
    pub suffix: &'static str,
    pub bytes: usize,
    pub signed: bool,
    /// The value is the number divided by this. With 1 it is an integer.
    pub divisor: u16,
}

const fn one(bytes: usize, signed: bool, divisor: u16) -> [Component; 1] {
    [part("", bytes, signed, divisor)]
}

const fn part(suffix: &'static str, bytes: usize, signed: bool, divisor: u16) -> Component {
    Component { suffix, bytes, signed, divisor }
}

const fn axes(divisor: u16) -> [Component; 3] {
    [part("_x", 2, true, divisor), part("_y", 2, true, divisor), part("_z", 2, true, divisor)]
}

const fn kind(number: u8, name: &'static str, components: &'static [Component]) -> Kind {
    Kind { number, name, components }
}

/// The known types, by their number. Not here: 240 (polyline), which one implementation alone has.
pub static KINDS: [Kind; 28] = [
    kind(0, "digital_in", const { &one(1, false, 1) }),
    kind(1, "digital_out", const { &one(1, false, 1) }),
    kind(2, "analog_in", const { &one(2, true, 100) }),
    kind(3, "analog_out", const { &one(2, true, 100) }),
    kind(100, "generic", const { &one(4, false, 1) }),
    kind(101, "luminosity", const { &one(2, false, 1) }),
    kind(102, "presence", const { &one(1, false, 1) }),
    kind(103, "temperature", const { &one(2, true, 10) }),
    kind(104, "humidity", const { &one(1, false, 2) }),
    kind(113, "accelerometer", const { &axes(1_000) }),
    kind(114, "magnetometer", const { &axes(1_000) }),
    kind(115, "pressure", const { &one(2, false, 10) }),
    kind(116, "voltage", const { &one(2, false, 100) }),
    kind(117, "current", const { &one(2, false, 1_000) }),
    kind(118, "frequency", const { &one(4, false, 1) }),
    kind(120, "percentage", const { &one(1, false, 1) }),
    kind(121, "altitude", const { &one(2, true, 1) }),
    kind(122, "load", const { &one(3, true, 1_000) }),
    kind(125, "concentration", const { &one(2, false, 1) }),
    kind(128, "power", const { &one(2, false, 1) }),
    kind(130, "distance", const { &one(4, false, 1_000) }),
    kind(131, "energy", const { &one(4, false, 1_000) }),
    kind(132, "direction", const { &one(2, false, 1) }),
    kind(133, "time", const { &one(4, false, 1) }),
    kind(134, "gyrometer", const { &axes(100) }),
    kind(
        135,
        "colour",
        const { &[part("_r", 1, false, 1), part("_g", 1, false, 1), part("_b", 1, false, 1)] },
    ),
    kind(
        136,
        "gps",
        const {
            &[
                part("_latitude", 3, true, 10_000),
                part("_longitude", 3, true, 10_000),
                part("_altitude", 3, true, 100),
            ]
        },
    ),
    kind(142, "switch", const { &one(1, false, 1) }),
];

impl Kind {
    /// The type of a type byte and its place in the order of the types.
    pub fn of(number: u8) -> Option<(usize, &'static Self)> {
        let place = KINDS.binary_search_by_key(&number, |kind| kind.number).ok()?;
        Some((place, &KINDS[place]))
    }

    /// Bytes behind the type byte.
    pub fn bytes(&self) -> usize {
        self.components.iter().map(|component| component.bytes).sum()
    }
}
