//! Memory of feature maps, used again.
use super::element::Element;
use burn::tensor::Bytes;

pub(super) fn take<E: Element>(len: usize) -> Vec<E> {
    vec![E::default(); len]
}

pub(super) fn bytes<E: Element>(values: Vec<E>) -> Bytes {
    Bytes::from_elems(values)
}
