//! Topics of Sparkplug B: `spBv1.0/GROUP/TYPE/EDGE[/DEVICE]` (section 4.1 of the specification).

use tidegate_guest::Refusal;

const NAMESPACE: &str = "spBv1.0";

/// Bytes of one name: the state keeps it.
const NAME_BYTES_MAX: usize = 255;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Birth,
    Data,
    Death,
    /// NCMD, DCMD and STATE: for nodes and hosts.
    Command,
}

/// The names in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic<'a> {
    pub group: &'a str,
    pub kind: Kind,
    pub edge: &'a str,
    /// None: the message is of the edge node itself.
    pub device: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// Reads a topic behind `prefix` other levels.
    ///
    /// # Errors
    /// `BAD_TOPIC` with the expected form.
    pub fn read(topic: &'a str, prefix: usize) -> Result<Self, Refusal> {
        Self::of(topic, prefix).ok_or_else(|| {
            let shown: String = topic.chars().take(200).collect();
            let behind = match prefix {
                0 => String::new(),
                levels => format!(" behind {levels} levels (option prefix_levels)"),
            };
            let detail = format!(
                "the topic is {shown:?}: expected {NAMESPACE}/GROUP/TYPE/EDGE, and /DEVICE for a type that begins with \
                 D{behind}; TYPE is NBIRTH, NDATA, NDEATH, DBIRTH, DDATA or DDEATH; names have 1 to {NAME_BYTES_MAX} bytes \
                 without + and #"
            );
            Refusal::new("BAD_TOPIC", detail)
        })
    }

    fn of(topic: &'a str, prefix: usize) -> Option<Self> {
        let mut levels = topic.split('/').skip(prefix);
        if levels.next() != Some(NAMESPACE) {
            return None;
        }
        let group = levels.next()?;
        if group == "STATE" {
            let host = levels.next().filter(|host| is_name(host))?;
            let edge = host;
            return levels.next().is_none().then_some(Self {
                group,
                kind: Kind::Command,
                edge,
                device: None,
            });
        }
        let (kind, of_device) = match levels.next()? {
            "NBIRTH" => (Kind::Birth, false),
            "NDATA" => (Kind::Data, false),
            "NDEATH" => (Kind::Death, false),
            "NCMD" => (Kind::Command, false),
            "DBIRTH" => (Kind::Birth, true),
            "DDATA" => (Kind::Data, true),
            "DDEATH" => (Kind::Death, true),
            "DCMD" => (Kind::Command, true),
            _ => return None,
        };
        let edge = levels.next()?;
        let device = levels.next();
        let good = [Some(group), Some(edge), device].into_iter().flatten().all(is_name)
            && device.is_some() == of_device
            && levels.next().is_none();
        good.then_some(Self { group, kind, edge, device })
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(['+', '#'])
}
