//! TODO

#[cfg(test)]
mod model;
#[cfg(test)]
mod bad_block;
