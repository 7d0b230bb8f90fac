//! Models that nobody but the owner of a key can have made.

use crate::Model;
use artifact::header::SIGNATURE_LEN;
use artifact::{ArtifactError, Header};
use ed25519_dalek::{Signature, VerifyingKey};

/// An Ed25519 public key (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From its 32 bytes; `None` where they are no key.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    /// Checks the signature that ends a file; of its contents, nothing but the header is looked at.
    ///
    /// # Errors
    /// [`ArtifactError::Unsigned`], [`ArtifactError::Signature`], and damaged headers.
    pub fn verify(&self, file: &[u8]) -> Result<(), ArtifactError> {
        let header = Header::parse(file)?;
        if !header.is_signed {
            return Err(ArtifactError::Unsigned);
        }
        // The header has the file's length right.
        let (message, signature) = file.split_at(header.content_len());
        let signature: &[u8; SIGNATURE_LEN] =
            signature.try_into().map_err(|_| ArtifactError::Signature)?;
        // Strictly: nobody can make a second signature out of one.
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| ArtifactError::Signature)
    }
}

impl<'a> Model<'a> {
    /// As [`Self::new`], of a model that is signed with the key that belongs to `key`.
    ///
    /// # Errors
    /// Those of [`PublicKey::verify`], then those of [`Self::new`].
    pub fn new_signed(bytes: &'a [u8], key: &PublicKey) -> Result<Self, ArtifactError> {
        key.verify(bytes)?;
        Self::new(bytes)
    }
}
