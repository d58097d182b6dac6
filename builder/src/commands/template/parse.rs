//! Makes a tree of a template's pieces: blocks, pipelines, commands.

use serde_json::Value;

use super::functions::Function;
use super::invalid;
use super::lex::{Piece, Token};
use crate::report::Failure;

/// How deep blocks and parentheses may nest: what reads them calls itself.
const MAX_DEPTH: usize = 64;

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Shown as it is.
    Text(String),
    /// Shown, unless it only sets a variable.
    Action(Pipeline),
    /// `if`, `with` or `range`.
    Block(Block),
}

/// `{{if …}}…{{else}}…{{end}}`
#[derive(Debug)]
pub(super) struct Block {
    pub(super) kind: BlockKind,
    pub(super) pipeline: Pipeline,
    pub(super) body: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// What a block does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BlockKind {
    /// Shows one of two parts.
    If,
    /// As `if`, and the dot is what was asked for.
    With,
    /// Shows its body once for each of several.
    Range,
}

/// Commands, the result of each being the last argument of the next.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// How it was written, for errors.
    pub(super) text: String,
    /// Variables that it sets.
    pub(super) variables: Vec<String>,
    /// Whether they are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A function with its arguments, or one value.
#[derive(Debug)]
pub(super) enum Command {
    Call(Function, Vec<Operand>),
    Value(Operand),
}

/// A value.
#[derive(Debug)]
pub(super) enum Operand {
    /// Fields of the dot.
    Dot(Vec<String>),
    /// Fields of a variable; the empty name is the whole.
    Variable(String, Vec<String>),
    Literal(Value),
    /// Fields of what stands in parentheses.
    Nested(Box<Pipeline>, Vec<String>),
}

/// Parses all pieces.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, Failure> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
    };
    let (nodes, stop) = parser.nodes(0)?;
    match stop {
        None => Ok(nodes),
        Some((action, _)) => Err(invalid(&action, "there is no block that it could belong to")),
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
}

/// What ended a list of nodes: `end`, `else`, with the rest of its tokens.
type Stop = Option<(String, Vec<Token>)>;

impl Parser {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Stop), Failure> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (action, tokens) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action, tokens) => (action, tokens),
            };
            let keyword = match tokens.first() {
                None => return Err(invalid(&action, "it is empty")),
                Some(Token::Name(name)) => name.as_str(),
                Some(_) => "",
            };
            let kind = match keyword {
                "end" | "else" => return Ok((nodes, Some((action, tokens)))),
                "if" => BlockKind::If,
                "with" => BlockKind::With,
                "range" => BlockKind::Range,
                _ => {
                    nodes.push(Node::Action(pipeline(&action, &tokens, depth)?));
                    continue;
                }
            };
            nodes.push(Node::Block(self.block(kind, &action, &tokens[1..], depth + 1)?));
        }
        Ok((nodes, None))
    }

    fn block(
        &mut self,
        kind: BlockKind,
        action: &str,
        tokens: &[Token],
        depth: usize,
    ) -> Result<Block, Failure> {
        if depth > MAX_DEPTH {
            return Err(invalid(action, "blocks nest too deep"));
        }
        let pipeline = pipeline(action, tokens, depth)?;
        let (body, stop) = self.nodes(depth)?;
        let open = || invalid(action, "it has no `{{end}}`");
        let (last, rest) = stop.ok_or_else(open)?;
        let otherwise = match rest.as_slice() {
            [Token::Name(end)] if end == "end" => Vec::new(),
            [Token::Name(word)] if word == "else" => {
                let (nodes, stop) = self.nodes(depth)?;
                match stop.ok_or_else(open)? {
                    (_, rest) if rest == [Token::Name("end".to_owned())] => nodes,
                    (last, _) => return Err(invalid(&last, "it comes after `else`")),
                }
            }
            // `else if` has no `end` of its own.
            [Token::Name(_), Token::Name(next), condition @ ..] if next == "if" || next == "with" => {
                let kind = if next == "if" {
                    BlockKind::If
                } else {
                    BlockKind::With
                };
                vec![Node::Block(self.block(kind, &last, condition, depth + 1)?)]
            }
            _ => return Err(invalid(&last, "`else` is followed by nothing, `if` or `with`")),
        };
        Ok(Block {
            kind,
            pipeline,
            body,
            otherwise,
        })
    }
}

