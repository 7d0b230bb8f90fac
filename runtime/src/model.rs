//! A checked model, ready to run.

use artifact::{Artifact, ArtifactError, Dtype, Meta, Shape};

/// A model that borrows the bytes of its file.
#[derive(Debug, Clone, Copy)]
pub struct Model<'a> {
    pub(crate) artifact: Artifact<'a>,
}

impl<'a> Model<'a> {
    /// Checks a whole `.edge` file; nothing is copied.
    ///
    /// # Errors
    /// The first thing that is wrong with it; bytes that do not start at a multiple of 64.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        Artifact::new_checked(bytes).map(|artifact| Self { artifact })
    }

    /// Bytes of activation memory that a session needs.
    pub fn arena_len(&self) -> usize {
        self.artifact.header().arena_len
    }

    /// Number format.
    pub fn dtype(&self) -> Dtype {
        self.artifact.header().dtype
    }

    /// Name, preprocessing, provenance.
    pub fn meta(&self) -> Meta<'a> {
        *self.artifact.meta()
    }

    /// Class names in index order.
    pub fn labels(&self) -> artifact::Labels<'a> {
        self.artifact.labels()
    }

    /// Name of class `index`; `""` past the last.
    pub fn label(&self, index: usize) -> &'a str {
        self.labels().nth(index).unwrap_or("")
    }

    /// Height, width and channels of the input.
    pub fn input_shape(&self) -> Shape {
        self.artifact.meta().input.shape
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.artifact.meta().output.shape.c.into()
    }

    /// Operators in execution order.
    pub fn ops(&self) -> artifact::Ops<'a> {
        self.artifact.ops()
    }
}
