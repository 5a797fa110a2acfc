//! The guide: framewire by chapters, from a first server to its operation. It has no items; all of its code is compiled,
//! and most of it run, by the tests.
//!
//! | chapter | answers |
//! |---|---|
//! | [First server](first_server) | What do I write, what do I see, and how do I stop it? |
//! | [Where state lives](state) | Whose data is it, on one thread and on several? What does the line of the strategy change? |
//! | [Back-pressure](backpressure) | What happens when a peer does not read as fast as I send? |
//! | [How sessions end](session_ends) | In which phases, after which timeouts, and how do I learn why? |
//! | [Blocking work and other threads](blocking_work) | Where do I put what takes long, and how does its reply get back? |
//! | [Clients](clients) | How do I connect to such a server? |
//! | [Your own framing](own_framing) | How do I speak a protocol that has none of the ready-made framings? |
//! | [TLS](tls) | How do I encrypt, with which certificates, and what does a peer get that does not? |
//! | [Browsers](browsers) | How do pages talk to my server, and on which port? |
//! | [Behind a proxy](behind_a_proxy) | Who is the client when HAProxy or nginx stands in front, and how do I pass that on? |
//! | Compression (with the features `deflate` and `lz4`) | What does it save, what does it cost, and what can a peer do with it? |
//! | [Testing](testing) | How do I test framings, handlers and servers? |
//! | [Deployment](deployment) | Descriptors, backlog, systemd, restarts, signals, metrics, logging |
//! | [Coming from Go](from_go) | What packnet, link, go-libnet, tcp_server, chitchat and fastway do, and where it is here |
//! | [Coming from tokio-util](from_tokio) | What becomes of codecs, `Framed` and tasks? |

#[doc = include_str!("first_server.md")]
pub mod first_server {}

#[doc = include_str!("state.md")]
pub mod state {}

#[doc = include_str!("backpressure.md")]
pub mod backpressure {}

#[doc = include_str!("session_ends.md")]
pub mod session_ends {}

#[doc = include_str!("blocking_work.md")]
pub mod blocking_work {}

#[doc = include_str!("clients.md")]
pub mod clients {}

#[doc = include_str!("own_framing.md")]
pub mod own_framing {}

#[doc = include_str!("tls.md")]
pub mod tls {}

#[doc = include_str!("browsers.md")]
pub mod browsers {}

#[doc = include_str!("behind_a_proxy.md")]
pub mod behind_a_proxy {}

// It speaks of items that are there with these features only.
#[cfg(all(feature = "deflate", feature = "lz4"))]
#[doc = include_str!("compression.md")]
pub mod compression {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("deployment.md")]
pub mod deployment {}

#[doc = include_str!("from_go.md")]
pub mod from_go {}

#[doc = include_str!("from_tokio.md")]
pub mod from_tokio {}
