//! The filter that picks, before any gradient is taken, the sequences that share rare tokens with a query.

use std::collections::{HashMap, HashSet};

/// How often a token of the query counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Counting {
    /// Once, however often it occurs in the query.
    #[default]
    Unique,
    /// As often as it occurs.
    Repeated,
}

/// Document frequencies of a collection of token sequences.
#[derive(Debug, Clone)]
pub struct TfIdf {
    documents: Vec<HashSet<u32>>,
    frequencies: HashMap<u32, usize>,
}

impl TfIdf {
    /// Over `documents`, each a sequence of tokens.
    pub fn new<D: AsRef<[u32]>>(documents: &[D]) -> Self {
        let documents: Vec<HashSet<u32>> = documents.iter().map(|d| d.as_ref().iter().copied().collect()).collect();
        let mut frequencies = HashMap::new();
        for token in documents.iter().flatten() {
            *frequencies.entry(*token).or_insert(0) += 1;
        }
        Self { documents, frequencies }
    }

    /// IDF(t) = log((C − n_t + ½)/(n_t + ½) + 1) with C documents, n_t of which hold the token.
    pub fn idf(&self, token: u32) -> f64 {
        let (all, with) = (self.documents.len() as f64, self.frequencies.get(&token).copied().unwrap_or(0) as f64);
        ((all - with + 0.5) / (with + 0.5) + 1.0).ln()
    }

    /// The score of each document for `query`: Σ_t (k₁ + 1)·1\[t ∈ D\]/(k₁ + 1\[t ∈ D\]) · IDF(t) over the query's tokens,
    /// whatever k₁ is, since a document either holds a token or does not.
    pub fn scores(&self, query: &[u32], counting: Counting) -> Vec<f64> {
        let mut counts: Vec<(u32, f64)> = Vec::new();
        for &token in query {
            match counts.iter_mut().find(|(t, _)| *t == token) {
                Some((_, count)) if counting == Counting::Repeated => *count += 1.0,
                Some(_) => {}
                None => counts.push((token, 1.0)),
            }
        }
        // 1[t ∈ D] is 1 where the sum has a term, so the fraction with k₁ is 1 there.
        let weights: Vec<(u32, f64)> = counts.into_iter().map(|(t, n)| (t, n * self.idf(t))).collect();
        self.documents
            .iter()
            .map(|document| weights.iter().filter(|(t, _)| document.contains(t)).map(|(_, w)| w).sum())
            .collect()
    }

    /// The `keep` documents with the highest scores for any of `queries`, in ascending order.
    pub fn best<D: AsRef<[u32]>>(&self, queries: &[D], keep: usize, counting: Counting) -> Vec<usize> {
        let mut highest = vec![0.0f64; self.documents.len()];
        for query in queries {
            let scores = self.scores(query.as_ref(), counting);
            highest.iter_mut().zip(scores).for_each(|(high, score)| *high = high.max(score));
        }
        let mut order: Vec<usize> = (0..highest.len()).collect();
        order.sort_by(|&a, &b| highest[b].total_cmp(&highest[a]).then(a.cmp(&b)));
        order.truncate(keep);
        order.sort_unstable();
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_shared_tokens_decide() {
        let index = TfIdf::new(&[vec![1, 2, 3], vec![1, 4], vec![1, 2, 5, 5]]);
        // log((3 − 3 + ½)/(3 + ½) + 1), log((3 − 1 + ½)/(1 + ½) + 1) by hand.
        assert!((index.idf(1) - (0.5f64 / 3.5 + 1.0).ln()).abs() < 1e-15);
        assert!((index.idf(4) - (2.5f64 / 1.5 + 1.0).ln()).abs() < 1e-15);
        assert_eq!(index.best(&[vec![1, 4]], 1, Counting::Unique), [1]);
        assert_eq!(index.best(&[vec![4], vec![5]], 2, Counting::Unique), [1, 2]);
        let (once, twice) = (index.scores(&[5, 5], Counting::Unique), index.scores(&[5, 5], Counting::Repeated));
        assert_eq!(2.0 * once[2], twice[2]);
        assert_eq!(once[0], 0.0);
        assert_eq!(index.best(&[vec![9u32]], 9, Counting::Unique).len(), 3);
    }
}
