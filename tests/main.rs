//! The integration tests: the built program, real brokers, real databases, hostile guests. One
//! binary, because linking wasmtime takes longer than most of these tests.

mod harness;

mod pulse_cases;
mod registry;
mod parking;
mod verbs;
mod end_to_end;
mod formats;
mod receipt_time;
mod broker;
mod listener;
mod listener_mqtt5;
mod listener_tls;
mod over_rate;
mod revocation;
mod doors;
mod compile;
mod sandbox;
mod malformed_guests;
mod large_guests;
mod state;
mod wit_compat;
mod data_compat;
mod rollout;
mod rollout_limits;
mod guest_verb;
mod init;
mod doctor;
mod audit;
mod start;
mod writer;
mod output;
mod quarantine;
mod refusals;
mod details;
mod deploy;
mod system;
mod durability;
mod catch_up;
mod disk_reserve;
mod tenants;
mod budget;
mod torture;
mod dependencies;
mod structure;
