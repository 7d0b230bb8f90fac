//! A checked model, ready to run.

use artifact::layout::has_columns;
use artifact::{Artifact, ArtifactError, Dtype, Header, Meta, Shape};

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

    fn built_in(artifact: Artifact<'a>) -> Result<Self, ArtifactError> {
        match refusal(artifact.header(), cfg!(feature = "host"), cfg!(feature = "float")) {
            Some(error) => Err(error),
            None => Ok(Self { artifact }),
        }
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

    /// Whether [`crate::Session::distance`] tells unknown pictures.
    pub fn has_known(&self) -> bool {
        self.artifact.header().has_known
    }

    /// Operators in execution order.
    pub fn ops(&self) -> artifact::Ops<'a> {
        self.artifact.ops()
    }
}

/// Refuses what no kernel was built for, in a build with or without the features `host` and `float`.
#[doc(hidden)]
pub const fn refusal(header: &Header, has_host: bool, has_float: bool) -> Option<ArtifactError> {
    if !has_host && !has_columns(header.dtype, header.nr) {
        Some(ArtifactError::HostModel)
    } else if !has_float && header.has_floats {
        Some(ArtifactError::FloatLayers)
    } else {
        None
    }
}

/// Panics, at compile time, where this build cannot run an embedded model.
#[doc(hidden)]
pub const fn assert_runs(file: &[u8]) {
    match Header::parse(file) {
        Ok(header) => {
            assert_refusal(refusal(&header, cfg!(feature = "host"), cfg!(feature = "float")));
        }
        Err(ArtifactError::UnsupportedVersion { .. }) => {
            panic!("the embedded model has another version than this library; convert it again")
        }
        Err(_) => panic!("what is embedded is not an .edge model, or is cut short; see `convert`"),
    }
}

const fn assert_refusal(refusal: Option<ArtifactError>) {
    match refusal {
        None => {}
        Some(ArtifactError::FloatLayers) => panic!(
            "some layers of the embedded model are floats; turn the runtime's feature `float` on"
        ),
        Some(_) => panic!(
            "the embedded model is for PCs; use `convert --target cortex-m`, or turn the runtime's \
             feature `host` on"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PC: &[u8] = include_bytes!("../../models/resnet_20_cifar10.edge");
    const CORTEX_M: &[u8] = include_bytes!("../../models/resnet_8_cifar10.cortex-m.edge");

    #[test]
    fn firmware_refuses_what_it_has_no_kernels_for() {
        let header = |file| Header::parse(file).unwrap();
        assert_eq!(refusal(&header(PC), true, true), None);
        assert_eq!(refusal(&header(PC), false, false), Some(ArtifactError::HostModel));
        assert_eq!(refusal(&header(CORTEX_M), false, false), None);
        let floats = Header { has_floats: true, ..header(CORTEX_M) };
        assert_eq!(refusal(&floats, false, true), None);
        assert_eq!(refusal(&floats, false, false), Some(ArtifactError::FloatLayers));
    }

    #[test]
    #[should_panic(expected = "convert --target cortex-m")]
    fn a_refusal_ends_the_build() {
        assert_refusal(Some(ArtifactError::HostModel));
    }
}
