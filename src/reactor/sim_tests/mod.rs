//! The event loop on a simulated network: in virtual time, to the millisecond, and under faults.

mod regressions;
mod standstill;
mod timeouts;
