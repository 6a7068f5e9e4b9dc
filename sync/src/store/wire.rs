//! Messages of [`feed`](super::feed) as bytes: `length u32 | form u8 | postcard`, the last compressed if that pays.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message: a write of a thousand changes, with room.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Below this compression does not pay.
const COMPRESS_BYTES_MIN: usize = 1024;
const HEAD_BYTES: usize = 5;
const PLAIN: u8 = 0;
const LZ4: u8 = 1;

/// What is wrong with what came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadMessage {
    /// Its length.
    #[error("a message of {0} bytes: at most {MESSAGE_BYTES_MAX} are taken")]
    TooLarge(usize),
    /// Its form.
    #[error("a message of form {0}, which this version does not know")]
    Form(u8),
    /// What is in it.
    #[error("a message that does not parse: {0}")]
    Parse(String),
}

/// A message as bytes.
pub(super) fn encode<T: Serialize>(message: &T) -> Bytes {
    let mut bytes = postcard::to_extend(message, vec![0; HEAD_BYTES]).unwrap_or_default();
    let mut form = PLAIN;
    if bytes.len() > COMPRESS_BYTES_MIN {
        let packed = lz4_flex::compress_prepend_size(bytes.get(HEAD_BYTES..).unwrap_or_default());
        if packed.len() < bytes.len() * 9 / 10 {
            bytes.truncate(HEAD_BYTES);
            bytes.extend_from_slice(&packed);
            form = LZ4;
        }
    }
    let length = u32::try_from(bytes.len() - HEAD_BYTES).unwrap_or(u32::MAX).to_le_bytes();
    for (byte, of_head) in bytes.iter_mut().zip(length.into_iter().chain([form])) {
        *byte = of_head;
    }
    bytes.into()
}

/// Takes messages out of a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Decoder(BytesMut);

impl Decoder {
    /// More has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, if all of it is there.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, BadMessage> {
        let Some((&[a, b, c, d, form], _)) = self.0.split_first_chunk() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(BadMessage::TooLarge(length));
        }
        if self.0.len() < HEAD_BYTES + length {
            self.0.reserve(HEAD_BYTES + length - self.0.len());
            return Ok(None);
        }
        let message = self.0.split_to(HEAD_BYTES + length).freeze().slice(HEAD_BYTES..);
        let parse = |bytes: &[u8]| {
            postcard::from_bytes(bytes).map(Some).map_err(|error| BadMessage::Parse(error.to_string()))
        };
        match form {
            PLAIN => parse(&message),
            LZ4 => {
                let (size, packed) = lz4_flex::block::uncompressed_size(&message)
                    .map_err(|error| BadMessage::Parse(error.to_string()))?;
                if size > MESSAGE_BYTES_MAX {
                    return Err(BadMessage::TooLarge(size));
                }
                let plain = lz4_flex::block::decompress(packed, size);
                parse(&plain.map_err(|error| BadMessage::Parse(error.to_string()))?)
            }
            other => Err(BadMessage::Form(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_they_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..6),
            cut in 1..700usize,
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| encode(message).to_vec()).collect();
            let mut decoder = Decoder::default();
            let mut found: Vec<Vec<u8>> = Vec::new();
            for part in bytes.chunks(cut) {
                decoder.push(part);
                while let Some(message) = decoder.next().unwrap() {
                    found.push(message);
                }
            }
            prop_assert_eq!(found, messages);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next::<super::super::feed::Down>() {}
        }
    }

    #[test]
    fn what_compresses_is_compressed_and_what_lies_is_refused() {
        let long = encode(&"a".repeat(100_000));
        assert!(long.len() < 1000);
        let mut decoder = Decoder::default();
        decoder.push(&long);
        assert_eq!(decoder.next::<String>().unwrap().unwrap().len(), 100_000);
        decoder.push(&[0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(decoder.next::<String>(), Err(BadMessage::TooLarge(0xffff_ffff)));
        let mut bomb = Decoder::default();
        bomb.push(&[8, 0, 0, 0, LZ4, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
        assert_eq!(bomb.next::<String>(), Err(BadMessage::TooLarge(0x7fff_ffff)));
        let mut other = Decoder::default();
        other.push(&[0, 0, 0, 0, 7]);
        assert_eq!(other.next::<String>(), Err(BadMessage::Form(7)));
    }
}
