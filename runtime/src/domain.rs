//! The nouns, without I/O: what a message is, what may become of it, and how it is counted.

pub mod ids;
pub mod reason;
pub mod message;
pub mod refusal;
pub mod slot;
pub mod acks;
pub mod books;
<<<<<<< HEAD
pub mod histogram;
=======
pub mod activity;
>>>>>>> ae44dc995d3638703959823fc2254060f5041ecd
pub mod limits;
