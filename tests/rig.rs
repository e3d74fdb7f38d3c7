//! What tests start, and how they look at it: everything on free loopback ports, in folders of its
//! own, ended by pid.

pub mod gateway;
