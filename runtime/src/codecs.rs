//! Public codecs and their own examples, as the collections of makers and network servers lay them out in folders,
//! run in the sandbox of the gateway. None of these files comes with Tidegate.

pub(crate) mod example;
mod things_stack;
mod chirpstack;
mod actility;
mod milesight;
pub(crate) mod layouts;
pub(crate) mod script_files;
pub(crate) mod comparison;
pub(crate) mod sandbox_run;
