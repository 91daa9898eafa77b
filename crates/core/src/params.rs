//! One struct of parameters gives the flags, the help text, the JSON schema and the checked values.
//!
//! A method's `Params` derives `clap::Args`, `serde` both ways and `schemars::JsonSchema`. The default stands in the
//! `clap` attribute, the range and the unit in the `schemars` attribute, each once:
//!
//! ```
//! use offprint_core::params::{self, Params};
//!
//! /// Parameters of an example.
//! #[derive(Debug, Clone, clap::Args, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
//! #[serde(default, deny_unknown_fields)]
//! pub struct Example {
//!     /// Signal-to-noise ratio
//!     #[arg(long, default_value_t = 10.0)]
//!     #[schemars(range(min = -20, max = 100), extend("unit" = "dB"))]
//!     snr: f64,
//! }
//! offprint_core::defaults_from_flags!(Example);
//! impl Params for Example {}
//!
//! assert_eq!(Example::default().snr, 10.0);
//! let error = params::check(&Example { snr: 200.0 }).unwrap_err();
//! assert_eq!(error.to_string(), "snr: got 200, but it must be between -20 and 100");
//! ```
//!
//! `range(min, max)` includes its ends; `extend("exclusiveMinimum" = 0)` excludes them. Real parameters are `f64` (or
//! `Option<f64>`), so that NaN and infinities can be refused at the door.

use crate::{Error, Result};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The parameters of a method.
pub trait Params: clap::Args + Serialize + DeserializeOwned + JsonSchema + Default + Send + 'static {
    /// Rejects combinations that no single field's range can rule out.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// A method without parameters.
#[derive(Debug, Clone, Default, clap::Args, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoParams {}

impl Params for NoParams {}

/// Implements `Default` by reading an empty command line, so that a default stands only in its flag.
#[macro_export]
macro_rules! defaults_from_flags {
    ($params:ty) => {
        impl Default for $params {
            fn default() -> Self {
                $crate::params::from_flags(::std::iter::empty::<&str>()).expect("every flag has a default")
            }
        }
    };
}

/// Reads parameters from flags (`["--snr", "3"]`), without checking ranges.
pub fn from_flags<P, I>(flags: I) -> Result<P, clap::Error>
where
    P: clap::Args,
    I: IntoIterator,
    I::Item: Into<std::ffi::OsString> + Clone,
{
    let command = P::augment_args(clap::Command::new("params").no_binary_name(true));
    P::from_arg_matches(&command.try_get_matches_from(flags)?)
}

/// Reads and checks parameters from a JSON object; absent fields take their defaults.
pub fn from_json<P: Params>(value: Value) -> Result<P> {
    let schema = schema::<P>();
    let Value::Object(fields) = &value else {
        return Err(Error::parameter("parameters", value, "an object of names and values"));
    };
    let properties = properties(&schema);
    if let Some((unknown, given)) = fields.iter().find(|(name, _)| !properties.contains_key(*name)) {
        let names: Vec<_> = properties.keys().map(String::as_str).collect();
        return Err(Error::parameter(unknown, given, format!("one of the parameters {}", names.join(", "))));
    }
    // Each field alone first: serde's own message does not say which field it stumbled over.
    for (name, given) in fields {
        let alone = serde_json::json!({ name.as_str(): given });
        if let Err(e) = serde_json::from_value::<P>(alone) {
            let allowed = range_of(&properties[name]).unwrap_or_else(|| e.to_string());
            return Err(Error::parameter(name, given, allowed));
        }
    }
    let params = serde_json::from_value(value).map_err(|e| Error::input("parameters", e.to_string()))?;
    check(&params)?;
    Ok(params)
}

/// The JSON schema of the parameters, with default, range and unit of each.
pub fn schema<P: Params>() -> Value {
    schemars::schema_for!(P).to_value()
}

/// Checks every field against the range in its schema, then what crosses fields.
pub fn check<P: Params>(params: &P) -> Result<()> {
    let schema = schema::<P>();
    let values = serde_json::to_value(params).map_err(|e| Error::input("parameters", e.to_string()))?;
    for (name, property) in properties(&schema) {
        let given = &values[name];
        match given {
            Value::Number(number) => {
                let x = number.as_f64().unwrap_or(f64::NAN);
                if let Some(allowed) = range_of(property)
                    && !in_range(property, x)
                {
                    return Err(Error::parameter(name, plain(number), allowed));
                }
            }
            // serde_json has no NaN and writes null; a field that may be absent says so in its type.
            Value::Null if is_number(property) && !may_be_null(property) => {
                return Err(Error::parameter(name, "a number that is not finite", "finite"));
            }
            _ => {}
        }
    }
    params.check()
}

/// The flags of a method as a `clap` command whose help tells unit and range of every parameter.
pub fn command<P: Params>(name: &'static str) -> clap::Command {
    let schema = schema::<P>();
    let properties = properties(&schema).clone();
    P::augment_args(clap::Command::new(name)).mut_args(move |arg| {
        let Some(property) = properties.get(arg.get_id().as_str()) else { return arg };
        let mut notes = String::new();
        if let Some(unit) = property.get("unit").and_then(Value::as_str) {
            notes += &format!(" [unit: {unit}]");
        }
        if let Some(range) = range_of(property) {
            notes += &format!(" [range: {range}]");
        }
        let help = arg.get_help().map(|h| format!("{h}{notes}"));
        let long = arg.get_long_help().map(|h| format!("{h}{notes}"));
        // A flag that takes no value cannot take a negative one.
        let mut arg = if is_number(property) { arg.allow_negative_numbers(true) } else { arg };
        if let Some(help) = help {
            arg = arg.help(help);
        }
        if let Some(long) = long {
            arg = arg.long_help(long);
        }
        if is_real(property) { arg.value_parser(finite) } else { arg }
    })
}

fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() => Ok(x),
        _ => Err("must be a finite number".into()),
    }
}

fn properties(schema: &Value) -> &serde_json::Map<String, Value> {
    static NONE: std::sync::LazyLock<serde_json::Map<String, Value>> = std::sync::LazyLock::new(Default::default);
    schema.get("properties").and_then(Value::as_object).unwrap_or(&NONE)
}

fn has_type(property: &Value, name: &str) -> bool {
    match &property["type"] {
        Value::String(t) => t == name,
        Value::Array(types) => types.iter().any(|t| t == name),
        _ => false,
    }
}

/// A single real number (not a list of them).
fn is_real(property: &Value) -> bool {
    has_type(property, "number")
}

fn is_number(property: &Value) -> bool {
    is_real(property) || has_type(property, "integer")
}

fn may_be_null(property: &Value) -> bool {
    has_type(property, "null")
}

fn in_range(property: &Value, x: f64) -> bool {
    let bound = |key| property.get(key).and_then(Value::as_f64);
    bound("minimum").is_none_or(|low| x >= low)
        && bound("maximum").is_none_or(|high| x <= high)
        && bound("exclusiveMinimum").is_none_or(|low| x > low)
        && bound("exclusiveMaximum").is_none_or(|high| x < high)
}

/// The range in words, completing "must be …".
fn range_of(property: &Value) -> Option<String> {
    let bound = |key| property.get(key).and_then(Value::as_number).map(plain);
    match (bound("minimum"), bound("exclusiveMinimum"), bound("maximum"), bound("exclusiveMaximum")) {
        (Some(low), _, Some(high), _) => Some(format!("between {low} and {high}")),
        (Some(low), _, _, Some(high)) => Some(format!("at least {low} and below {high}")),
        (_, Some(low), Some(high), _) => Some(format!("above {low} and at most {high}")),
        (_, Some(low), _, Some(high)) => Some(format!("above {low} and below {high}")),
        (Some(low), ..) => Some(format!("at least {low}")),
        (_, Some(low), ..) => Some(format!("above {low}")),
        (_, _, Some(high), _) => Some(format!("at most {high}")),
        (.., Some(high)) => Some(format!("below {high}")),
        (None, None, None, None) => None,
    }
}

/// A JSON number without the ".0" that marks it as real.
fn plain(number: &serde_json::Number) -> String {
    let text = number.to_string();
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Parameters for these tests.
    #[derive(Debug, Clone, clap::Args, Serialize, serde::Deserialize, JsonSchema)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        /// Strength
        #[arg(long, default_value_t = 0.5)]
        #[schemars(extend("exclusiveMinimum" = 0), extend("unit" = "J"))]
        gamma: f64,
        /// How many
        #[arg(long, default_value_t = 3)]
        #[schemars(range(min = 1, max = 9))]
        k: usize,
        /// Perhaps
        #[arg(long)]
        tolerance: Option<f64>,
    }
    crate::defaults_from_flags!(Sample);

    impl Params for Sample {
        fn check(&self) -> Result<()> {
            if self.k == 5 { Err(Error::parameter("k", 5, "anything but five")) } else { Ok(()) }
        }
    }

    #[test]
    fn defaults_come_from_the_flags() {
        let p: Sample = from_json(json!({})).unwrap();
        assert_eq!((p.gamma, p.k, p.tolerance), (0.5, 3, None));
    }

    #[test]
    fn errors_name_field_value_and_range() {
        let message = |v| from_json::<Sample>(v).unwrap_err().to_string();
        assert_eq!(message(json!({"gamma": 0})), "gamma: got 0, but it must be above 0");
        assert_eq!(message(json!({"k": 10})), "k: got 10, but it must be between 1 and 9");
        assert_eq!(message(json!({"k": -1})), "k: got -1, but it must be between 1 and 9");
        assert_eq!(message(json!({"k": 5})), "k: got 5, but it must be anything but five");
        assert!(message(json!({"gama": 1})).contains("gamma, k, tolerance"));
        assert!(message(json!({"gamma": "x"})).contains("gamma"));
        let nan = Sample { gamma: f64::NAN, ..Sample::default() };
        assert_eq!(
            check(&nan).unwrap_err().to_string(),
            "gamma: got a number that is not finite, but it must be finite"
        );
    }

    #[test]
    fn help_tells_unit_range_and_default() {
        let help = command::<Sample>("sample").render_long_help().to_string();
        assert!(help.contains("Strength [unit: J] [range: above 0]") && help.contains("[default: 0.5]"), "{help}");
        assert!(help.contains("[range: between 1 and 9]"), "{help}");
    }

    #[test]
    fn flags_refuse_numbers_that_are_not_finite() {
        let command = command::<Sample>("sample").no_binary_name(true);
        assert!(command.clone().try_get_matches_from(["--gamma", "nan"]).is_err());
        assert!(command.clone().try_get_matches_from(["--tolerance", "inf"]).is_err());
        assert!(command.try_get_matches_from(["--gamma", "-1.5"]).is_ok());
    }
}