/// Parses the tokens of an action that must be one pipeline.
fn pipeline(action: &str, tokens: &[Token], depth: usize) -> Result<Pipeline, Failure> {
    let mut input = Input { action, rest: tokens };
    let pipeline = input.pipeline(depth)?;
    match input.rest {
        [] => Ok(pipeline),
        _ => Err(invalid(action, "a parenthesis is closed that isn't open")),
    }
}

struct Input<'t> {
    action: &'t str,
    rest: &'t [Token],
}

impl Input<'_> {
    fn invalid(&self, why: &str) -> Failure {
        invalid(self.action, why)
    }

    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, Failure> {
        if depth > MAX_DEPTH {
            return Err(self.invalid("parentheses nest too deep"));
        }
        let (variables, declares) = self.variables();
        let mut commands = vec![self.command(depth)?];
        while let [Token::Pipe, rest @ ..] = self.rest {
            self.rest = rest;
            let command = self.command(depth)?;
            if let Command::Value(_) = command {
                return Err(self.invalid("only functions can stand behind a `|`"));
            }
            commands.push(command);
        }
        for (number, command) in commands.iter().enumerate() {
            if let Command::Call(function, operands) = command {
                let n_operands = operands.len() + usize::from(number > 0);
                if !function.takes(n_operands) {
                    let why = format!("`{}` got {n_operands} arguments", function.name());
                    return Err(self.invalid(&why));
                }
            }
        }
        Ok(Pipeline {
            text: self.action.to_owned(),
            variables,
            declares,
            commands,
        })
    }

    /// Reads `$a :=`, `$a, $b :=` or `$a =`, if that is what comes.
    fn variables(&mut self) -> (Vec<String>, bool) {
        let (names, declares, rest) = match self.rest {
            [Token::Variable(a, f), Token::Declare, rest @ ..] if f.is_empty() => {
                (vec![a.clone()], true, rest)
            }
            [Token::Variable(a, f), Token::Assign, rest @ ..] if f.is_empty() => {
                (vec![a.clone()], false, rest)
            }
            [
                Token::Variable(a, f),
                Token::Comma,
                Token::Variable(b, g),
                Token::Declare,
                rest @ ..,
            ] if f.is_empty() && g.is_empty() => (vec![a.clone(), b.clone()], true, rest),
            _ => return (Vec::new(), false),
        };
        self.rest = rest;
        (names, declares)
    }

    fn command(&mut self, depth: usize) -> Result<Command, Failure> {
        let function = match self.rest {
            [Token::Name(name), rest @ ..] if !matches!(name.as_str(), "true" | "false" | "nil") => {
                self.rest = rest;
                let known = Function::of(name);
                Some(known.ok_or_else(|| self.invalid(&format!("`{name}` isn't supported")))?)
            }
            _ => None,
        };
        let mut operands = Vec::new();
        while let Some(operand) = self.operand(depth)? {
            operands.push(operand);
        }
        match (function, operands.len()) {
            (Some(function), _) => Ok(Command::Call(function, operands)),
            (None, 1) => Ok(Command::Value(
                operands.pop().expect("because there is exactly one"),
            )),
            (None, 0) => Err(self.invalid("a value is missing")),
            (None, _) => match operands.first() {
                Some(Operand::Literal(_)) => Err(self.invalid("a value takes no arguments")),
                _ => Err(self.invalid("a field takes no arguments")),
            },
        }
    }

    fn operand(&mut self, depth: usize) -> Result<Option<Operand>, Failure> {
        let [token, rest @ ..] = self.rest else {
            return Ok(None);
        };
        let operand = match token {
            Token::Fields(names) => Operand::Dot(names.clone()),
            Token::Variable(name, names) => Operand::Variable(name.clone(), names.clone()),
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Name(name) => match name.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Null),
                other => {
                    let why = format!("`{other}` is neither a field, a number nor a string");
                    return Err(self.invalid(&why));
                }
            },
            Token::Open => {
                self.rest = rest;
                let inner = self.pipeline(depth + 1)?;
                let [Token::Close(names), rest @ ..] = self.rest else {
                    return Err(self.invalid("a parenthesis is not closed"));
                };
                self.rest = rest;
                return Ok(Some(Operand::Nested(Box::new(inner), names.clone())));
            }
            Token::Pipe | Token::Close(_) => return Ok(None),
            Token::Declare | Token::Assign | Token::Comma => {
                return Err(self.invalid("a variable is set in a way that isn't supported"));
            }
        };
        self.rest = rest;
        Ok(Some(operand))
    }
}
