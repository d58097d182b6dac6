//! `ashlar build --call` and `--check`: answers about a Dockerfile. Nothing is built, and no registry is asked: of base
//! images is known what the store has, and what depends on others is left out.

use std::sync::Arc;

use frontend::call::{self, CheckResult};
use frontend::{Answers, Dockerfile, ImageConfig, ImageKind, Needed, Request, ResolvedImage, SourceText};

use crate::context::{self, Inputs};
use crate::options::{BuildOptions, Call, Environment, Form, Question};
use crate::registry;
use crate::remote;
use crate::report::{self, Failure, Kind};
use crate::secrets::Secrets;
use crate::{dockerfile, failure, image, runtime};

/// Most rounds of looking for images: what one brings in may name others.
const MAX_ROUNDS: usize = 10;

/// Prints the answer; returns the exit code.
pub(crate) fn run(options: &BuildOptions, call: Call) -> Result<u8, Failure> {
    if call.question == Question::Describe {
        report::data(&match call.form {
            Form::Text => call::describe_text(),
            Form::Json => call::describe_json(),
        })?;
        return Ok(0);
    }
    let secrets = Secrets::load(&options.secrets, &options.ssh, &Environment::of_process())
        .map_err(|error| Failure::of(Kind::Usage, &error))?;
    let secrets = Arc::new(secrets);
    let store = Arc::new(image::open_store(&options.store_root)?);
    let fetched = runtime::run(remote::inputs::fetch(options, &store, &secrets))?;
    let inputs = context::read(&options.context, &options.dockerfile, fetched, &store)
        .map_err(|error| failure::of_context(&error))?;
    let source = SourceText::new(&inputs.dockerfile_name, &inputs.dockerfile);
    let file = match (dockerfile::parse(options, &inputs, &source), call.question) {
        (Ok(file), _) => file,
        (Err(diagnostics), Question::Check) => {
            return tell_check(&CheckResult::of_unread(&source, diagnostics), call);
        }
        (Err(diagnostics), _) => return Err(failure::of_diagnostics(&diagnostics, &source)),
    };
    let asked = frontend_options(options, &inputs)?;
    let answers = runtime::run(known(&store, &file, &asked, &source))?;
    let text = match (call.question, call.form) {
        (Question::Check, _) => return tell_check(&call::check(&file, &asked, &answers), call),
        (Question::Targets, Form::Text) => call::targets(&file).text(),
        (Question::Targets, Form::Json) => call::targets(&file).json(),
        (_, form) => {
            let outline = call::outline(&file, &asked, &answers)
                .map_err(|diagnostics| failure::of_diagnostics(&diagnostics, &source))?;
            match form {
                Form::Text => outline.text(),
                Form::Json => outline.json(),
            }
        }
    };
    report::data(&text)?;
    Ok(0)
}

/// What can be said of the file is said for the first platform.
fn frontend_options(options: &BuildOptions, inputs: &Inputs) -> Result<frontend::Options, Failure> {
    let platform = options
        .platforms
        .first()
        .ok_or_else(|| Failure::bug("a build has no platform"))?;
    Ok(dockerfile::options(options, platform, inputs))
}

/// Prints what was found; errors go where errors of a build go.
fn tell_check(result: &CheckResult, call: Call) -> Result<u8, Failure> {
    report::data(&match call.form {
        Form::Text => result.text(),
        Form::Json => result.json(),
    })?;
    let errors = result.errors(report::stderr_colour());
    if !errors.is_empty() && call.form == Form::Text {
        return Err(Failure::rendered(Kind::Build, errors));
    }
    Ok(u8::from(!result.is_clean() && !call.ignore_status))
}

/// Finds out what can be known of the images that a file names without asking anybody.
async fn known(
    store: &cache::Store,
    file: &Dockerfile,
    options: &frontend::Options,
    source: &SourceText,
) -> Result<Answers, Failure> {
    let mut answers = Answers::default();
    for _ in 0..MAX_ROUNDS {
        let n_known = answers.images.len();
        for Needed { request, span } in call::unknown(file, options, &answers) {
            let Request::Image(request) = request else {
                continue;
            };
            let config = match &request.kind {
                ImageKind::Registry => registry::stored(store, &request.reference, &request.platform),
                ImageKind::OciLayout { path } => {
                    let layout =
                        registry::resolve_layout(path.as_ref(), &request.reference, &request.platform);
                    layout.await.map(|resolved| Some(resolved.config))
                }
            };
            let config = config.map_err(|error| {
                failure::of_image(&error).with_excerpt(failure::excerpt_of_span(source, span))
            })?;
            // A damaged one is the build's to complain of.
            if let Some(config) = config.and_then(|config| ImageConfig::parse(&config).ok()) {
                let reference = request.reference.clone();
                let image = ResolvedImage {
                    config,
                    layers: Vec::new(),
                    reference,
                };
                answers.images.insert(request, image);
            }
        }
        if answers.images.len() == n_known {
            break;
        }
    }
    Ok(answers)
}
