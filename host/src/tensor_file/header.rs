//! What a file's header must not say, and `safetensors` does not look for.

use std::collections::HashSet;
use std::fmt;

use safetensors::SafeTensorError;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Refuses a valid file that names a tensor twice: the format does not allow it, and which of the two is meant nobody can say.
pub(super) fn require_distinct_names(file: &[u8]) -> Result<(), SafeTensorError> {
    // A valid file begins with the header's length.
    let header = file
        .split_first_chunk()
        .and_then(|(length, rest)| rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?));
    let header = header.ok_or(SafeTensorError::InvalidHeaderLength)?;
    serde_json::from_slice::<DistinctKeys>(header)
        .map(drop)
        .map_err(SafeTensorError::InvalidHeaderDeserialization)
}

/// An object whose keys are distinct.
struct DistinctKeys;

impl<'de> Deserialize<'de> for DistinctKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = DistinctKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DistinctKeys, A::Error> {
                let mut seen = HashSet::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if let Some(key) = seen.replace(key) {
                        return Err(A::Error::custom(format_args!("there are two of `{key}`")));
                    }
                }
                Ok(DistinctKeys)
            }
        }

        deserializer.deserialize_map(Keys)
    }
}
