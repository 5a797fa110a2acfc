use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use super::{
    Carriers, Connector, ConnectorConfig, PacketLoop, Ready, Sys,
    carrier::{Carrier, MOST_CLOSED},
    connector::Connected,
    gate::stop_strategy,
    no_dials::NoDials,
    placing::PlacedDial,
    port::{Port, PortAccess, PortContext},
};
use crate::{
    addr::Endpoints,
    buffer::ReceiveBuffer,
    contained::Contained,
    dial::NewDial,
    error::{CloseKind, CloseReason, DialError, RefusalCause},
    events::Reporter,
    framing::LengthPrefix,
    handler::PacketHandler,
    id::{Key, SessionId, ShardId},
    metrics::Counters,
    session::{CarriedService, Mux, NewStream, OpenStream, StreamEffect},
    shard::{Command, Ended, Incoming, Shard, Stream},
    strategy::ForkingStrategy,
    sync::{Admission, Full, Mailbox},
    time::Tick,
};

/// The carriers of the streams of a shard.
///
/// ```text
/// carrier → effects → Carrier (number → session) → session → on_packet → outbox → Mux → outbox of the carrier
/// ```
pub(crate) struct StreamPort {
    mux: Contained<Arc<dyn Mux>>,
    service: Arc<CarriedService>,
    admission: Arc<Admission>,
    /// The shard, as the counts know it.
    here: ShardId,
    /// Bytes that may wait in the inbox of a stream.
    inbox: usize,
    /// On the thread of the acceptor, until the service stops.
    strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    reporter: Reporter,
    carriers: Slab<Carrier>,
    /// The places of those that have not closed.
    places: HashMap<SessionId, u32>,
    /// The carrier that told something last: packets often come several at a time.
    last: Option<(SessionId, u32)>,
    /// Carriers that have something to take, or to be forgotten.
    due: Vec<u32>,
}

/// What a service of streams is made of.
pub(crate) struct StreamConfig<Y: Sys, H: PacketHandler> {
    pub(crate) shard: Shard<H, LengthPrefix, Stream>,
    pub(crate) mailbox: Arc<Mailbox<Command<Y::Stream>>>,
    pub(crate) connector: ConnectorConfig,
    pub(crate) mux: Contained<Arc<dyn Mux>>,
    pub(crate) service: Arc<CarriedService>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) here: ShardId,
    pub(crate) inbox: usize,
    pub(crate) strategy: Option<Contained<Box<dyn ForkingStrategy>>>,
    pub(crate) reporter: Reporter,
}

