//! The functions of templates: an allow-list. What is not listed here is unknown, whatever the engine knows.

mod catalog;
mod dicts;
mod encoding;
mod json;
mod lists;
mod logic;
mod markdown;
mod math;
mod paths;
mod regular;
mod strings;
mod values;

use gtmpl_ng::{Func, FuncError, Value};

pub use catalog::FUNCTIONS;
pub use markdown::functions_markdown;

use super::session::{self, Fault};
use values::{MAX_WEIGHT, Outcome};

/// One function that templates may call.
#[derive(Clone, Copy)]
pub struct Function {
    /// What a template calls it.
    pub name: &'static str,
    /// The heading that it stands under in the documentation.
    pub category: &'static str,
    /// A template that uses it; `.name` is `shop` and `.json` is `{"port":5432}`.
    pub example: &'static str,
    /// What the example yields; empty where it differs every time.
    pub result: &'static str,
    pub(super) call: Func,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// What a function may be given beyond ordinary values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Text, numbers, lists, dictionaries.
    Values,
    /// Binary values too.
    Binary,
    /// Binary values, and what is not there.
    Anything,
}

struct Guard {
    name: &'static str,
    least: usize,
    most: usize,
    accepts: Accepts,
}

impl Guard {
    /// Calls a function after a look at its arguments, and keeps the reason of a failure for the message.
    fn call(&self, implementation: fn(&[Value]) -> Outcome, arguments: &[Value]) -> Result<Value, FuncError> {
        let function = self.name;
        let fault = if arguments.len() < self.least || arguments.len() > self.most {
            Fault::Arguments {
                function,
                least: self.least,
                most: self.most,
                given: arguments.len(),
            }
        } else if self.accepts != Accepts::Anything
            && arguments.iter().any(|value| matches!(value, Value::NoValue))
        {
            Fault::Missing { function }
        } else if self.accepts == Accepts::Values && arguments.iter().any(session::holds_binary) {
            Fault::Binary { function }
        } else {
            match implementation(arguments) {
                Ok(value) if session::weight(&value, MAX_WEIGHT) > MAX_WEIGHT => Fault::Refused {
                    function,
                    why: values::TOO_HEAVY,
                },
                Ok(value) if session::add_part(&value) => return Ok(value),
                Ok(_) => Fault::Full,
                Err(why) => Fault::Refused { function, why },
            }
        };
        session::fail(fault);
        Err(FuncError::Generic(function.to_owned()))
    }
}

/// Functions that the preparation of a template puts in. A template cannot write them: they are no names that the check
/// of the text lets pass.
pub(super) const OURS: &[(&str, Func)] = &[(PRINTED, printed), (PART, part), (HELD, held), (TRUTH, truth)];

/// Every printed value goes through it.
pub(super) const PRINTED: &str = "lockstep__printed";
/// Every argument that is read from a key or variable goes through it.
pub(super) const PART: &str = "lockstep__part";
/// What a variable or a block holds goes through it, with the number of its slot.
pub(super) const HELD: &str = "lockstep__held";
/// Every condition goes through it: a block needs to know whether the value is empty, and does not hold it.
pub(super) const TRUTH: &str = "lockstep__truth";

fn failed(function: &str, fault: Fault) -> Result<Value, FuncError> {
    session::fail(fault);
    Err(FuncError::Generic(function.to_owned()))
}

/// Lets a printed value pass, unless it is not there.
fn printed(arguments: &[Value]) -> Result<Value, FuncError> {
    session::end_action();
    match arguments {
        [Value::NoValue | Value::Nil] => failed(PRINTED, Fault::Printed),
        [value] => Ok(value.clone()),
        _ => Err(FuncError::Generic(PRINTED.to_owned())),
    }
}

/// Lets an argument pass as long as the parts of the action are not too large together.
fn part(arguments: &[Value]) -> Result<Value, FuncError> {
    match arguments {
        [value] if session::add_part(value) => Ok(value.clone()),
        [_] => failed(PART, Fault::Full),
        _ => Err(FuncError::Generic(PART.to_owned())),
    }
}

/// Lets a value pass that is held from now on, as long as everything that is held is not too large together.
fn held(arguments: &[Value]) -> Result<Value, FuncError> {
    session::end_action();
    match arguments {
        [slot, value] => {
            let slot = values::count(slot).map_err(|_| FuncError::Generic(HELD.to_owned()))?;
            if session::hold(slot, value) {
                Ok(value.clone())
            } else {
                failed(HELD, Fault::Full)
            }
        }
        _ => Err(FuncError::Generic(HELD.to_owned())),
    }
}

fn truth(arguments: &[Value]) -> Result<Value, FuncError> {
    session::end_action();
    match arguments {
        [value] => Ok(Value::Bool(!values::is_empty(value))),
        _ => Err(FuncError::Generic(TRUTH.to_owned())),
    }
}
