//! Settings that cannot work are refused at the start, by name.

use std::time::Duration;

use framewire::{
    ForkingStrategy, LengthPrefix, Limits, Server, SingleReactor, ThreadPerConnection, WorkerPool,
};

use crate::common::{On, echo, failure};

fn server() -> Server<LengthPrefix> {
    Server::bind("127.0.0.1:0").expect("a free port").framing(LengthPrefix::u32_be())
}

#[test]
fn a_setting_that_cannot_work_is_named() {
    let limits = Limits::default();
    let cases = [
        ("limits.frame", limits.clone().frame(0)),
        ("limits.read_budget", limits.clone().read_budget(0)),
        ("limits.outbox_low", limits.clone().outbox_low(1 << 20)),
        ("limits.outbox_high", limits.clone().outbox_high(8 << 20)),
        ("limits.idle_timeout", limits.clone().idle_timeout(Duration::ZERO)),
        ("limits.max_age", limits.clone().max_age(Duration::from_micros(999))),
        ("limits.max_age_spread", limits.clone().max_age(Duration::MAX).max_age_spread(Duration::MAX)),
        ("limits.stall_timeout", limits.clone().stall_timeout(Duration::from_nanos(1))),
        ("limits.connections_per_peer", limits.clone().connections_per_peer(0)),
        ("limits.fanout_budget", limits.clone().fanout_budget(0, 1)),
        ("limits.fanout_budget", limits.clone().fanout_budget(1, 0)),
        ("limits.mailbox_commands", limits.mailbox_commands(0)),
    ];
    for (option, limits) in cases {
        let error = failure(server().limits(limits).spawn(echo()));
        assert!(error.starts_with(&format!("{option}: ")), "{error}");
    }
    let error = failure(server().backlog(0).spawn(echo()));
    assert!(error.starts_with("backlog: "), "{error}");
    for idle in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(32_768), Duration::MAX] {
        let error = failure(server().keepalive(idle).spawn(echo()));
        assert!(error.starts_with("keepalive: "), "{idle:?}: {error}");
    }
    for idle in [1, 32_767].map(Duration::from_secs) {
        drop(server().keepalive(idle).spawn(echo()).expect("it can work"));
    }
    let error = failure(server().strategy(WorkerPool::new(100_000)).spawn(echo()));
    assert!(error.starts_with("strategy: 100000 workers"), "{error}");
    let unix = On::UnixSocket.bind().framing(LengthPrefix::u32_be());
    let error = failure(unix.strategy(WorkerPool::new(2).reuse_port()).spawn(echo()));
    assert!(error.starts_with("strategy: reuse_port works for TCP only, not for unix:"), "{error}");
}

#[test]
fn a_strategy_that_refuses_everybody_is_no_strategy() {
    fn refused(strategy: impl ForkingStrategy + 'static) -> String {
        failure(server().strategy(strategy).spawn(echo()))
    }
    let cases = [
        (refused(WorkerPool::new(0)), "a WorkerPool of 0 workers serves nobody"),
        (refused(WorkerPool::new(2).max_sessions(0)), "WorkerPool::max_sessions(0) refuses everybody"),
        (refused(SingleReactor::new().max_sessions(0)), "SingleReactor::max_sessions(0) refuses everybody"),
        (refused(ThreadPerConnection::max(0)), "ThreadPerConnection::max(0) refuses everybody"),
    ];
    for (error, reason) in cases {
        assert!(error.starts_with(&format!("strategy: {reason}")), "{error}");
    }
}
