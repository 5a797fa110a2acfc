//! Which tests are made of a scenario.

/// A module of tests for a scenario `fn name(on: On)`: one for each of the ways to serve that are listed behind its
/// name.
macro_rules! instances {
    ($scenario:ident: $($(#[$gate:meta])? $test:ident = $on:ident)+) => {
        mod $scenario {
            use crate::common::On;
            $(
                $(#[$gate])?
                #[test]
                fn $test() {
                    super::$scenario(On::$on);
                }
            )+
        }
    };
}

/// Makes the tests of a scenario that go through no compression, and the others that are listed.
macro_rules! layered_instances {
    ($scenario:ident: $($others:tt)*) => {
        $crate::common::instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
            on_a_thread_per_connection = ThreadPerConnection
            through_layers = Layered
            through_layers_on_a_single_reactor = LayeredReactor
            through_layers_on_a_thread_per_connection = LayeredThreads
            #[cfg(feature = "websocket")]
            through_a_websocket = WebSocket
            #[cfg(feature = "websocket")]
            through_a_stacked_websocket = StackedWebSocket
            #[cfg(feature = "websocket")]
            through_a_forked_websocket = ForkedWebSocket
            #[cfg(feature = "tls")]
            over_tls_on_a_single_reactor = Tls
            #[cfg(feature = "tls")]
            over_tls_on_a_thread_per_connection = TlsOnThreads
            #[cfg(feature = "tls")]
            over_tls_among_layers_on_a_worker_pool = TlsStacked
            $($others)*
        }
    };
}

/// Makes one test per strategy of each of these scenarios, and one per strategy through layers, WebSockets, TLS and
/// compression.
macro_rules! on_each_strategy {
    ($($scenario:ident)+) => { $(
        $crate::common::layered_instances! { $scenario:
            #[cfg(feature = "deflate")]
            through_compression = Deflated
            #[cfg(feature = "deflate")]
            through_compression_on_a_single_reactor = DeflatedReactor
            #[cfg(feature = "deflate")]
            through_compression_on_a_thread_per_connection = DeflatedThreads
        }
    )+ };
}

/// As [`on_each_strategy`], of scenarios in which so many bytes wait that compression would leave too few of them.
macro_rules! on_each_strategy_uncompressed {
    ($($scenario:ident)+) => { $( $crate::common::layered_instances! { $scenario: } )+ };
}

/// Makes one test per strategy of each of these scenarios, which look at the bare wire or reuse an address.
macro_rules! on_each_strategy_without_layers {
    ($($scenario:ident)+) => { $(
        $crate::common::instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
            on_a_thread_per_connection = ThreadPerConnection
        }
    )+ };
}

/// As [`on_each_strategy_uncompressed`], and once more over a Unix socket.
macro_rules! on_each_strategy_and_transport {
    ($($scenario:ident)+) => { $(
        $crate::common::layered_instances! { $scenario: on_a_unix_socket = UnixSocket }
    )+ };
}

/// Makes one test of each of these scenarios per strategy that serves UDP.
macro_rules! on_udp {
    ($($scenario:ident)+) => { $(
        $crate::common::instances! { $scenario:
            on_a_single_reactor = SingleReactor
            on_a_worker_pool = WorkerPool
        }
    )+ };
}
pub(crate) use {
    instances, layered_instances, on_each_strategy, on_each_strategy_and_transport,
    on_each_strategy_uncompressed, on_each_strategy_without_layers, on_udp,
};
