//! Text as numbers, one a character.

use offprint_core::{Error, Result};
use std::collections::BTreeMap;

/// The characters of a text, numbered in the order of their code points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Characters {
    characters: Vec<char>,
    numbers: BTreeMap<char, u32>,
}

impl Characters {
    /// The characters that occur in `text`.
    pub fn of(text: &str) -> Self {
        let mut characters: Vec<char> = text.chars().collect();
        characters.sort_unstable();
        characters.dedup();
        let numbers = characters.iter().zip(0..).map(|(&c, i)| (c, i)).collect();
        Self { characters, numbers }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.characters.len()
    }

    /// The numbers of the characters of `text`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        text.chars()
            .enumerate()
            .map(|(at, c)| {
                self.numbers.get(&c).copied().ok_or_else(|| {
                    Error::input("text", format!("character {at} is {c:?}, which the model has never seen"))
                })
            })
            .collect()
    }

    /// The text of `numbers`; a number that stands for no character becomes U+FFFD.
    pub fn decode(&self, numbers: &[u32]) -> String {
        numbers.iter().map(|&i| self.characters.get(i as usize).copied().unwrap_or('\u{fffd}')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in ".*") {
            let characters = Characters::of(&text);
            prop_assert_eq!(characters.decode(&characters.encode(&text).unwrap()), text);
        }
    }

    #[test]
    fn an_unknown_character_is_named() {
        let error = Characters::of("abc").encode("abx").unwrap_err().to_string();
        assert!(error.contains("character 2 is 'x'"), "{error}");
    }
}
