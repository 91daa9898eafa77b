//! A U-Net that sees points as pictures.

use candle_core::Tensor;
use offprint_core::{Error, Picture, Result};
use offprint_nn::Weights;
use offprint_nn::models::{UNet, UNetConfig};
use serde::{Deserialize, Serialize};

/// The shape of a [`PictureNet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureConfig {
    /// The pictures.
    pub picture: Picture,
    /// The network; as many channels go in and come out as a picture has.
    pub unet: UNetConfig,
}

impl PictureConfig {
    /// A network for `picture` on a CPU: 32 channels, twice as many at each halving, up to three levels.
    ///
    /// # Errors
    /// A picture without pixels.
    pub fn small(picture: Picture) -> Result<Self> {
        if picture.is_empty() {
            return Err(Error::parameter("picture", "no pixels", "at least one pixel"));
        }
        let halvings = picture.height.trailing_zeros().min(picture.width.trailing_zeros()).min(2);
        let widths = (0..=halvings).map(|level| 32 << level).collect();
        let channels = picture.channels;
        let unet =
            UNetConfig { inputs: channels, outputs: channels, widths, blocks: 1, groups: 8, attention: halvings > 0 };
        Ok(Self { picture, unet })
    }

    fn check(&self) -> Result<()> {
        let Self { picture, unet } = self;
        if unet.inputs != picture.channels || unet.outputs != picture.channels {
            let given = format!("{} in and {} out", unet.inputs, unet.outputs);
            return Err(Error::parameter("channels", given, format!("{}, the picture's", picture.channels)));
        }
        let levels = u32::try_from(unet.widths.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let multiple = 1usize.checked_shl(levels).unwrap_or(0);
        if multiple == 0 || picture.is_empty() || picture.height % multiple != 0 || picture.width % multiple != 0 {
            let given = format!("{} × {}", picture.height, picture.width);
            let allowed = format!("of a height and a width that can be halved {levels} times");
            return Err(Error::parameter("picture", given, allowed));
        }
        Ok(())
    }
}

/// Points (n, channels · height · width) with a time each, through a U-Net. Names: those of [`UNet`].
#[derive(Debug, Clone)]
pub struct PictureNet {
    config: PictureConfig,
    unet: UNet,
}

impl PictureNet {
    /// Builds the layers from `weights`.
    pub fn new(config: &PictureConfig, weights: &Weights) -> Result<Self> {
        config.check()?;
        Ok(Self { config: config.clone(), unet: UNet::new(&config.unet, weights)? })
    }

    /// The shape.
    pub fn config(&self) -> &PictureConfig {
        &self.config
    }

    /// Inputs (n, d + 1), points and their times, to outputs (n, d).
    pub fn forward(&self, inputs: &Tensor) -> candle_core::Result<Tensor> {
        let Picture { channels, height, width } = self.config.picture;
        let (n, d) = (inputs.dim(0)?, self.config.picture.len());
        let points = inputs.narrow(1, 0, d)?.contiguous()?.reshape((n, channels, height, width))?;
        let times = inputs.narrow(1, d, 1)?.contiguous()?.reshape(n)?;
        self.unet.forward(&points, &times)?.flatten_from(1)
    }
}
