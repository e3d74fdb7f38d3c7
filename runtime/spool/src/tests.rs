//! Tests of the spool as a whole: against a model, and on a disk with a bad block.

mod model;
mod bad_block;
