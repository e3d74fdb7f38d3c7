//! The joints of the stream, where two parts meet: each part knows core and no other part.

pub(crate) mod ingress;
pub(crate) mod egress;
pub(crate) mod unpark;
pub(crate) mod replay;
pub(crate) mod refusal_publisher;
pub(crate) mod birth_requester;
pub mod tap;
