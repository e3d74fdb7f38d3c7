//! The form of the payloads that come on a template's topics.

/// The envelope of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// The payload is for the decoder as it is. Its JSON may have the credentials of the device.
    #[default]
    Pulse,
    /// An uplink message of The Things Stack v3.
    ThingsStack,
    /// An uplink event of ChirpStack v4.
    ChirpStack,
    /// None: the payload is for the decoder as it is, and has no credentials.
    None,
}

impl EnvelopeKind {
    /// True if a payload can have the credentials of its device.
    pub fn has_credentials(self) -> bool {
        self == Self::Pulse
    }
}
