//! What is known of a paper before anything runs: its facts and its claims.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The facts of a paper and its claims, read from `card.toml` in its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Short name: folder, command, address.
    pub slug: String,
    /// Title as published.
    pub title: String,
    /// Authors in the paper's order.
    pub authors: Vec<String>,
    /// Where it appeared.
    pub venue: String,
    /// Year of publication.
    pub year: u16,
    /// arXiv identifier without version; empty if there is none.
    pub arxiv: String,
    /// The field, which is also the crate.
    pub field: String,
    /// One plain sentence: what the method does for whom.
    pub summary: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// The authors' code.
    pub code: Code,
    /// What the authors claim.
    #[serde(rename(deserialize = "claim"))]
    pub claims: Vec<Claim>,
}

/// The authors' own code.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Address; empty if none is known.
    pub url: String,
    /// Its licence; "none stated" where it has none.
    pub licence: String,
}

/// A sentence of the paper and what would show that it holds here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Short name, unique on its card.
    pub id: String,
    /// The claim in plain words.
    pub says: String,
    /// The paper's own figure.
    pub paper_value: String,
    /// Where it stands in the paper.
    #[serde(rename = "where")]
    pub place: String,
    /// The quantity that the study measures.
    pub measures: String,
    /// The unit of that quantity; empty for pure numbers.
    #[serde(default)]
    pub unit: String,
    /// The condition under which the claim counts as reproduced.
    pub holds_if: Condition,
}

/// A condition on one measured number: `>= 0.97`, `< 1e-6`, `0.387 to 0.427` (both ends included).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Condition {
    /// At least the bound.
    AtLeast(f64),
    /// At most the bound.
    AtMost(f64),
    /// More than the bound.
    Above(f64),
    /// Less than the bound.
    Below(f64),
    /// Between two bounds, both included.
    Within(f64, f64),
}

/// What a measurement says about a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The measured number meets the condition.
    #[serde(rename = "holds")]
    Holds,
    /// It does not.
    #[serde(rename = "falls short")]
    FallsShort,
    /// It was not measured, for a reason that is told.
    #[serde(rename = "not measured")]
    NotMeasured,
}

impl Card {
    /// Reads and checks a card.
    pub fn parse(text: &str) -> Result<Self> {
        let card: Self = toml::from_str(text).map_err(|e| Error::input("card.toml", e.to_string()))?;
        let problem = |problem: String| Err(Error::Paper { paper: card.slug.clone(), problem });
        for (i, claim) in card.claims.iter().enumerate() {
            if card.claims[..i].iter().any(|c| c.id == claim.id) {
                return problem(format!("claim \"{}\" stands twice on the card", claim.id));
            }
        }
        let facts = [&card.slug, &card.title, &card.venue, &card.field, &card.summary, &card.code.licence];
        if facts.iter().any(|f| f.trim().is_empty()) || card.authors.is_empty() {
            return problem("the card leaves a fact empty".into());
        }
        Ok(card)
    }

    /// The claim called `id`.
    pub fn claim(&self, id: &str) -> Option<&Claim> {
        self.claims.iter().find(|c| c.id == id)
    }
}

impl Condition {
    /// Whether `value` meets the condition; NaN never does.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
            Self::Above(bound) => value > bound,
            Self::Below(bound) => value < bound,
            Self::Within(low, high) => (low..=high).contains(&value),
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number =
            |s: &str| s.trim().parse::<f64>().map_err(|_| format!("\"{}\" is not a number in \"{text}\"", s.trim()));
        let text_trimmed = text.trim();
        // Two-character signs first: ">" is a prefix of ">=".
        type Make = fn(f64) -> Condition;
        let signs: [(&str, Make); 4] =
            [(">=", Self::AtLeast), ("<=", Self::AtMost), (">", Self::Above), ("<", Self::Below)];
        for (sign, make) in signs {
            if let Some(bound) = text_trimmed.strip_prefix(sign) {
                return number(bound).map(make);
            }
        }
        match text_trimmed.split_once(" to ") {
            Some((low, high)) => Ok(Self::Within(number(low)?, number(high)?)),
            None => Err(format!("\"{text}\" is no condition; write \">= 0.9\", \"< 2\" or \"0.1 to 0.2\"")),
        }
    }
}

impl TryFrom<String> for Condition {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Thresholds such as 1e-12 read better than their zeros.
        let number = |x: f64| if x != 0.0 && x.abs() < 1e-3 { format!("{x:e}") } else { x.to_string() };
        match *self {
            Self::AtLeast(bound) => write!(f, ">= {}", number(bound)),
            Self::AtMost(bound) => write!(f, "<= {}", number(bound)),
            Self::Above(bound) => write!(f, "> {}", number(bound)),
            Self::Below(bound) => write!(f, "< {}", number(bound)),
            Self::Within(low, high) => write!(f, "{} to {}", number(low), number(high)),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::FallsShort => "falls short",
            Self::NotMeasured => "not measured",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_read_back_as_written() {
        for text in [">= 0.97", "<= 1e-6", "> 5", "< 3", "0.387 to 0.427"] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), text);
        }
        assert!("about 3".parse::<Condition>().is_err());
        assert!(">= x".parse::<Condition>().is_err());
    }

    #[test]
    fn conditions_include_their_bounds_and_never_nan() {
        let met = |text: &str, x| text.parse::<Condition>().unwrap().is_met_by(x);
        assert!(met(">= 1", 1.0) && met("<= 1", 1.0) && met("1 to 2", 2.0));
        assert!(!met("> 1", 1.0) && !met("< 1", 1.0) && !met("1 to 2", 2.1));
        for text in [">= 1", "<= 1", "> 1", "< 1", "0 to 1"] {
            assert!(!met(text, f64::NAN));
        }
    }

    #[test]
    fn cards_with_a_claim_twice_are_refused() {
        let claim = "[[claim]]\nid = \"a\"\nsays = \"s\"\npaper_value = \"1\"\nwhere = \"Thm 1\"\nmeasures = \"m\"\nholds_if = \">= 1\"\n";
        let head = "slug=\"p\"\ntitle=\"t\"\nauthors=[\"a\"]\nvenue=\"v\"\nyear=2020\narxiv=\"\"\nfield=\"f\"\nsummary=\"s\"\ntags=[]\ncode={url=\"\",licence=\"MIT\"}\n";
        assert!(Card::parse(&format!("{head}{claim}")).is_ok());
        let error = Card::parse(&format!("{head}{claim}{claim}")).unwrap_err();
        assert!(error.to_string().contains("stands twice"));
    }
}
