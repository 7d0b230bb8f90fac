//! Law: after `Session::new` nothing allocates.
#![expect(unsafe_code, reason = "counting allocations needs a global allocator")]

mod one_op;

use artifact::Clamp;
use artifact::writer::{Statistics, with_known};
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use one_op::{Case, Fill, Noise, conv_i8};
use runtime::teach::{Patch, PatchWriter, Taught, Teacher};
use runtime::{AlignedBuf, Isa, Model, Session};

use std::alloc::System;

struct Counting;

thread_local! {
    /// Of this thread alone: the test harness allocates on its own whenever it likes.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn inference_does_not_allocate() {
    let case = Case {
        input: [8, 8, 16],
        c_out: 40,
        filter: [8, 8],
        padding: [0; 4],
        clamp: Clamp::Relu,
        small: true,
        ..Case::BASE
    };
    let file = conv_i8(&case, 16, Fill::Random, &mut Noise(3)).file;
    let known = Statistics { means: vec![5; 40], weights: vec![9; 40], threshold: 1, usual: 1 };
    let file = AlignedBuf::from_slice(&with_known(&file, &known).unwrap());
    let model = Model::new(&file).unwrap();
    let mut arena = AlignedBuf::zeroed(model.arena_len());
    for isa in Isa::available() {
        let mut session = Session::new(&model, &mut arena).unwrap().with_isa(isa);
        let before = ALLOCATIONS.get();
        for i in 0..100 {
            session.input_mut().set(i, i as f32);
            let best = session.run().iter().fold(f32::MIN, f32::max);
            assert!(best.is_finite());
            assert!(session.distance().is_some());
        }
        let (mut memory, mut buffer) = ([0; 40], [0; 256]);
        let mut teacher = Teacher::new(&model, &mut memory).unwrap();
        teacher.add(&session).unwrap();
        let class = teacher.finish("taught", Some(2)).unwrap();
        let mut writer = PatchWriter::new(model.identity(), &mut buffer).unwrap();
        writer.push(&class).unwrap();
        let patch = Patch::parse(writer.finish().unwrap()).unwrap();
        let taught = Taught::new(&model, &patch).unwrap();
        assert_eq!(session.taught(&taught).unwrap().iter().count(), 40);
        assert_eq!(ALLOCATIONS.get(), before, "{}", isa.name());
    }
}
