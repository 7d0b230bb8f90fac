//! Any bytes as an `.edge` file: refused, or run on every instruction set.
#![no_main]

use libfuzzer_sys::fuzz_target;
use runtime::{AlignedBuf, Isa, Model, Session};

fuzz_target!(|data: &[u8]| {
    let mut file = AlignedBuf::from_slice(data);
    // The checksum guards against damage; a fuzzer would never get past it.
    artifact::writer::seal(&mut file);
    let Ok(model) = Model::new(&file) else { return };
    // Work that the file announces is the caller's to bound.
    let work = |op: artifact::Op| {
        op.macs() + op.input().shape.len() as u64 * op.output().shape.len() as u64
    };
    if model.arena_len() > 1 << 20 || model.ops().map(work).sum::<u64>() > 1 << 24 {
        return;
    }
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    for isa in Isa::available() {
        let mut session = Session::new(&model, &mut arena).expect("the model's own size");
        session = session.with_isa(isa);
        for i in 0..session.input_mut().len() {
            session.input_mut().set(i, i as f32 - 8.0);
        }
        assert_eq!(session.run().iter().count(), model.labels().count());
    }
});
