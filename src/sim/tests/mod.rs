//! The event loop on a simulated network: in virtual time, to the millisecond, and under faults.

mod accepting;
mod backpressure;
mod bytes;
mod closing;
mod differential;
mod dribble;
mod effects;
mod failing_calls;
mod failing_starts;
mod fairness;
mod forks;
mod half_close;
mod handlers;
mod layer_limits;
mod layers;
mod logging;
mod memory;
mod pools;
mod random;
mod regressions;
mod shutdown;
mod slow_callbacks;
mod stale;
mod standstill;
mod timeouts;
mod turns;
