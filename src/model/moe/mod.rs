//! Mixture of experts: routers, experts, balance.

pub mod balance;
pub mod experts;
pub mod router;
