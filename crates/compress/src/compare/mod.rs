//! Quality against size: all quantisers, and all pruners, on one network.

mod course;
mod pruners;
mod quantizers;

pub use pruners::PRUNERS;
pub use quantizers::QUANTIZERS;

/// Parameters of a comparison: what all have in common, and the fields given.
macro_rules! contest_params {
    ($(#[$attribute:meta])* $name:ident { $($own:tt)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, clap::Args, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// A network of your own: a directory with config.json and .safetensors, compressed or not, or one .safetensors
            /// file that was saved here
            #[arg(long)]
            pub model: Option<std::path::PathBuf>,
            /// The built-in network that is taken without one
            #[arg(long, value_enum, default_value_t = crate::examples::Example::DigitsCnn)]
            pub example: crate::examples::Example,
            /// Samples to test your network on, as it reads them (.npy, .csv), with the class in the last column of rows;
            /// token numbers; or JSON lines {"text": …} with a tokenizer.json beside the model
            #[arg(long, default_value = "builtin")]
            pub data: offprint_core::Source,
            /// Classes of the samples, if they do not stand among them
            #[arg(long)]
            pub targets: Option<offprint_core::Source>,
            /// Samples to calibrate and train with, in the same form; without them the first half of the data
            #[arg(long)]
            pub train: Option<offprint_core::Source>,
            /// Their classes
            #[arg(long)]
            pub train_targets: Option<offprint_core::Source>,
            /// Samples that methods are calibrated with
            #[arg(long, default_value_t = 256)]
            #[schemars(range(min = 1, max = 100_000))]
            pub samples: usize,
            /// Layers that stay as they are, separated by commas
            #[arg(long, value_delimiter = ',')]
            pub except: Vec<String>,
            /// Calibrate each layer with the float network's inputs, not with those that the layers before it give once
            /// they are compressed
            #[arg(long)]
            pub parallel: bool,
            $($own)*
        }
        offprint_core::defaults_from_flags!($name);

        impl $name {
            /// What is common to both comparisons.
            fn course(&self) -> $crate::compare::course::Course<'_> {
                $crate::compare::course::Course {
                    model: self.model.as_deref(),
                    example: self.example,
                    test: $crate::Samples { inputs: &self.data, targets: self.targets.as_ref() },
                    train: self.train.as_ref().map(|inputs| {
                        $crate::Samples { inputs, targets: self.train_targets.as_ref() }
                    }),
                    samples: self.samples,
                    except: &self.except,
                    methods: &self.methods,
                    order: if self.parallel { $crate::Order::Parallel } else { $crate::Order::Sequential },
                }
            }
        }
    };
}
pub(crate) use contest_params;
