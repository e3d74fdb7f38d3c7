//! The integration tests: the parts, and the built program, against real servers.

mod rig;

mod writer;
