//! What threads share: the way into a shard, the fate of a packet, and the number of connections.

mod admission;
#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
mod mailbox;
mod primitives;
mod ticket;

#[cfg_attr(not(feature = "internals"), expect(unreachable_pub, reason = "public in `internals`"))]
pub use mailbox::{Mailbox, MailboxClosed, MailboxLimits, Rejected, Wake};
pub use ticket::SendTicket;

pub(crate) use admission::{Admission, AdmissionPermit, DepositedPermits, Full};
pub(crate) use ticket::{Completion, TICKET};
