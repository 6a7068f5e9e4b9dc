//! What was read of a connection and not yet looked at. Its room is zeroed once, not for each read.

/// Room made before a read: most heads fit.
const ROOM: usize = 2 * 1024;

/// Bytes in their order.
#[derive(Debug, Default)]
pub(super) struct Input {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Input {
    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.begin..self.end]
    }

    /// The first so many have been looked at.
    pub(super) fn consume(&mut self, count: usize) {
        self.begin = (self.begin + count).min(self.end);
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
    }

    /// Where to read to; [`Input::filled`] says how much it was.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.len() - self.end < ROOM / 2 {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            if self.bytes.len() - self.end < ROOM {
                self.bytes.resize(self.end + ROOM, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were read.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_looked_at_in_its_order() {
        let mut input = Input::default();
        let (mut sent, mut seen) = (0_u8, 0_u8);
        for step in 0..10_000_usize {
            let room = input.room();
            assert!(room.len() >= ROOM / 2);
            let count = (step * 7_919 % 1_500).min(room.len());
            for byte in &mut room[..count] {
                *byte = sent;
                sent = sent.wrapping_add(1);
            }
            input.filled(count);
            let looked = (step * 104_729 % 1_600).min(input.bytes().len());
            for byte in &input.bytes()[..looked] {
                assert_eq!(*byte, seen);
                seen = seen.wrapping_add(1);
            }
            input.consume(looked);
            if input.bytes().len() > 16 * 1024 {
                let rest = input.bytes().len();
                seen = seen.wrapping_add(rest as u8);
                input.consume(rest);
            }
        }
        assert!(input.bytes.len() < 32 * 1024, "it does not grow without need: {}", input.bytes.len());
    }
}
