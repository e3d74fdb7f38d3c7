//! Several gateways: devices behind a balancer whose gateways come and go.

mod balancer;
mod configuration;
mod glance;
