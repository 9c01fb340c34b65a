//! Mixture of experts: routers, experts, balance.

pub mod balance;
pub mod clusters;
pub mod experts;
pub mod language;
pub mod memory;
pub mod router;
pub mod sigma;
pub mod store;
pub mod strata;
