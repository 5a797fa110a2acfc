//! The event loop on a simulated network: in virtual time, to the millisecond, and under faults.

mod accepting;
mod backpressure;
mod bytes;
mod failing_calls;
mod fairness;
mod handlers;
mod regressions;
mod stale;
mod standstill;
mod timeouts;
