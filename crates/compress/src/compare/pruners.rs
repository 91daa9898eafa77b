//! All pruners at several sparsities.

use super::contest_params;
use super::course::Level;
use crate::contest::pruners;
use crate::methods::{Sparsity, Target};
use offprint_core::{Comparison, Error, Method, Params, Result, Run};

/// The comparison of pruners, for the catalogue.
pub const PRUNERS: Comparison = Comparison::of::<Pruners>(
    "pruners",
    "Pruners of weights on one network",
    "Draws accuracy or perplexity against size for every pruner of the field, at several sparsities.",
);

/// Runs every pruner at every sparsity.
#[derive(Debug, Clone, Copy)]
pub struct Pruners;

contest_params! {
    /// Parameters of `offprint compare pruners`.
    PrunersParams {
        /// Methods, separated by commas; without any all: magnitude, magnitude-global, wanda, sparsegpt
        #[arg(long, value_delimiter = ',')]
        pub methods: Vec<String>,
        /// Shares that are pruned (0.5) or patterns (2:4: two of each four are kept), separated by commas
        #[arg(long, value_delimiter = ',', default_values_t = DEFAULT.map(str::to_owned))]
        pub sparsity: Vec<String>,
        /// Steps of methods that optimise each layer; those that train the whole network take a tenth
        #[arg(long, default_value_t = 1000)]
        #[schemars(range(min = 1, max = 1_000_000))]
        pub steps: usize,
    }
}

const DEFAULT: [&str; 8] = ["0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "2:4"];

impl PrunersParams {
    fn levels(&self) -> Result<Vec<Level>> {
        let level = |text: &String| {
            let sparsity = match text.split_once(':') {
                Some((n, m)) => n.parse().ok().zip(m.parse().ok()).map(|(n, m)| Sparsity::NofM { n, m }),
                None => text.parse().ok().map(Sparsity::Unstructured),
            };
            let allowed = "a share from 0 to below 1, or n:m with n below m";
            // A layer of a multiple of every m, so that only the sparsity itself is looked at.
            let sparsity = sparsity.filter(|sparsity| match sparsity {
                Sparsity::NofM { m, .. } => sparsity.check("", *m).is_ok(),
                _ => sparsity.check("", 1).is_ok(),
            });
            let sparsity = sparsity.ok_or_else(|| Error::parameter("sparsity", text, allowed))?;
            Ok(Level { name: text.clone(), target: Target::pruned(sparsity) })
        };
        self.sparsity.iter().map(level).collect()
    }
}

impl Params for PrunersParams {
    fn check(&self) -> Result<()> {
        self.course().check(pruners())?;
        if self.levels()?.is_empty() {
            return Err(Error::parameter("sparsity", "none", "at least one"));
        }
        Ok(())
    }
}

impl Method for Pruners {
    type Params = PrunersParams;

    fn run(params: &Self::Params, run: &mut Run) -> Result<()> {
        params.course().run(pruners(), &params.levels()?, params.steps, run)
    }
}
