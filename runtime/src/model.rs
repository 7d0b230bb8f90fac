//! A checked model, ready to run.

use artifact::layout::has_columns;
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
    /// The first thing that is wrong with it; bytes that do not start at a multiple of 64; without
    /// the feature `host`, a model for PCs.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        Artifact::new_checked(bytes).and_then(Self::built_in)
    }

    /// As [`Self::new`], but looks at no operator beyond the checksum: for a model that is known to
    /// be sound because [`Self::new`] accepted it when the firmware was built. Saves flash and time.
    ///
    /// Inference with a model that is not may panic; it never leaves its memory.
    ///
    /// # Errors
    /// A damaged file, a wrong version or alignment; without the feature `host`, a model for PCs.
    pub fn new_trusted(bytes: &'a [u8]) -> Result<Self, ArtifactError> {
        Artifact::new_trusted(bytes).and_then(Self::built_in)
    }

    /// Refuses what no kernel was built for.
    fn built_in(artifact: Artifact<'a>) -> Result<Self, ArtifactError> {
        let header = artifact.header();
        if cfg!(not(feature = "host")) && !has_columns(header.dtype, header.nr) {
            return Err(ArtifactError::HostModel);
        }
        if cfg!(not(feature = "float")) && header.has_floats {
            return Err(ArtifactError::FloatLayers);
        }
        Ok(Self { artifact })
    }

    /// Bytes of activation memory that a session needs.
    pub fn arena_len(&self) -> usize {
        self.artifact.header().arena_len
    }

    /// Number format; an int8 model may have layers of floats.
    pub fn dtype(&self) -> Dtype {
        self.artifact.header().dtype
    }

    /// Whether some layers of an int8 model are computed in floats.
    pub fn has_float_layers(&self) -> bool {
        self.artifact.header().has_floats
    }

    /// Output channels that weights are packed by: 16 for PCs and Pis, 4 for microcontrollers.
    pub fn panel_width(&self) -> usize {
        self.artifact.header().nr
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
