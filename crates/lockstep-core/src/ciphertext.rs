//! Ciphertexts in Git: their format, their binding to a location, and envelopes.
//!
//! A ciphertext is one word of text: `lockstep:v1:` followed by URL-safe base64 without padding of
//!
//! ```text
//!  form    1 byte          1: the KMS encrypted the value; 3: the data key of an envelope
//!  kms     1 byte, bytes   length and name of the provider of the KMS
//!  place   8 bytes         the beginning of the SHA-256 of the location's binding
//!  wrapped 4 bytes, bytes  length and bytes of the output of the KMS
//!  body    the rest        of an envelope: nonce (12 bytes), AES-256-GCM of the value, tag (16 bytes)
//!  check   4 bytes         the beginning of the SHA-256 of everything before
//! ```
//!
//! Nothing authenticates `form`. The binding of a data key therefore contains the SHA-256 of
//! `body`, and that of a value does not: if someone changes `form` or `body`, the KMS refuses to
//! decrypt. Form 2, whose data keys had the binding of a value, is rejected.
//!
//! `check` and `place` protect nothing: the KMS, and in an envelope the tag, authenticate the
//! ciphertext and the binding. They only improve messages. They distinguish a damaged or misplaced
//! ciphertext from a wrong key without a request to the KMS, whose services report these cases
//! alike.

mod binding;
mod envelope;
mod sealed;

pub use binding::Binding;
pub use envelope::{DATA_KEY_BYTES, Envelope, NONCE_BYTES};
pub use sealed::{CiphertextError, Sealed};
