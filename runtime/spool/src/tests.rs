//! Tests of the spool as a whole: against a model, on a disk with a bad block, and with a clock that is set.

mod model;
mod bad_block;
mod age;
mod memory;
