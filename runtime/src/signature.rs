//! Models, and classes that they are taught, that nobody but the owner of a key can have made.

use crate::Model;
use crate::teach::{Patch, PatchError};
use artifact::header::SIGNATURE_LEN;
use artifact::{ArtifactError, Header};
use core::fmt;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

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
        self.is_by(message, signature).then_some(()).ok_or(ArtifactError::Signature)
    }

    /// Checks the signature of a patch.
    ///
    /// # Errors
    /// [`PatchError::Unsigned`], [`PatchError::Signature`].
    pub fn verify_patch(&self, patch: &Patch<'_>) -> Result<(), PatchError> {
        let (message, signature) = patch.signed();
        let signature = signature.ok_or(PatchError::Unsigned)?;
        self.is_by(message, signature).then_some(()).ok_or(PatchError::Signature)
    }

    /// Strictly: nobody can make a second signature out of one.
    fn is_by(&self, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

/// An Ed25519 private key, with which a device signs what it has learned: see
/// [`PatchWriter::finish_signed`](crate::teach::PatchWriter::finish_signed).
#[derive(Clone)]
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// From its 32 bytes, which should be of this device alone.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// What signatures of this key are checked with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs bytes; the same bytes have the same signature.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.0.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").finish_non_exhaustive()
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
