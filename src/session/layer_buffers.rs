use std::mem;

use bytes::BytesMut;

/// Bytes of each buffer that are kept for the next time.
const KEPT: usize = 64 * 1024;

/// Where layers put what they pass on. One set serves all sessions of a shard, one after the other.
#[derive(Default)]
pub(crate) struct LayerBuffers {
    /// Plain bytes, which are handed out before the next session is served.
    pub(crate) plain: Vec<u8>,
    /// What goes up from one layer to the next.
    pub(super) steps: StepBuffers,
    /// What goes down from one layer to the next.
    pub(super) sends: SendBuffers,
}

/// The input of a layer and its output, which is the input of the next.
#[derive(Default)]
pub(super) struct StepBuffers([Vec<u8>; 2]);

/// The same on the way down, and what a layer writes by itself.
#[derive(Default)]
pub(super) struct SendBuffers {
    between: [BytesMut; 2],
    own: BytesMut,
}

impl LayerBuffers {
    /// Takes back the plain bytes, which were handed out.
    #[inline]
    pub(crate) fn put_plain(&mut self, mut plain: Vec<u8>) {
        if plain.capacity() > KEPT {
            plain.clear();
            plain.shrink_to(KEPT);
        }
        self.plain = plain;
    }

    /// Frees what a burst has taken.
    pub(super) fn shrink(&mut self) {
        let Self { steps, sends, .. } = self;
        for buffer in steps.0.iter_mut().filter(|buffer| buffer.capacity() > KEPT) {
            buffer.clear();
            buffer.shrink_to(KEPT);
        }
        let SendBuffers { between: [first, second], own } = sends;
        for buffer in [first, second, own].into_iter().filter(|buffer| buffer.capacity() > KEPT) {
            *buffer = BytesMut::new();
        }
    }
}

impl StepBuffers {
    pub(super) fn both(&mut self) -> (&mut Vec<u8>, &mut Vec<u8>) {
        let [first, second] = &mut self.0;
        (first, second)
    }
}

impl SendBuffers {
    pub(super) fn both(&mut self) -> (&mut BytesMut, &mut BytesMut) {
        let [first, second] = &mut self.between;
        (first, second)
    }

    pub(super) fn take_own(&mut self) -> BytesMut {
        let mut own = mem::take(&mut self.own);
        own.clear();
        own
    }

    pub(super) fn put_own(&mut self, own: BytesMut) {
        self.own = own;
    }
}
