//! Names in instructions that stand for stages, contexts and images: `COPY --from`, `RUN --mount=from=`.
//! Spec: dockerfile.md §7.4.

use super::plan::{Origin, Plan, image, named};
use crate::ast::{Dockerfile, Instruction, Kind, Mount, MountKey};
use crate::diagnostic::Diagnostic;
use crate::lines::Text;
use crate::options::Options;

/// A name in an instruction that stands for a stage, a context or an image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reference<'a> {
    /// `COPY --from`
    Copy(&'a Text),
    /// `RUN --mount=from=`, and the mount.
    Mount(&'a Text, &'a Mount),
}

impl<'a> Reference<'a> {
    /// Returns all that an instruction holds.
    pub(super) fn of(instruction: &'a Instruction) -> Vec<Self> {
        match &instruction.kind {
            Kind::Copy(copy) => copy.from.iter().map(Self::Copy).collect(),
            Kind::Run(run) => {
                let from = |mount: &'a Mount| Some(Self::Mount(mount.from()?, mount));
                run.mounts
                    .iter()
                    .filter(|mount| reads_files(mount))
                    .filter_map(from)
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn name(&self) -> &'a Text {
        match self {
            Self::Copy(name) | Self::Mount(name, _) => name,
        }
    }
}

impl Plan {
    /// Settles `COPY --from` and the `from` of mounts. Spec: dockerfile.md §7.4.
    pub(super) fn resolve(
        &self,
        reference: &Reference<'_>,
        current: usize,
        dockerfile: &Dockerfile,
        options: &Options,
    ) -> Result<Origin, Diagnostic> {
        let from = reference.name();
        let name = from.value.as_str();
        let error = |message: String| Err(Diagnostic::error(message).at(from.span));
        if matches!(reference, Reference::Copy(_)) && name.contains('$') {
            return error(
                "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
                 scope as a workaround"
                    .to_owned(),
            );
        }
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            return match name.parse::<usize>() {
                Ok(index) if index < current => Ok(Origin::Stage(index)),
                _ => {
                    let error = Diagnostic::error(format!("invalid stage index {name}")).at(from.span);
                    Err(match reference {
                        Reference::Copy(_) => error,
                        // BuildKit takes it as an image there.
                        Reference::Mount(..) => {
                            error.help(format!("an image of this name is docker.io/library/{name}"))
                        }
                    })
                }
            };
        }
        let lower = name.to_lowercase();
        if let Some(indexes) = self.names.get(&lower) {
            let before = indexes.partition_point(|&index| index < current);
            if let Some(&index) = indexes[..before].last() {
                return Ok(Origin::Stage(index));
            }
            let current = match &dockerfile.stages[current].name {
                Some(name) => name.value.clone(),
                None => current.to_string(),
            };
            return error(match reference {
                Reference::Copy(_) => format!(
                    "cannot copy from stage \"{lower}\", it needs to be defined before current stage \"{current}\""
                ),
                Reference::Mount(_, mount) => format!(
                    "cannot mount from stage \"{lower}\" to \"{}\", stage needs to be defined before current command",
                    target_of(mount)
                ),
            });
        }
        let platform = &self.stages[current].platform;
        Ok(match named(name, platform, options) {
            Some(origin) => origin,
            None if lower == "scratch" => Origin::Scratch,
            None => image(name, platform),
        })
    }
}

/// Says whether `from` means something: the type may be a variable, then it does.
fn reads_files(mount: &Mount) -> bool {
    let kind = mount.field(MountKey::Type).and_then(|field| field.value.as_ref());
    kind.is_none_or(|kind| !["tmpfs", "secret", "ssh"].contains(&kind.value.to_lowercase().as_str()))
}

/// Returns the target of a mount as written.
fn target_of(mount: &Mount) -> &str {
    let target = mount
        .field(MountKey::Target)
        .and_then(|field| field.value.as_ref());
    target.map_or("", |target| &target.value)
}
