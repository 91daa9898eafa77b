//! How the tensor library's errors become Offprint's.

use offprint_core::Error;

/// Offprint's error for a computation that candle refused, in candle's words.
///
/// Shapes of the user's input are checked at the door of a model, with words of our own; what comes through here is a
/// combination that the door does not know.
pub fn computation(error: candle_core::Error) -> Error {
    // Candle's own backtraces are for whoever debugs candle.
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => computation(*inner),
        error => Error::Numerical(error.to_string()),
    }
}
