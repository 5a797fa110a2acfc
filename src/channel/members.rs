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
};

pub(super) type OnLeave = Box<dyn FnOnce(SessionId, Left) + Send>;

/// The members of a channel, by shard.
///
/// A session, and a shard, is known by the address of what its handles share, which the list keeps alive.
///
/// Invariant: each member is once in `sessions` of its group, at `Member::at`, and has its key at the same place in `keys`.
/// No group is empty.
pub(super) struct Members {
    members: HashMap<usize, Member>,
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

/// The members on one shard.
struct Group {
    id: ShardId,
    shard: Arc<dyn Deliver>,
    /// Shared with the packets that are on their way to the members, and copied if it changes meanwhile.
    keys: Arc<Vec<Key>>,
    sessions: Vec<usize>,
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

fn address(session: &Arc<HandleState>) -> usize {
    Arc::as_ptr(session).addr()
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

    pub(super) fn has(&self, session: &SessionHandle) -> bool {
        self.members.contains_key(&address(&session.handle_state))
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
        let state = &session.handle_state;
        let Entry::Vacant(vacant) = self.members.entry(address(state)) else {
            return Err(JoinError::AlreadyMember);
        };
        if count >= limit {
            return Err(JoinError::Full { limit });
        }
        let group = self.groups.entry(shard_address(state)).or_insert_with(|| Group {
            id: session.id().shard,
            shard: state.shard().clone(),
            keys: Arc::default(),
            sessions: Vec::new(),
        });
        let (place, at) = (self.next_place, group.sessions.len());
        self.next_place += 1;
        Arc::make_mut(&mut group.keys).push(session.id().key);
        group.sessions.push(address(state));
        vacant.insert(Member { handle: session.clone(), place, at, on_leave: on_leave.take() });
        Ok(place)
    }

    /// Removes a session, if it is a member, and in that place if one is given. Returns its place and what is to be
    /// called.
    pub(super) fn remove(
        &mut self,
        session: &Arc<HandleState>,
        place: Option<u64>,
    ) -> Option<(u64, Option<Contained<OnLeave>>)> {
        let Entry::Occupied(occupied) = self.members.entry(address(session)) else { return None };
        if place.is_some_and(|place| place != occupied.get().place) {
            return None;
        }
        let Member { place, at, on_leave, .. } = occupied.remove();
        if let Entry::Occupied(mut group) = self.groups.entry(shard_address(session)) {
            let Group { keys, sessions, .. } = group.get_mut();
            Arc::make_mut(keys).swap_remove(at);
            sessions.swap_remove(at);
            if let Some(moved) = sessions.get(at).and_then(|moved| self.members.get_mut(moved)) {
                moved.at = at;
            }
            if sessions.is_empty() {
                group.remove();
            }
        }
        Some((place, on_leave))
    }

    /// Gives a packet to the shards of all members but `left_out`. Returns for how many members it is.
    pub(super) fn publish(
        &self,
        payload: &Bytes,
        left_out: Option<&SessionHandle>,
    ) -> Result<usize, BroadcastError> {
        let left_out = left_out.and_then(|session| self.members.get(&address(&session.handle_state)));
        let except =
            left_out.map(|member| (shard_address(&member.handle.handle_state), member.handle.id().key));
        let (mut sent, mut took, mut full) = (0, 0, Vec::new());
        for (address, group) in &self.groups {
            let except = except.filter(|(shard, _)| shard == address).map(|(_, key)| key);
            let count = group.sessions.len() - usize::from(except.is_some());
            if count == 0 {
                continue;
            }
            match group.shard.deliver_to_all(payload, &group.keys, except, self.overflow) {
                Ok(()) => (sent, took) = (sent + count, took + 1),
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
