//! `COPY` and `ADD`. Spec: dockerfile.md §10.

use crate::ast::Copy;
use crate::diagnostic::Diagnostic;
use crate::lines::Text;
use crate::parse::{Context, command, words};

/// Reads what follows `COPY` or `ADD`.
pub(crate) fn parse(context: &Context<'_>) -> Result<Copy, Diagnostic> {
    let (mut sources, n_heredocs) = arguments(context)?;
    let n_arguments = sources.len() + n_heredocs;
    let ends_in_heredoc =
        context.line.heredocs.last().is_some_and(|(opener, _)| {
            opener.end == context.line.offset_of(context.rest) + context.rest.len()
        });
    let name = context.name;
    if n_arguments < 2 {
        let provided = if n_arguments == 1 {
            "only one was provided"
        } else {
            "none was provided"
        };
        return Err(context.error(format!(
            "{name} requires at least two arguments, but {provided}. Destination could not be determined"
        )));
    }
    let dest = match sources.pop() {
        Some(dest) if !ends_in_heredoc => dest,
        _ => return Err(context.error(format!("{name} cannot accept a heredoc as a destination"))),
    };
    for source in sources.iter().filter(|_| name == "COPY") {
        if let Some(kind) = remote(&source.value) {
            let what = if kind == Remote::Git { "a git ref" } else { "a URL" };
            return Err(Diagnostic::error(format!("source can't be {what} for COPY"))
                .at(source.span)
                .help("ADD takes remote sources"));
        }
    }
    Ok(Copy {
        from: context.flags.value("from").cloned(),
        chown: context.flags.value("chown").cloned(),
        chmod: context.flags.value("chmod").cloned(),
        link: context.flags.switch("link") == Some(true),
        parents: context.flags.switch("parents") == Some(true),
        excludes: context.flags.values("exclude").cloned().collect(),
        checksum: context.flags.value("checksum").cloned(),
        keep_git_dir: context.flags.switch("keep-git-dir"),
        unpack: context.flags.switch("unpack"),
        sources,
        heredocs: context
            .line
            .heredocs
            .iter()
            .map(|(_, heredoc)| heredoc.clone())
            .collect(),
        dest,
    })
}

/// Returns the arguments that are no heredocs, and how many are.
fn arguments(context: &Context<'_>) -> Result<(Vec<Text>, usize), Diagnostic> {
    let (line, rest) = (context.line, context.rest);
    match command::json_array(rest) {
        Some(Ok(values)) => {
            let span = line.text_of(rest).span;
            return Ok((values.into_iter().map(|value| Text { value, span }).collect(), 0));
        }
        Some(Err(message)) => return Err(Diagnostic::error(message).at(line.text_of(rest).span)),
        None => {}
    }
    let mut texts = Vec::new();
    let mut at = line.offset_of(rest);
    let end = at + rest.len();
    for (opener, _) in &line.heredocs {
        texts.extend(
            words::blank_separated(&line.text[at..opener.start])
                .into_iter()
                .map(|word| line.text_of(word)),
        );
        at = opener.end;
    }
    texts.extend(
        words::blank_separated(&line.text[at..end])
            .into_iter()
            .map(|word| line.text_of(word)),
    );
    Ok((texts, line.heredocs.len()))
}

/// Kinds of sources that aren't in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remote {
    /// Fetched with one request.
    Http,
    /// A repository.
    Git,
}

/// Says whether a source is remote, as far as can be seen; also used after expansion.
pub(crate) fn remote(source: &str) -> Option<Remote> {
    if source.starts_with("git://") || source.starts_with("ssh://") || source.starts_with("git@") {
        return Some(Remote::Git);
    }
    let address = source
        .strip_prefix("http://")
        .or_else(|| source.strip_prefix("https://"))?;
    let path = address.split(['#', '?']).next().unwrap_or_default();
    Some(if path.ends_with(".git") {
        Remote::Git
    } else {
        Remote::Http
    })
}
