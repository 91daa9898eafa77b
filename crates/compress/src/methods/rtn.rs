//! Round to nearest: no data, no search but that of the range.

use super::{Target, WeightMethod};
use crate::calibration::{Calibration, Needs};
use crate::layer::Layer;
use crate::packed::Packed;
use crate::quantiser::{Grid, Range, Scheme};
use offprint_core::Result;
use offprint_core::random::Stream;

/// Rounds each weight to the nearest level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rtn {
    /// With the range that the scheme names: RTN.
    AsGiven,
    /// With ranges of least error, whatever the scheme names: OMSE.
    LeastError,
}

impl WeightMethod for Rtn {
    fn name(&self) -> &str {
        match self {
            Self::AsGiven => "rtn",
            Self::LeastError => "omse",
        }
    }

    fn needs(&self, _: &Target) -> Needs {
        Needs::NOTHING
    }

    fn compress(&self, layer: &Layer, _: &Calibration, target: &Target, _: Stream) -> Result<Packed> {
        let scheme = target.scheme_only(self.name())?;
        let scheme = if *self == Self::LeastError { Scheme { range: Range::Mse80, ..scheme } } else { scheme };
        let grid = Grid::fit(&layer.place.name, layer.weight.view(), &scheme)?;
        Ok(Packed::coded(&layer.place.name, &layer.place.shape, layer.weight.view(), grid, None))
    }
}
