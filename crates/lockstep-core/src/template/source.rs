//! Checks the text of a template and prepares it for the engine.

use std::collections::BTreeMap;

use super::{
    TemplateError,
    functions::{FUNCTIONS, HELD, PART, PRINTED, TRUTH},
    literal,
    position::{Edit, Rewritten, at},
    scan::{self, Action, Kind, Token},
    session,
};

/// Maximum length of the text of a template, in bytes.
pub(super) const MAX_TEXT: usize = 256 * 1024;
/// Maximum nesting depth of blocks and of parentheses. Each level needs stack.
const MAX_NESTING: usize = 32;
/// Maximum number of arguments of a call, and of stages of a pipeline.
const MAX_ARGUMENTS: usize = 64;
/// Maximum number of variables. Each holds a copy of its value.
const MAX_VARIABLES: usize = 64;

/// What `.` and `$` refer to in an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    /// Whether `.` contains the keys of the Secret.
    pub(super) dot_is_root: bool,
    /// Whether `$` contains the keys of the Secret.
    pub(super) dollar_is_root: bool,
}

/// A checked template.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) actions: Vec<(Action, Scope)>,
    pub(super) rewritten: Rewritten,
}

struct Block {
    keyword: &'static str,
    start: usize,
    outer: Scope,
    /// The number of engine blocks: one, plus one for each `else if` and `else with`.
    levels: usize,
    /// The number of engine blocks whose `end` is not in the text.
    unwritten_ends: usize,
    template: Option<String>,
    /// The number of the template that the block defines.
    number: Option<usize>,
}

impl<'a> Source<'a> {
    /// Checks a template.
    pub(super) fn new(text: &'a str) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEXT {
            return Err(TemplateError::whole("the template is longer than 256 KiB."));
        }
        if let Some(offset) = text.find(session::OPEN) {
            return Err(at(
                text,
                offset,
                "the template contains the noncharacter U+10FFFE.",
            ));
        }
        let mut builder = Builder::new(text);
        for action in scan::actions(text)? {
            builder.add(action)?;
        }
        builder.finish()
    }

    /// Returns the action that contains a byte of the text.
    pub(super) fn action_at(&self, offset: usize) -> Option<&(Action, Scope)> {
        self.actions
            .iter()
            .find(|(action, _)| action.span.contains(&offset))
    }

    /// Returns the text of a word.
    pub(super) fn word(&self, token: &Token) -> &'a str {
        &self.text[token.span.clone()]
    }
}

struct Builder<'a> {
    text: &'a str,
    edits: Vec<Edit>,
    actions: Vec<(Action, Scope)>,
    blocks: Vec<Block>,
    scope: Scope,
    variables: usize,
    /// The calls of each template. The main template has an empty name.
    calls: BTreeMap<String, Vec<(String, usize)>>,
    /// The number of defined templates.
    templates: usize,
}

/// The first slot number of variables, above those of blocks.
const VARIABLE_SLOTS: usize = 1 << 40;

