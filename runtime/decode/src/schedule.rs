//! The order in which messages are decoded: fair turns of tenants, their shares of the CPU, and the slow
//! lane.

pub mod fair_queue;
pub mod cpu_window;
pub mod cpu_quota;
pub mod cost;
pub mod slow_lane;
