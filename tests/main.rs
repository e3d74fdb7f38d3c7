//! The one integration binary: a module a subject, real parts around the library.

mod rig;

mod broker;
mod listener;
