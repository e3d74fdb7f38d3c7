//! TODO

pub(crate) mod ingress;
pub(crate) mod unpark;
pub(crate) mod replay;
pub(crate) mod refusal_publisher;
pub(crate) mod desk;
pub(crate) mod egress;
