use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::Bytes;

use super::Left;
use crate::{
    buffer::Overflow,
    contained::Contained,
    error::{BroadcastError, JoinError, SendError},
    id::{Key, SessionId, ShardId},
    session::{Deliver, HandleState, SessionHandle},
    sync::{Addressee, PublishTicket},
};

pub(super) type OnLeave = Box<dyn FnOnce(SessionId, Left) + Send>;

/// The members of a channel, by shard.
///
/// A shard is known by the address of the way into it, which the list keeps alive.
///
/// Invariant: each member is once in `sessions` of its group, at `Member::at`, and has its key at the same place in `keys`.
/// No group is empty.
pub(super) struct Members {
    members: HashMap<SessionId, Member>,
    groups: HashMap<usize, Group>,
    most: usize,
    overflow: Overflow,
    next_place: u64,
}

struct Member {
    handle: SessionHandle,
    place: u64,
    /// Its place in its group.
    at: usize,
    on_leave: Option<Contained<OnLeave>>,
}

/// A member that is one no more. The handle keeps what it shares alive until no lock is held.
pub(super) struct Removed {
    pub(super) handle: SessionHandle,
    pub(super) place: u64,
    pub(super) on_leave: Option<Contained<OnLeave>>,
}

/// The members on one shard.
struct Group {
    id: ShardId,
    shard: Arc<dyn Deliver>,
    /// Shared with the packets that are on their way to the members, and copied if it changes meanwhile.
    keys: Arc<Vec<Key>>,
    /// It is a copy, which no packet has counted yet.
    is_copied: bool,
    sessions: Vec<SessionId>,
}

impl Group {
    fn keys_mut(&mut self) -> &mut Vec<Key> {
        self.is_copied |= Arc::strong_count(&self.keys) > 1;
        Arc::make_mut(&mut self.keys)
    }

    /// What the list counts for in the mailbox, in bytes: each copy once, with the first packet that takes it along.
    fn listed(&self) -> usize {
        if self.is_copied { size_of_val(self.keys.as_slice()) } else { 0 }
    }
}

impl Default for Members {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            groups: HashMap::new(),
            most: usize::MAX,
            overflow: Overflow::Close,
            next_place: 0,
        }
    }
}

fn shard_address(session: &HandleState) -> usize {
    Arc::as_ptr(session.shard()).cast::<()>().addr()
}

impl Members {
    pub(super) fn limit_to(&mut self, members: usize) {
        self.most = members;
    }

    pub(super) fn set_overflow(&mut self, overflow: Overflow) {
        self.overflow = overflow;
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn has(&self, session: SessionId) -> bool {
        self.members.contains_key(&session)
    }

    pub(super) fn handles(&self) -> Vec<SessionHandle> {
        self.members.values().map(|member| member.handle.clone()).collect()
    }

    /// Adds a session, takes what is to be called when it leaves, and returns its place.
    pub(super) fn add(
        &mut self,
        session: &SessionHandle,
        on_leave: &mut Option<Contained<OnLeave>>,
    ) -> Result<u64, JoinError> {
        let (limit, count) = (self.most, self.members.len());
        let (id, state) = (session.id(), &session.handle_state);
        let Entry::Vacant(vacant) = self.members.entry(id) else {
            return Err(JoinError::AlreadyMember);
        };
        if count >= limit {
            return Err(JoinError::Full { limit });
        }
        let group = self.groups.entry(shard_address(state)).or_insert_with(|| Group {
            id: id.shard,
            shard: state.shard().clone(),
            keys: Arc::default(),
            is_copied: false,
            sessions: Vec::new(),
        });
        let (place, at) = (self.next_place, group.sessions.len());
        self.next_place += 1;
        group.keys_mut().push(id.key);
        group.sessions.push(id);
        vacant.insert(Member { handle: session.clone(), place, at, on_leave: on_leave.take() });
        Ok(place)
    }

    /// Removes a session, if it is a member, and in that place if one is given.
    pub(super) fn remove(&mut self, session: SessionId, place: Option<u64>) -> Option<Removed> {
        let Entry::Occupied(occupied) = self.members.entry(session) else { return None };
        if place.is_some_and(|place| place != occupied.get().place) {
            return None;
        }
        let Member { place, at, on_leave, handle } = occupied.remove();
        if let Entry::Occupied(mut group) = self.groups.entry(shard_address(&handle.handle_state)) {
            group.get_mut().keys_mut().swap_remove(at);
            let sessions = &mut group.get_mut().sessions;
            sessions.swap_remove(at);
            if let Some(moved) = sessions.get(at).and_then(|moved| self.members.get_mut(moved)) {
                moved.at = at;
            }
            if sessions.is_empty() {
                group.remove();
            }
        }
        Some(Removed { handle, place, on_leave })
    }

    /// As [`publish`](Self::publish), to all members; what becomes of the packet at each is told.
    pub(super) fn publish_tracked(&self, payload: &Bytes) -> PublishTicket {
        let session = |id: &SessionId| {
            let member = self.members.get(id)?;
            Some((*id, member.handle.handle_state.clone() as Arc<dyn Addressee>))
        };
        let groups: Vec<&Group> = self.groups.values().collect();
        let sessions = groups.iter().flat_map(|group| &group.sessions).filter_map(session).collect();
        let (ticket, mut completions) = PublishTicket::of(sessions);
        for group in groups {
            let completions = completions.by_ref().take(group.sessions.len()).collect();
            group.shard.deliver_tracked(payload, &group.keys, self.overflow, completions);
        }
        ticket
    }

    /// Gives a packet to the shards of all members but `left_out`. Returns for how many members it is.
    pub(super) fn publish(
        &mut self,
        payload: &Bytes,
        left_out: Option<SessionId>,
    ) -> Result<usize, BroadcastError> {
        let left_out = left_out.and_then(|session| self.members.get(&session));
        let except =
            left_out.map(|member| (shard_address(&member.handle.handle_state), member.handle.id().key));
        let (mut sent, mut took, mut full) = (0, 0, Vec::new());
        for (address, group) in &mut self.groups {
            let except = except.filter(|(shard, _)| shard == address).map(|(_, key)| key);
            let count = group.sessions.len() - usize::from(except.is_some());
            if count == 0 {
                continue;
            }
            let listed = group.listed();
            match group.shard.deliver_to_all(payload, &group.keys, listed, except, self.overflow) {
                Ok(()) => {
                    group.is_copied = false;
                    (sent, took) = (sent + count, took + 1);
                }
                Err(SendError::MailboxFull { .. }) => full.push(group.id),
                // A shard that has ended has no sessions; they are about to leave.
                Err(_) => {}
            }
        }
        if full.is_empty() {
            return Ok(sent);
        }
        full.sort_unstable();
        Err(BroadcastError::MailboxFull { full, took })
    }
}
