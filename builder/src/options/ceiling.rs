//! What was typed, or the environment says, of how much the store may occupy. What files say comes behind it, in `upkeep`.

use super::Environment;
use crate::cli::CeilingArgs;
use crate::report::Failure;
use crate::upkeep::{Amount, Ceiling};

/// Settles flags with `ASHLAR_GC_MAX_USED_SPACE` and its like.
pub(crate) fn parse(args: &CeilingArgs, environment: &Environment) -> Result<Ceiling, Failure> {
    let amount = |typed: &Option<String>, name: &str| match typed {
        Some(text) => Amount::parse(text).map(Some),
        None => environment
            .var(name)
            .map(Amount::parse)
            .transpose()
            .map_err(|failure| Failure::usage(format!("{name}: {}", failure.message()))),
    };
    Ok(Ceiling {
        max_used_space: amount(&args.gc_max_used_space, "ASHLAR_GC_MAX_USED_SPACE")?,
        min_free_space: amount(&args.gc_min_free_space, "ASHLAR_GC_MIN_FREE_SPACE")?,
        reserved_space: amount(&args.gc_reserved_space, "ASHLAR_GC_RESERVED_SPACE")?,
    })
}
