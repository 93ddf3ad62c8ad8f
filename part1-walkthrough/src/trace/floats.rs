//! Many numbers in few characters: how the trace writes arrays as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The values of an array in row-major order, whose shape stands in the field's documentation.
///
/// In JSON: base64 (RFC 4648, with padding) of little-endian f32, 5⅓ characters a number instead of
/// about 12, exact, and with −∞ where a mask is. JavaScript reads it back in one line:
/// `new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer)`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Floats(pub Vec<f32>);

impl Floats {
    /// The row `[from · width, (from + 1) · width)` of a matrix that is `width` wide.
    pub fn row(&self, index: usize, width: usize) -> &[f32] {
        &self.0[index * width..(index + 1) * width]
    }
}

impl From<Vec<f32>> for Floats {
    fn from(values: Vec<f32>) -> Self {
        Self(values)
    }
}

impl Serialize for Floats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Floats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
        let (values, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(D::Error::custom("not a whole number of f32"));
        }
        Ok(Self(
            values
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_f32_comes_back_as_it_was() {
        let values = Floats(vec![0.1, -2.5, f32::MIN_POSITIVE, f32::NEG_INFINITY]);
        let json = serde_json::to_string(&values).unwrap();
        assert_eq!(serde_json::from_str::<Floats>(&json).unwrap(), values);
        assert_eq!(
            serde_json::to_string(&Floats(vec![1.0])).unwrap(),
            "\"AACAPw==\""
        );
    }

    #[test]
    fn half_a_number_is_refused() {
        assert!(serde_json::from_str::<Floats>("\"AACA\"").is_err());
    }
}
