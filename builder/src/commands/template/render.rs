//! Fills a parsed template with values.

use std::borrow::Cow;

use serde_json::Value;

use super::functions::{self, Function, is_true};
use super::parse::{Block, BlockKind, Command, Node, Operand, Pipeline};
use super::show::text;
use super::{Field, invalid};
use crate::report::Failure;

/// A variable with its value; `$` is the first.
type Variable<'v> = (&'v str, Cow<'v, Value>);

/// What a template is being filled with.
pub(super) struct Renderer<'v> {
    top: &'v Value,
    /// What is known of the structures in it.
    known: &'v [Field],
    /// What the dot is, innermost last.
    dots: Vec<Cow<'v, Value>>,
    variables: Vec<Variable<'v>>,
    out: String,
}

/// Fills a template with the fields of `top`.
pub(super) fn render(nodes: &[Node], top: &Value, known: &[Field]) -> Result<String, Failure> {
    let mut renderer = Renderer {
        top,
        known,
        dots: vec![Cow::Borrowed(top)],
        variables: vec![("", Cow::Borrowed(top))],
        out: String::new(),
    };
    renderer.nodes(nodes)?;
    Ok(renderer.out)
}

impl<'v> Renderer<'v> {
    /// Calls itself for blocks, which nest only so deep.
    fn nodes(&mut self, nodes: &'v [Node]) -> Result<(), Failure> {
        for node in nodes {
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Action(pipeline) => {
                    let value = self.value(pipeline)?;
                    match pipeline.variables.is_empty() {
                        true => match self.zero(pipeline).filter(|_| value.is_null()) {
                            Some(zero) => self.out.push_str(zero),
                            None => self.out.push_str(&text(&value)),
                        },
                        false => self.set(pipeline, &[value])?,
                    }
                }
                Node::Block(block) => {
                    let n_variables = self.variables.len();
                    self.block(block)?;
                    self.variables.truncate(n_variables);
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, block: &'v Block) -> Result<(), Failure> {
        let value = self.value(&block.pipeline)?;
        if block.kind == BlockKind::Range {
            return self.range(block, value);
        }
        if !block.pipeline.variables.is_empty() {
            self.set(&block.pipeline, std::slice::from_ref(&value))?;
        }
        match (is_true(&value), block.kind) {
            (true, BlockKind::With) => self.with(value, &block.body),
            (true, _) => self.nodes(&block.body),
            (false, _) => self.nodes(&block.otherwise),
        }
    }

    /// Shows nodes with another dot.
    fn with(&mut self, dot: Cow<'v, Value>, nodes: &'v [Node]) -> Result<(), Failure> {
        self.dots.push(dot);
        self.nodes(nodes)?;
        self.dots.pop();
        Ok(())
    }

    fn range(&mut self, block: &'v Block, value: Cow<'v, Value>) -> Result<(), Failure> {
        let items: Vec<(Value, Cow<'v, Value>)> = match value {
            Cow::Borrowed(Value::Array(list)) => {
                let items = list.iter().map(Cow::Borrowed);
                (0_u64..).map(Value::from).zip(items).collect()
            }
            Cow::Owned(Value::Array(list)) => {
                let items = list.into_iter().map(Cow::Owned);
                (0_u64..).map(Value::from).zip(items).collect()
            }
            value => match value.as_ref() {
                Value::Null => Vec::new(),
                Value::Object(map) => {
                    let items = map.iter();
                    let mut items: Vec<(Value, Cow<'v, Value>)> = items
                        .map(|(name, item)| (Value::from(name.as_str()), Cow::Owned(item.clone())))
                        .collect();
                    items.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                    items
                }
                _ => {
                    return Err(invalid(
                        &block.pipeline.text,
                        "`range` goes over lists and maps only",
                    ));
                }
            },
        };
        if items.is_empty() {
            return self.nodes(&block.otherwise);
        }
        let n_variables = self.variables.len();
        for (key, item) in items {
            match block.pipeline.variables.len() {
                0 => {}
                1 => self.set(&block.pipeline, std::slice::from_ref(&item))?,
                _ => self.set(&block.pipeline, &[Cow::Owned(key), item.clone()])?,
            }
            self.with(item, &block.body)?;
            self.variables.truncate(n_variables);
        }
        Ok(())
    }

    fn set(&mut self, pipeline: &'v Pipeline, values: &[Cow<'v, Value>]) -> Result<(), Failure> {
        for (name, value) in pipeline.variables.iter().zip(values) {
            if pipeline.declares {
                self.variables.push((name, value.clone()));
                continue;
            }
            let known = self.variables.iter_mut().rev().find(|known| known.0 == *name);
            let known = known.ok_or_else(|| invalid(&pipeline.text, &format!("there is no ${name}")))?;
            known.1 = value.clone();
        }
        Ok(())
    }

    /// Calls itself for parentheses, which nest only so deep.
    fn value(&self, pipeline: &'v Pipeline) -> Result<Cow<'v, Value>, Failure> {
        let mut last: Option<Cow<'v, Value>> = None;
        for command in &pipeline.commands {
            last = Some(match command {
                Command::Value(operand) => self.operand(operand, &pipeline.text)?,
                Command::Call(function, operands) => {
                    let mut values = Vec::with_capacity(operands.len() + 1);
                    for operand in operands {
                        values.push(self.operand(operand, &pipeline.text)?);
                        // What `and` and `or` needn't know may be an error.
                        let decides = match function {
                            Function::And => Some(false),
                            Function::Or => Some(true),
                            _ => None,
                        };
                        if values.last().map(|value| is_true(value)) == decides {
                            break;
                        }
                    }
                    values.extend(last);
                    let values: Vec<&Value> = values.iter().map(AsRef::as_ref).collect();
                    let result = functions::call(*function, &values);
                    Cow::Owned(result.map_err(|why| invalid(&pipeline.text, &why))?)
                }
            });
        }
        Ok(last.unwrap_or(Cow::Owned(Value::Null)))
    }

    fn operand(&self, operand: &'v Operand, action: &str) -> Result<Cow<'v, Value>, Failure> {
        match operand {
            Operand::Literal(value) => Ok(Cow::Borrowed(value)),
            Operand::Dot(names) => {
                let dot = self.dots.last().expect("because the whole is always there");
                self.fields(dot.clone(), names)
            }
            Operand::Variable(name, names) => {
                let known = self.variables.iter().rev().find(|known| known.0 == name);
                let known = known.ok_or_else(|| invalid(action, &format!("there is no ${name}")))?;
                self.fields(known.1.clone(), names)
            }
            Operand::Nested(pipeline, names) => self.fields(self.value(pipeline)?, names),
        }
    }

    /// Follows names. A field that the whole doesn't have is an error; deeper ones are null, because there they are
    /// keys of maps.
    fn fields(&self, mut value: Cow<'v, Value>, names: &[String]) -> Result<Cow<'v, Value>, Failure> {
        for name in names {
            value = match value {
                Cow::Borrowed(value) => match value.get(name) {
                    Some(next) => Cow::Borrowed(next),
                    None => self.absent(value, name)?,
                },
                Cow::Owned(mut value) => Cow::Owned(value.get_mut(name).map_or(Value::Null, Value::take)),
            };
        }
        Ok(value)
    }

    /// Returns what stands for a field that isn't in the data: null, where it could be there.
    fn absent(&self, parent: &'v Value, name: &str) -> Result<Cow<'v, Value>, Failure> {
        let is_top = std::ptr::eq(parent, self.top);
        let mut structures = self.known.iter().map(|field| field.of);
        let of = match is_top {
            true => Some(""),
            false => structures.find(|of| self.top.get(of).is_some_and(|it| std::ptr::eq(parent, it))),
        };
        let Some(of) = of else {
            return Ok(Cow::Owned(Value::Null));
        };
        let mut fields = self.known.iter().filter(|field| field.of == of);
        match fields.any(|field| field.name == name) {
            true => Ok(Cow::Owned(Value::Null)),
            false => match self.top.get("Id").filter(|_| is_top && name == "ID") {
                // Go's name for it, where JSON has another.
                Some(id) => Ok(Cow::Borrowed(id)),
                None => Err(self.no_field(parent, of, name)),
            },
        }
    }

    /// Returns what a pipeline that is nothing but a field shows when it is empty.
    fn zero(&self, pipeline: &Pipeline) -> Option<&'static str> {
        let [Command::Value(Operand::Dot(names) | Operand::Variable(_, names))] = &pipeline.commands[..]
        else {
            return None;
        };
        let (of, name) = match &names[..] {
            [.., of, name] => (Some(of), name),
            [name] => (None, name),
            [] => return None,
        };
        let is_it = |field: &&Field| field.name == name && of.is_none_or(|of| field.of == of);
        self.known.iter().find(is_it).map(|field| field.zero)
    }

    fn no_field(&self, parent: &Value, of: &str, name: &str) -> Failure {
        let there = parent.as_object().into_iter().flatten();
        let mut fields: Vec<&str> = there.map(|(name, _)| name.as_str()).collect();
        let known = self.known.iter().filter(|field| field.of == of);
        for field in known.map(|field| field.name) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        let path = if of.is_empty() {
            String::new()
        } else {
            format!(".{of}")
        };
        Failure::usage(format!("no field `{path}.{name}`"))
            .with_help(format!("the fields are {}", fields.join(", ")))
    }
}
