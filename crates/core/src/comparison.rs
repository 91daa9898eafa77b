//! Several methods and baselines on one task.

use crate::{AnyMethod, Card, Code, Method};
use std::ops::Deref;

/// Methods of several papers, and baselines, on one task with one input and one stopping rule.
pub struct Comparison {
    /// Short name: what is compared ("samplers").
    pub task: &'static str,
    /// A heading.
    pub title: &'static str,
    /// One plain sentence: what is compared by what.
    pub summary: &'static str,
    method: AnyMethod,
}

impl Comparison {
    /// The comparison that `M` runs.
    pub const fn of<M: Method>(task: &'static str, title: &'static str, summary: &'static str) -> Self {
        Self { task, title, summary, method: AnyMethod::of::<M>() }
    }

    /// A card for its runs, without authors and claims.
    pub fn card(&self) -> Card {
        Card {
            slug: self.task.into(),
            title: self.title.into(),
            authors: Vec::new(),
            venue: String::new(),
            year: 0,
            arxiv: String::new(),
            field: String::new(),
            summary: self.summary.into(),
            tags: Vec::new(),
            code: Code { url: String::new(), licence: String::new() },
            claims: Vec::new(),
        }
    }
}

/// A comparison is run as a method is.
impl Deref for Comparison {
    type Target = AnyMethod;

    fn deref(&self) -> &AnyMethod {
        &self.method
    }
}