impl StreamPort {
    pub(crate) fn serve<Y: Sys, H: PacketHandler + 'static>(
        config: StreamConfig<Y, H>,
    ) -> Box<PacketLoop<Y, H, Self>> {
        let StreamConfig {
            shard,
            mailbox,
            connector,
            mux,
            service,
            admission,
            here,
            inbox,
            strategy,
            reporter,
        } = config;
        let port = Self {
            mux,
            service,
            admission,
            here,
            inbox,
            strategy,
            reporter,
            carriers: Slab::new(),
            places: HashMap::new(),
            last: None,
            due: Vec::new(),
        };
        PacketLoop::new(shard, port, Connector::new(NoDials, connector), mailbox)
    }

    #[inline]
    fn find(&mut self, carrier: SessionId) -> Option<u32> {
        match self.last {
            Some((last, place)) if last == carrier => Some(place),
            _ => {
                let place = *self.places.get(&carrier)?;
                self.last = Some((carrier, place));
                Some(place)
            }
        }
    }

    fn mark_due(&mut self, place: u32) {
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        if !std::mem::replace(&mut carrier.is_due, true) {
            self.due.push(place);
        }
    }

    /// The peer of the carrier has opened a stream.
    fn open<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, Stream>,
        id: SessionId,
        new: &OpenStream,
    ) {
        let place = self.find(id).unwrap_or_else(|| {
            let place = self.carriers.insert(Carrier::new(id, new)) as u32;
            self.places.insert(id, place);
            place
        });
        self.end(context, place, new.stream.number);
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        carrier.opened += 1;
        if carrier.closed.len() >= MOST_CLOSED {
            carrier.is_overrun = true;
            return self.mark_due(place);
        }
        let NewStream { number, peer, tag } = new.stream;
        let endpoints = Endpoints::carried(carrier.ends.clone(), number, peer, tag);
        let admitted = match self.admission.admit(Some(self.here), &endpoints.peer()) {
            _ if context.shard.is_stopping() => Err(RefusalCause::Shutdown),
            Err(Full::Server) => Err(RefusalCause::Full),
            Err(Full::Peer) => Err(RefusalCause::PeerLimit),
            Ok(permit) => Ok(permit),
        };
        let key = match admitted {
            Ok(permit) => {
                context.shard.counters().accepted += 1;
                carrier.sessions += 1;
                let io = Stream { carrier: place, number };
                context.shard.insert(Incoming { io, endpoints, permit })
            }
            Err(cause) => {
                context.shard.refuse_stream(&endpoints.peer(), cause);
                None
            }
        };
        let Some(key) = key else {
            carrier.closed.push_back(number);
            return self.mark_due(place);
        };
        carrier.streams.insert(number, key);
        self.visit(context, key, |access| access.open());
    }

    /// Visits a session that may have something to send then.
    fn visit<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, Stream>,
        key: Key,
        body: impl FnOnce(&mut PortAccess<'_, H, Stream>),
    ) {
        context.shard.with_session(key, |access| {
            body(access);
            self.queue(access);
        });
        context.note_served(key);
    }

    /// Does what is due for a session, and notes that it has something to send.
    #[inline]
    fn queue<H: PacketHandler>(&mut self, access: &mut PortAccess<'_, H, Stream>) {
        access.begin_flush();
        if access.wait_for_carrier() {
            let place = access.io().carrier;
            if let Some(carrier) = self.carriers.get_mut(place as usize) {
                carrier.waiting.push_back(access.key());
                self.mark_due(place);
            }
        }
        access.end_if_done();
    }

    /// The peer has ended a stream: its number is free.
    fn end<H: PacketHandler>(&mut self, context: &mut PortContext<H, Stream>, place: u32, number: u64) {
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        let Some(key) = carrier.streams.find(number) else { return };
        carrier.streams.remove(number, |_| false);
        self.visit(context, key, |access| access.handle_cut_off());
    }

    /// A carrier has closed.
    fn lose<H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, Stream>,
        id: SessionId,
        why: CloseKind,
    ) {
        let Some(place) = self.places.remove(&id) else { return };
        self.last.take_if(|(last, _)| *last == id);
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        carrier.is_lost = true;
        carrier.waiting.clear();
        carrier.closed.clear();
        for key in carrier.streams.take_all() {
            let reason = CloseReason::CarrierLost { carrier: id, why };
            self.visit(context, key, |access| access.handle_carrier_lost(reason));
        }
        self.mark_due(place);
    }

    fn serve_carrier<Y: Sys, H: PacketHandler>(
        &mut self,
        context: &mut PortContext<H, Stream>,
        carriers: &mut Carriers<'_, Y>,
        place: u32,
    ) {
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        carrier.is_due = false;
        let id = carrier.ends.id;
        if carrier.has_to_send() && !carrier.is_blocked {
            let (mux, mut panics) = (&**self.mux, 0);
            let is_there = carriers.visit(id, &mut |session| {
                let told = carrier.tell_closed(mux, session, &mut panics);
                carrier.is_blocked = !(told && carrier.send(mux, &mut context.shard, session));
            });
            context.shard.counters().panics += panics;
            if !is_there {
                // It has closed, of which it tells, or never was.
                carrier.waiting.clear();
                carrier.closed.clear();
            }
            context.close_ended::<Y, _>(self);
        }
        if self
            .carriers
            .get_mut(place as usize)
            .is_some_and(|carrier| std::mem::take(&mut carrier.is_overrun))
        {
            carriers.visit(id, &mut |carrier| carrier.overrun(MOST_CLOSED));
        }
        let Some(carrier) = self.carriers.get(place as usize).filter(|carrier| carrier.is_empty()) else {
            return;
        };
        let opened = carrier.opened;
        if !carrier.is_lost {
            carriers.visit(id, &mut |carrier| carrier.note_unladen(opened));
            self.places.remove(&id);
            self.last.take_if(|(last, _)| *last == id);
        }
        self.carriers.remove(place as usize);
        self.due.retain(|due| *due != place);
    }
}

