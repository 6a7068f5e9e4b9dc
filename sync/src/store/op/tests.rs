use super::*;

pub(crate) fn key(name: &str) -> Key {
    Key::new("b", name).unwrap()
}

pub(crate) fn value(text: &str) -> Value {
    Value { is_json: false, bytes: Bytes::copy_from_slice(text.as_bytes()) }
}

fn batch() -> Batch {
    let [me, other] = [1, 2].map(OriginId);
    let mut known = Heads::default();
    let mut batch = Batch { origin: me, first: 1, chain: 0, known: known.clone(), records: Vec::new() };
    for sequence in 1..=5 {
        let before = known.clone();
        known.raise(other, sequence / 2 * 10);
        let action = Action::Put { key: key(&sequence.to_string()), value: value("v"), expires_unix_ms: 0 };
        let stamp = Stamp { time: 100 + sequence, origin: me };
        let entry = Entry { sequence, stamp, known: Arc::new(known.clone()), more: false, action };
        batch.records.push(encode(&entry, &before));
    }
    batch
}

#[test]
fn a_batch_says_the_same_cut_anywhere() {
    let whole = batch();
    let entries = whole.entries().unwrap();
    for sequence in 0..=5 {
        let rest = whole.clone().after(sequence).unwrap();
        assert_eq!(rest.entries().unwrap(), entries[usize::try_from(sequence).unwrap()..]);
        assert_eq!((rest.last(), rest.chain_after()), (5, whole.chain_after()));
    }
    assert_eq!(entries[3].known.of(OriginId(2)), 20);
    assert!(entries[3].knew(OriginId(2), 20) && !entries[3].knew(OriginId(2), 21));
    assert!(entries[3].knew(OriginId(1), 3) && !entries[3].knew(OriginId(1), 4));
}

#[test]
fn every_changed_bit_is_found() {
    let whole = batch();
    for at in 0..whole.records[2].len() * 8 {
        let mut broken = whole.clone();
        let mut record = broken.records[2].to_vec();
        record[at / 8] ^= 1 << (at % 8);
        broken.records[2] = record.into();
        assert!(broken.entries().is_err(), "bit {at}");
    }
    let mut swapped = whole.clone();
    swapped.records.swap(0, 1);
    assert_eq!(swapped.entries(), Err(BadBatch::Checksum { origin: OriginId(1), sequence: 1 }));
    let mut anothers = whole;
    anothers.origin = OriginId(9);
    assert!(anothers.entries().is_err());
}

#[test]
fn keys_say_what_is_wrong_with_them() {
    let of = |bucket: &str, key: &str| Key::new(bucket, key).map_err(|error| error.to_string());
    assert_eq!(of("carts", "a/ü").unwrap().name(), "a/ü");
    assert!(of("Carts", "a").unwrap_err().contains("found `Carts`"));
    assert!(of("", "a").is_err() && of("b", "").is_err());
    let (long, longest) = ("x".repeat(513), "x".repeat(512));
    assert!(of("b", &long).unwrap_err().contains("found 513"));
    assert!(of("b", "a\nb").unwrap_err().contains("'\\n'"));
    assert!(of(&"b".repeat(64), &longest).is_ok());
}
