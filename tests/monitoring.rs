//! The dashboards and alerts that are shipped: their form, the names that they use, and what a real Prometheus
//! shows of a gateway while each fault is made.

mod boards;
mod alerts;
mod names;
mod shown;
mod faults;
mod coverage;