impl<Y: Sys, H: PacketHandler> Port<Y, H> for StreamPort {
    type Io = Stream;
    type Connect = NoDials;

    fn take_events(&mut self, events: &[Ready], shard: &mut Shard<H, LengthPrefix, Stream>) {
        shard.counters().stale_events += events.len() as u64;
    }

    /// Carriers bring what there is to read.
    fn read(&mut self, _: &mut PortContext<H, Stream>, _: Tick, _: &mut Y, _: &mut ReceiveBuffer) {}

    #[inline]
    fn transmit(&mut self, _sys: &mut Y, access: &mut PortAccess<'_, H, Stream>) {
        self.queue(access);
    }

    fn next_waiting(&mut self) -> Option<Key> {
        None
    }

    fn has_work(&self) -> bool {
        !self.due.is_empty()
    }

    fn deadline(&self) -> Option<Tick> {
        None
    }

    fn hides_input(&self, _now: Tick) -> bool {
        false
    }

    fn place_dial(&mut self, dial: Box<NewDial>, _counters: &mut Counters) -> PlacedDial {
        PlacedDial::Nowhere(dial.id, NoDials::error())
    }

    fn adopt_dialled(
        &mut self,
        _context: &mut PortContext<H, Stream>,
        _sys: &mut Y,
        _connected: Connected<Stream>,
    ) -> Result<Key, DialError> {
        Err(NoDials::error())
    }

    fn forget(&mut self, ended: Ended<Stream>, shard: &Shard<H, LengthPrefix, Stream>) {
        let Stream { carrier: place, number } = ended.io;
        let Some(carrier) = self.carriers.get_mut(place as usize) else { return };
        carrier.note_session_ended(|key| shard.has(key));
        // The peer knows of those that it has ended itself; their numbers may be in use again.
        let is_open = carrier.streams.find(number).is_some_and(|key| !shard.has(key));
        if is_open {
            carrier.streams.remove(number, |_| false);
            carrier.closed.push_back(number);
        }
        if carrier.has_to_send() || carrier.is_empty() {
            self.mark_due(place);
        }
    }

    fn stop(&mut self, now: Tick, counters: &mut Counters) {
        self.service.stop();
        if let Some(strategy) = self.strategy.take() {
            stop_strategy(strategy, &self.reporter, now, counters);
        }
    }

    fn handle_carrier(
        &mut self,
        context: &mut PortContext<H, Stream>,
        carrier: SessionId,
        about: StreamEffect,
        packets: &mut [u8],
    ) {
        let place = match &about {
            StreamEffect::Open(new) => return self.open(context, carrier, new),
            StreamEffect::Lost(why) => return self.lose(context, carrier, *why),
            _ => self.find(carrier),
        };
        let Some((place, known)) =
            place.and_then(|place| Some((place, self.carriers.get_mut(place as usize)?)))
        else {
            return;
        };
        match about {
            StreamEffect::Packets { stream, packets: count, .. } => {
                let Some(key) = known.streams.find(stream) else { return };
                let most = self.inbox;
                self.visit(context, key, |access| access.handle_packets(packets, count, most));
            }
            StreamEffect::End { stream } => self.end(context, place, stream),
            StreamEffect::Writable => {
                known.is_blocked = false;
                self.mark_due(place);
            }
            StreamEffect::Open(_) | StreamEffect::Lost(_) => {}
        }
    }

    fn has_to_carry(&self) -> bool {
        !self.due.is_empty()
    }

    fn is_carrying(&self) -> bool {
        self.carriers.iter().any(|(_, carrier)| carrier.has_to_send())
    }

    fn carry_out(&mut self, context: &mut PortContext<H, Stream>, carriers: &mut Carriers<'_, Y>) {
        for place in std::mem::take(&mut self.due) {
            self.serve_carrier(context, carriers, place);
        }
    }
}
