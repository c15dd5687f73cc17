use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

/// Secret bytes, shared between clones and zeroed when the last clone is dropped.
///
/// It implements neither `Serialize` nor `Display`, and its `Debug` output contains only the
/// length, so a value is not shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// Takes ownership of the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::new(Zeroizing::new(bytes.into())))
    }

    /// Returns the bytes. The caller must not log, format or store them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns the bytes as text if they are UTF-8. The same rules apply as for
    /// [`SecretValue::expose`].
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for SecretValue {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValue({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_only_the_length() {
        assert_eq!(
            format!("{:?}", SecretValue::from("canary")),
            "SecretValue(6 bytes)"
        );
    }
}
