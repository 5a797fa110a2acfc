//! What threads share: the way into a shard, the fate of a packet, and the number of connections.

mod admission;
mod handshakes;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod mailbox;
mod primitives;
mod publish_ticket;
#[expect(unreachable_pub, reason = "public in `crates/loom-models`")]
mod quota;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod room;
mod shard_thread;
mod ticket;

#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
pub use mailbox::{Mailbox, MailboxClosed, MailboxLimits, Prospect, Rejected, Wake};
pub use publish_ticket::PublishTicket;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
pub use room::{Room, Waited};
pub use ticket::SendTicket;

pub(crate) use admission::{Admission, AdmissionPermit, DepositedPermits, Full};
pub(crate) use handshakes::HandshakePermit;
pub(crate) use quota::{Freed, Quota};
pub(crate) use shard_thread::{DeferredAnswers, give_answers, has_answers_left, is_on_a_shard};
#[cfg(test)]
pub(crate) use ticket::tests::Gone;
pub(crate) use ticket::{Addressee, Completion, TICKET};
