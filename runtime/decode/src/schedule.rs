//! The order in which messages are decoded: the fair queue of tenants, their CPU quotas, and the slow
//! lane.

pub mod fair_queue;
pub mod cpu_window;
pub mod placement;
pub mod cpu_quota;
pub mod cost;
pub mod standing;
pub mod slow_lane;
