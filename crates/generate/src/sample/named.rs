//! Samplers by name, for flags and comparisons.

use super::{
    Ancestral, Basis, Bh, Churn, Ddim, Deis, DpmPlusPlus2M, DpmPlusPlus2S, Euler, EulerMaruyama, Heun, Multistep,
    Sampler, SdeDpm, Stepwise, UniPc, UnlearnedDpmV3,
};
use crate::Schedule;
use offprint_core::{Error, Result};

/// The samplers that [`named`] knows: deterministic ones first.
pub const NAMES: [&str; 22] = [
    "euler",
    "heun",
    "ddim",
    "dpm++2m",
    "dpm++2s",
    "deis-tab1",
    "deis-tab2",
    "deis-tab3",
    "deis-tab4",
    "deis-rhoab2",
    "deis-rhoab3",
    "deis-rhoab4",
    "unipc-1-bh2",
    "unipc-2-bh1",
    "unipc-2-bh2",
    "unipc-3-bh1",
    "dpm-v3-2",
    "dpm-v3-3",
    "ancestral",
    "edm-churn",
    "sde-dpm",
    "euler-maruyama",
];

/// The sampler called `name`, for `steps` steps on `schedule`.
///
/// `unipc-P-bhB` and `deis-tabP`, `deis-rhoabP` take any order P that their method has. `edm-churn` has EDM's published
/// numbers for ImageNet: S = 40 between levels 0.05 and 50, scale 1.003. Multistep ones keep full order to the end.
/// `dpm-v3-P` takes statistics of the model before its run, or once for several by [`Sampler::learn`].
pub fn named(name: &str, steps: usize, schedule: &Schedule) -> Result<Box<dyn Sampler>> {
    let order = |digits: &str| digits.parse::<usize>().map_err(|_| unknown(name));
    Ok(match name {
        "euler" => Box::new(Stepwise(Euler)),
        "heun" => Box::new(Stepwise(Heun::new())),
        "ddim" => Box::new(Multistep::new(Ddim)),
        "dpm++2m" => Box::new(Multistep::new(DpmPlusPlus2M)),
        "dpm++2s" => Box::new(Stepwise(DpmPlusPlus2S)),
        "ancestral" => Box::new(Stepwise(Ancestral::new(1.0)?)),
        "sde-dpm" => Box::new(Stepwise(SdeDpm)),
        "euler-maruyama" => Box::new(Stepwise(EulerMaruyama)),
        "edm-churn" => {
            let churn = Churn { amount: 40.0, lowest: 0.05, highest: 50.0, scale: 1.003 };
            Box::new(Stepwise(Heun::with_churn(churn, steps)?))
        }
        _ => {
            if let Some(digits) = name.strip_prefix("dpm-v3-") {
                Box::new(UnlearnedDpmV3::new(order(digits)?)?)
            } else if let Some(digits) = name.strip_prefix("deis-tab") {
                Box::new(Multistep::new(Deis::new(order(digits)?, Basis::Time(schedule.clone()))?))
            } else if let Some(digits) = name.strip_prefix("deis-rhoab") {
                Box::new(Multistep::new(Deis::new(order(digits)?, Basis::Level)?))
            } else if let Some((digits, bh)) = name.strip_prefix("unipc-").and_then(|rest| rest.split_once('-')) {
                let bh = match bh {
                    "bh1" => Bh::One,
                    "bh2" => Bh::Two,
                    _ => return Err(unknown(name)),
                };
                Box::new(Multistep::new(UniPc::new(order(digits)?, bh)?))
            } else {
                return Err(unknown(name));
            }
        }
    })
}

fn unknown(name: &str) -> Error {
    Error::parameter("sampler", name, format!("one of {}", NAMES.join(", ")))
}
