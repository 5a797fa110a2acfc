//! The event loop on a simulated network: in virtual time, to the millisecond, and under faults.

mod accepting;
mod backpressure;
mod bytes;
mod closing;
mod differential;
mod failing_calls;
mod fairness;
mod handlers;
mod logging;
mod random;
mod regressions;
mod stale;
mod standstill;
mod timeouts;
