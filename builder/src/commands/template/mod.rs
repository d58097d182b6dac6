//! Go's templates, as people use them with `--format`: fields, pipelines, variables, `if`, `with`, `range`, and the
//! functions of Go and docker. `define`, `template`, `break` and `continue` are refused by name.
//!
//! Values are JSON, so that types count less than in Go: a field that isn't there is `<no value>`, and false. Where a command
//! says which fields docker's structures have, these show as in Go when they are empty, and others are errors.

mod functions;
mod lex;
mod parse;
mod render;
mod show;

use serde_json::Value;

use crate::report::Failure;

/// Longest template, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
}

/// What a field of a structure shows where the data don't have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    /// The field of the whole that has it; empty for fields of the whole itself.
    pub(crate) of: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// What Go shows for its zero value.
    pub(crate) zero: &'static str,
}

fn invalid(action: &str, why: &str) -> Failure {
    Failure::usage(format!("invalid format `{{{{{action}}}}}`: {why}"))
}

impl Template {
    /// Parses a template.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.len() > MAX_BYTES {
            return Err(Failure::usage(format!(
                "the format is longer than {MAX_BYTES} bytes"
            )));
        }
        let nodes = parse::parse(lex::pieces(text)?)?;
        Ok(Self { nodes })
    }

    /// Fills the template with the fields of `top`. A field that `top` doesn't have is an error; deeper ones show as
    /// `<no value>`, because there they are keys of maps.
    pub(crate) fn render(&self, top: &Value) -> Result<String, Failure> {
        self.render_typed(top, &[])
    }

    /// Does the same with structures of known fields.
    pub(crate) fn render_typed(&self, top: &Value, fields: &[Field]) -> Result<String, Failure> {
        render::render(&self.nodes, top, fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top() -> Value {
        serde_json::json!({
            "Id": "sha256:ab", "RepoTags": ["a:1", "b:2"], "Size": 12, "None": null, "Set": {"80/tcp": {}},
            "Config": {"Env": ["A=1", "B=2"], "Labels": {"z": "last", "a.b": "x y"}, "Cmd": null, "Tty": false},
        })
    }

    fn check(cases: &[(&str, &str)]) {
        for (template, expected) in cases {
            let rendered = Template::parse(template).and_then(|parsed| parsed.render(&top()));
            assert_eq!(rendered.unwrap(), *expected, "{template}");
        }
    }

    #[test]
    fn fields_and_functions_are_shown() {
        check(&[
            ("", ""),
            ("plain", "plain"),
            ("{{.Id}}", "sha256:ab"),
            ("<{{ .Id }}|{{.Size}}>", "<sha256:ab|12>"),
            ("{{.Config.Env}}", "[A=1 B=2]"),
            ("{{.Config.Labels}}", "map[a.b:x y z:last]"),
            ("{{.Set}}", "map[80/tcp:{}]"),
            ("{{.Config.Nothing.There}}", "<no value>"),
            ("{{.None}}", "<no value>"),
            ("{{.Config.Tty}}", "false"),
            ("{{json .Config.Env}}", r#"["A=1","B=2"]"#),
            ("{{json .Config.Cmd}}", "null"),
            ("{{index .RepoTags 1}}", "b:2"),
            (r#"{{index .Config.Labels "a.b"}}"#, "x y"),
            (r#"{{index .Config "Env" 0}}"#, "A=1"),
            ("{{len .RepoTags}}", "2"),
            (r#"{{join .RepoTags ", "}}"#, "a:1, b:2"),
            (
                "{{upper .Id}}{{lower .Id}}{{println .Size}}",
                "SHA256:ABsha256:ab12\n",
            ),
        ]);
    }

    #[test]
    fn blocks_variables_and_pipelines_work_as_in_go() {
        check(&[
            ("{{range .RepoTags}}<{{.}}>{{end}}", "<a:1><b:2>"),
            (
                "{{range $i, $tag := .RepoTags}}{{if $i}}, {{end}}{{$tag}}{{end}}",
                "a:1, b:2",
            ),
            (
                "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
                "a.b=x y;z=last;",
            ),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("{{range .RepoTags}}{{$.Size}}{{end}}", "1212"),
            ("{{range split \"a,b\" \",\"}}[{{.}}]{{end}}", "[a][b]"),
            ("{{if .Config.Cmd}}yes{{else}}no{{end}}", "no"),
            ("{{if .None}}1{{else if eq .Size 12}}2{{else}}3{{end}}", "2"),
            ("{{with .Config}}{{len .Env}}{{.Nothing}}{{end}}", "2<no value>"),
            ("{{with .None}}x{{else}}{{.Id}}{{end}}", "sha256:ab"),
            ("{{with $c := .Config}}{{$c.Tty}}{{end}}", "false"),
            ("{{$n := 1}}{{range .RepoTags}}{{$n = 5}}{{end}}{{$n}}", "5"),
            ("a {{- .Size -}} b {{/* not shown }} */}}c", "a12b c"),
            ("{{.Id | upper | printf \"%s!\"}}", "SHA256:AB!"),
            ("{{(index .Config.Env 0) | lower}}", "a=1"),
            ("{{(index .RepoTags 0 | split \":\")}}", "[:]"),
            ("{{and .Id .Size}} {{or .None \"x\"}} {{not .None}}", "12 x true"),
            ("{{or .Id (index .RepoTags 9)}}", "sha256:ab"),
            (
                "{{eq .Id \"x\" \"sha256:ab\"}}{{ne .Size 12}}{{lt 1 2}}{{ge 1 2}}",
                "truefalsetruefalse",
            ),
            (
                "{{slice .Id 7}} {{slice .Id 0 6}} {{slice .RepoTags 1 2}}",
                "ab sha256 [b:2]",
            ),
            (
                "{{title \"a bc\"}}|{{pad \"x\" 1 2}}|{{truncate .Id 3}}",
                "A Bc| x  |sha",
            ),
            ("{{print 1 2 \"x\" 3}}{{println 1 \"x\"}}", "1 2x31 x\n"),
            (
                "{{printf \"%5d|%-5s|%05d|%q|%v|%.2s%%\" 12 \"ab\" -7 \"c\\\"\" .RepoTags .Id}}",
                "   12|ab   |-0007|\"c\\\"\"|[a:1 b:2]|sh%",
            ),
            (
                "{{index .Config.Labels \"no\"}}|{{index .None \"no\"}}|{{.Config.Labels.no}}",
                "||<no value>",
            ),
            ("{{if index .Config.Labels \"z\"}}has z{{end}}", "has z"),
            ("{{json (index .RepoTags 0)}} {{`raw \"}}`}}", "\"a:1\" raw \"}}"),
        ]);
    }

    #[test]
    fn what_cannot_be_rendered_says_why() {
        for (template, expected) in [
            ("{{.Id", "`{{` without `}}`"),
            ("{{}}", "it is empty"),
            ("{{range .RepoTags}}", "it has no `{{end}}`"),
            ("{{end}}", "no block that it could belong to"),
            ("{{if .Id}}{{else}}{{else}}{{end}}", "it comes after `else`"),
            ("{{if .Id}}{{else x}}{{end}}", "`else` is followed by"),
            ("{{if}}{{end}}", "a value is missing"),
            ("{{range .Id}}{{end}}", "`range` goes over lists and maps only"),
            ("{{template \"x\"}}", "`template` isn't supported"),
            ("{{$x}}", "there is no $x"),
            ("{{$x = 1}}", "there is no $x"),
            ("{{(.Id}}", "a parenthesis is not closed"),
            ("{{.Id)}}", "a parenthesis is closed that isn't open"),
            ("{{.Id | .Size}}", "only functions can stand behind a `|`"),
            ("{{lt .Id 1}}", "`lt` got a value that doesn't fit it"),
            ("{{printf \"%d\" .Id}}", "can't show sha256:ab"),
            ("{{printf \"%s\"}}", "fewer values"),
            ("{{printf \"%y\" 1}}", "no verb `%y`"),
            ("{{printf \"%99999d\" 1}}", "4096 characters at most"),
            ("{{1x}}", "`1x` is no number"),
            ("{{%}}", "`%` means nothing here"),
            ("{{range .RepoTags}}{{$.Ids}}{{end}}", "no field `.Ids`"),
            ("{{.Id .Size}}", "a field takes no arguments"),
            ("{{json}}", "`json` got 0 arguments"),
            ("{{index .RepoTags 2}}", "index 2 of a list of 2"),
            ("{{index .RepoTags -1}}", "index -1 of a list of 2"),
            ("{{index .Id 0}}", "doesn't fit its value"),
            ("{{json \"a}}", "a quote is not closed"),
            ("{{json x}}", "neither a field, a number nor a string"),
            ("{{.A..B}}", "is no field"),
            ("{{.Ids}}", "no field `.Ids`"),
        ] {
            let failure = Template::parse(template)
                .and_then(|parsed| parsed.render(&top()))
                .unwrap_err();
            assert!(
                failure.render(false).contains(expected),
                "{template}: {}",
                failure.render(false)
            );
            assert_eq!(failure.exit_code(), 2);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let check = |n: usize, is_fine: bool| {
            let blocks = format!("{}{}", "{{if 1}}".repeat(n), "{{end}}".repeat(n));
            let parens = format!("{{{{{}1{}}}}}", "(".repeat(n), ")".repeat(n));
            for template in [blocks, parens] {
                assert_eq!(Template::parse(&template).is_ok(), is_fine, "{template}");
            }
        };
        check(64, true);
        check(65, false);
        check(4000, false);
    }
}
