//! Which caches that leave the machine a build is given.

use super::{Environment, parsed};
use crate::caches::{CacheFrom, CacheTo};
use crate::cli::BuildArgs;
use crate::report::Failure;

pub(super) fn from(args: &BuildArgs, environment: &Environment) -> Result<Vec<CacheFrom>, Failure> {
    parsed(&args.cache_from, |text| CacheFrom::parse(text, environment))
}

/// Docker's older word for an inline cache is a build argument.
pub(super) fn to(
    args: &BuildArgs,
    build_args: &[(String, String)],
    environment: &Environment,
) -> Result<Vec<CacheTo>, Failure> {
    let mut given = args.cache_to.clone();
    let asks = |(name, value): &(String, String)| {
        name == "BUILDKIT_INLINE_CACHE" && matches!(value.as_str(), "1" | "true")
    };
    if build_args.iter().any(asks) {
        given.push("type=inline".to_owned());
    }
    parsed(&given, |text| CacheTo::parse(text, environment))
}
