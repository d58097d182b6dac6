//! What a build is asked to say of its images beside them: annotations, attestations, and the metadata file.

use super::Environment;
use crate::attest::{Attestations, Detail};
use crate::cli::BuildArgs;
use crate::export::Annotations;
use crate::report::{Failure, Kind};

pub(super) fn metadata_provenance(environment: &Environment) -> Result<Option<Detail>, Failure> {
    match environment.var("BUILDX_METADATA_PROVENANCE") {
        None | Some("min" | "true" | "1") => Ok(Some(Detail::Min)),
        Some("max") => Ok(Some(Detail::Max)),
        Some("disabled" | "false" | "0") => Ok(None),
        Some(other) => Err(Failure::usage(format!(
            "invalid BUILDX_METADATA_PROVENANCE `{other}`: expected min, max or disabled"
        ))),
    }
}

pub(super) fn attestations(args: &BuildArgs) -> Result<Attestations, Failure> {
    let wanted = Attestations::parse(&args.attest, args.provenance.as_deref(), args.sbom.as_deref());
    wanted.map_err(|error| Failure::of(Kind::Usage, &error))
}

pub(super) fn annotations(given: &[String]) -> Result<Annotations, Failure> {
    let mut settled = Annotations::default();
    for text in given {
        let added = settled.add_flag(text);
        added.map_err(|error| Failure::of(Kind::Usage, &error))?;
    }
    Ok(settled)
}