impl<'a> Builder<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            edits: vec![],
            actions: vec![],
            blocks: vec![],
            scope: Scope {
                dot_is_root: true,
                dollar_is_root: true,
            },
            variables: 0,
            calls: BTreeMap::new(),
            templates: 0,
        }
    }

    fn error<T>(&self, offset: usize, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(at(self.text, offset, message))
    }

    fn word(&self, token: &Token) -> &'a str {
        &self.text[token.span.clone()]
    }

    fn insert_at(&mut self, offset: usize, text: impl Into<String>) {
        self.edits.push(Edit {
            span: offset..offset,
            text: text.into(),
        });
    }

    fn add(&mut self, action: Action) -> Result<(), TemplateError> {
        self.check_words(&action)?;
        let scope = self.scope;
        let first = action
            .tokens
            .first()
            .filter(|token| token.kind == Kind::Word)
            .map(|token| self.word(token));
        match first {
            Some("if") => {
                self.condition(&action, 1);
                self.open("if", &action, scope)?;
            }
            Some(keyword @ ("with" | "range")) => {
                let inner = Scope {
                    dot_is_root: false,
                    ..scope
                };
                self.open(if keyword == "with" { "with" } else { "range" }, &action, inner)?;
                self.hold_block_result(&action, 1);
            }
            Some("define") => self.open_template("define", &action)?,
            Some("block") => {
                self.call(&action)?;
                self.hold_block_result(&action, 2);
                self.open_template("block", &action)?;
            }
            Some("template") => {
                self.call(&action)?;
                self.hold_block_result(&action, 2);
            }
            Some("else") => self.otherwise(&action)?,
            Some("end") => self.close(&action)?,
            Some("break" | "continue") => {}
            _ => {
                let assigns = matches!(action.tokens.get(1), Some(token) if matches!(token.kind, Kind::Declare | Kind::Assign));
                if assigns {
                    self.refuse_change_in_place(&action)?;
                    self.hold(&action, VARIABLE_SLOTS + self.actions.len());
                } else if !action.tokens.is_empty() {
                    self.insert_at(action.inner_end, format!(" | {PRINTED}"));
                }
            }
        }
        self.actions.push((action, scope));
        Ok(())
    }

    /// Holds the result of the action's pipeline in the slot.
    fn hold(&mut self, action: &Action, slot: usize) {
        self.insert_at(action.inner_end, format!(" | {HELD} {slot}"));
    }

    /// Keeps the result of the pipeline that follows `keywords` tokens, in the slot of the innermost
    /// block. Blocks of the same depth of a template are never open at the same time, so they share
    /// a slot.
    fn hold_block_result(&mut self, action: &Action, keywords: usize) {
        if action.tokens.len() > keywords {
            let depth: usize = self.blocks.iter().map(|block| block.levels).sum();
            let template = self
                .blocks
                .iter()
                .rev()
                .find_map(|block| block.number)
                .unwrap_or_default();
            self.hold(action, template << 8 | depth);
        }
    }

    /// Holds only the truth of a condition, or its value if the condition declares a variable.
    fn condition(&mut self, action: &Action, words: usize) {
        if action.tokens.iter().any(|token| token.kind == Kind::Declare) {
            self.hold(action, VARIABLE_SLOTS + self.actions.len());
        } else if action.tokens.len() > words {
            self.insert_at(action.inner_end, format!(" | {TRUTH}"));
        }
    }

    fn check_words(&mut self, action: &Action) -> Result<(), TemplateError> {
        let mut arguments = vec![0_usize];
        let mut stages = vec![1_usize];
        let begin = self.pipeline_begin(action);
        // whether the next word is the first of a call, so not an argument
        let mut first = true;
        for (index, token) in action.tokens.iter().enumerate() {
            if index >= begin {
                if !first && matches!(token.kind, Kind::Dot | Kind::Field | Kind::Variable) {
                    self.insert_at(token.span.start, format!("({PART} "));
                    self.insert_at(token.span.end, ")");
                }
                first = matches!(token.kind, Kind::Open | Kind::Pipe);
            }
            match token.kind {
                Kind::Open => {
                    arguments.push(0);
                    stages.push(1);
                }
                Kind::Close => {
                    arguments.pop();
                    stages.pop();
                }
                Kind::Pipe => {
                    if let (Some(stage), Some(argument)) = (stages.last_mut(), arguments.last_mut()) {
                        *stage += 1;
                        *argument = 0;
                    }
                }
                Kind::Declare => self.variables += 1,
                _ => {}
            }
            if token.kind != Kind::Close
                && let Some(argument) = arguments.last_mut()
            {
                *argument += 1;
            }
            if arguments.len() > MAX_NESTING {
                return self.error(token.span.start, "parentheses are nested deeper than 32 levels.");
            }
            if arguments.last().is_none_or(|count| *count > MAX_ARGUMENTS + 1) && token.kind != Kind::Close
                || stages.last().is_some_and(|count| *count > MAX_ARGUMENTS)
            {
                return self.error(
                    token.span.start,
                    "a call has more than 64 arguments, or a pipeline more than 64 stages.",
                );
            }
            if self.variables > MAX_VARIABLES {
                return self.error(token.span.start, "the template declares more than 64 variables.");
            }
            match token.kind {
                Kind::Word => self.check_word(index, token)?,
                Kind::Text => self.edits.extend(literal::rewritten(self.text, token)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Returns the start of an action's pipeline: after its keyword, template name and
    /// declarations.
    fn pipeline_begin(&self, action: &Action) -> usize {
        let assigned = |token: &Token| matches!(token.kind, Kind::Declare | Kind::Assign);
        if let Some(assigned) = action.tokens.iter().position(assigned) {
            return assigned + 1;
        }
        let keyword = |index: usize| {
            let token = action.tokens.get(index)?;
            (token.kind == Kind::Word).then(|| self.word(token))
        };
        match keyword(0) {
            Some("template" | "block" | "define") => 2,
            Some("else") if keyword(1).is_some() => 2,
            Some("if" | "with" | "range" | "else") => 1,
            _ => 0,
        }
    }

    fn check_word(&self, index: usize, token: &Token) -> Result<(), TemplateError> {
        let word = self.word(token);
        let keyword = matches!(
            word,
            "if" | "with" | "range" | "define" | "block" | "template" | "else" | "end" | "break" | "continue"
        );
        let value = matches!(word, "true" | "false" | "nil");
        if keyword && index < 2 || value || FUNCTIONS.iter().any(|function| function.name == word) {
            return Ok(());
        }
        self.error(
            token.span.start,
            format!(
                "\"{word}\" is not a function of lockstep's templates.{}",
                reason(word)
            ),
        )
    }

    fn open(&mut self, keyword: &'static str, action: &Action, inner: Scope) -> Result<(), TemplateError> {
        let start = action.span.start;
        self.blocks.push(Block {
            keyword,
            start,
            outer: self.scope,
            levels: 1,
            unwritten_ends: 0,
            template: None,
            number: None,
        });
        self.scope = inner;
        self.check_depth(start)
    }

    fn check_depth(&self, offset: usize) -> Result<(), TemplateError> {
        if self.blocks.iter().map(|block| block.levels).sum::<usize>() > MAX_NESTING {
            return self.error(
                offset,
                "blocks are nested deeper than 32 levels; each \"else if\" counts as one.",
            );
        }
        Ok(())
    }

    fn template_name(&self, action: &Action) -> Result<String, TemplateError> {
        match action.tokens.get(1) {
            Some(token) if token.kind == Kind::Text && !self.word(token).contains('\\') => {
                Ok(self.word(token).trim_matches(['"', '`']).to_owned())
            }
            _ => self.error(
                action.span.start,
                "the name of a template must be in quotes, without a backslash.",
            ),
        }
    }

    fn open_template(&mut self, keyword: &'static str, action: &Action) -> Result<(), TemplateError> {
        let name = self.template_name(action)?;
        self.open(
            keyword,
            action,
            Scope {
                dot_is_root: false,
                dollar_is_root: false,
            },
        )?;
        self.templates += 1;
        if let Some(block) = self.blocks.last_mut() {
            block.template = Some(name);
            block.number = Some(self.templates);
        }
        Ok(())
    }

    fn call(&mut self, action: &Action) -> Result<(), TemplateError> {
        let callee = self.template_name(action)?;
        let caller = self
            .blocks
            .iter()
            .rev()
            .find_map(|block| block.template.clone())
            .unwrap_or_default();
        self.calls
            .entry(caller)
            .or_default()
            .push((callee, action.span.start));
        Ok(())
    }

    fn otherwise(&mut self, action: &Action) -> Result<(), TemplateError> {
        let next = action.tokens.get(1);
        let next_word = next
            .filter(|token| token.kind == Kind::Word)
            .map(|token| self.word(token));
        let Some(block) = self.blocks.last_mut() else {
            return self.error(action.span.start, "{{ else }} is outside of a block.");
        };
        self.scope = block.outer;
        match (block.keyword, next_word) {
            ("if", Some("if")) => {
                block.levels += 1;
                self.condition(action, 2);
            }
            ("with", Some("with")) => {
                block.levels += 1;
                block.unwritten_ends += 1;
                self.scope.dot_is_root = false;
                if let Some(token) = next {
                    self.insert_at(token.span.start, "}}{{");
                }
                self.hold_block_result(action, 2);
            }
            ("if" | "with" | "range", None) if next.is_none() => {}
            _ => {
                return self.error(action.span.start, "{{ else }} is not allowed in this block.");
            }
        }
        self.check_depth(action.span.start)
    }

    fn close(&mut self, action: &Action) -> Result<(), TemplateError> {
        let Some(block) = self.blocks.pop() else {
            return self.error(action.span.start, "{{ end }} has no matching block.");
        };
        self.scope = block.outer;
        for _ in 0..block.unwritten_ends {
            self.insert_at(action.span.end, &self.text[action.span.clone()]);
        }
        Ok(())
    }

    /// Rejects calls that rely on a change of the first argument. Unlike in Sprig, `set` and
    /// similar functions return a new value.
    fn refuse_change_in_place(&self, action: &Action) -> Result<(), TemplateError> {
        let [target, _, function, argument, ..] = action.tokens.as_slice() else {
            return Ok(());
        };
        let changes = matches!(
            self.word(function),
            "set" | "unset" | "merge" | "mergeOverwrite" | "mustMerge" | "mustMergeOverwrite"
        );
        if changes && argument.kind == Kind::Variable && self.word(target).starts_with("$_") {
            let (function, argument) = (self.word(function), self.word(argument));
            return self.error(
                action.span.start,
                format!("{function} does not change {argument}. Assign its result: {{{{ {argument} = {function} {argument} … }}}}."),
            );
        }
        Ok(())
    }

    fn finish(self) -> Result<Source<'a>, TemplateError> {
        if let Some(block) = self.blocks.last() {
            return self.error(
                block.start,
                format!("{{{{ {} }}}} is not closed by {{{{ end }}}}.", block.keyword),
            );
        }
        self.check_calls()?;
        Ok(Source {
            text: self.text,
            actions: self.actions,
            rewritten: Rewritten::new(self.text, self.edits),
        })
    }

    /// Rejects templates that call themselves, and call chains above the limit.
    fn check_calls(&self) -> Result<(), TemplateError> {
        let mut depth: BTreeMap<&str, usize> = self.calls.keys().map(|name| (name.as_str(), 0)).collect();
        for _ in 0..=MAX_NESTING {
            let mut deeper = None;
            for (caller, callees) in &self.calls {
                for (callee, offset) in callees {
                    let below = depth.get(callee.as_str()).map_or(0, |depth| depth + 1);
                    if depth.get(caller.as_str()).is_some_and(|known| *known < below) {
                        depth.insert(caller, below);
                        deeper = Some(*offset);
                    }
                }
            }
            match deeper {
                None => return Ok(()),
                Some(offset) if depth.values().any(|depth| *depth > MAX_NESTING) => {
                    return self.error(
                        offset,
                        "a template calls itself, or templates are nested more than 32 deep.",
                    );
                }
                Some(_) => {}
            }
        }
        Err(TemplateError::whole(
            "a template calls itself, or templates are nested more than 32 deep.",
        ))
    }
}

/// Explains why a function of other template engines does not exist.
fn reason(word: &str) -> &'static str {
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| word.starts_with(prefix));
    if starts(&["rand", "uuid", "shuffle", "gen", "derivePassword", "encryptAES"]) {
        " A template must produce the same output for the same input."
    } else if starts(&[
        "now",
        "date",
        "ago",
        "mustDate",
        "htmlDate",
        "toDate",
        "mustToDate",
        "unixEpoch",
        "duration",
    ]) {
        " Templates have no clock."
    } else if starts(&["env", "expandenv", "getHostByName", "os"]) {
        " Templates can read only the keys of the Secret."
    } else {
        ""
    }
}
