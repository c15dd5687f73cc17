//! The functions that templates may call. This is an allow-list: a template cannot call other
//! functions of the engine.

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

/// A function that templates may call.
#[derive(Clone, Copy)]
pub struct Function {
    /// The name in templates.
    pub name: &'static str,
    /// The heading in the documentation.
    pub category: &'static str,
    /// A template that calls the function. `.name` is `shop` and `.json` is `{"port":5432}`.
    pub example: &'static str,
    /// The output of the example; empty if it differs each time.
    pub result: &'static str,
    pub(super) call: Func,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The arguments that a function accepts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    /// Text, numbers, lists and dictionaries.
    Values,
    /// Binary values as well.
    Binary,
    /// Binary and missing values as well.
    Anything,
}

struct Guard {
    name: &'static str,
    least: usize,
    most: usize,
    accepts: Accepts,
}

impl Guard {
    /// Checks the arguments and calls a function. Records why it failed, for the message.
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

/// Functions that lockstep inserts into a template before evaluation. A template cannot call them
/// itself, because the check of its text rejects their names.
pub(super) const OURS: &[(&str, Func)] = &[(PRINTED, printed), (PART, part), (HELD, held), (TRUTH, truth)];

/// Wraps every printed value.
pub(super) const PRINTED: &str = "lockstep__printed";
/// Wraps every argument that is read from a key or variable.
pub(super) const PART: &str = "lockstep__part";
/// Wraps the value of a variable or block, and has the number of its slot.
pub(super) const HELD: &str = "lockstep__held";
/// Wraps every condition. A block only needs to know whether the value is empty, so it does not
/// hold the value.
pub(super) const TRUTH: &str = "lockstep__truth";

fn failed(function: &str, fault: Fault) -> Result<Value, FuncError> {
    session::fail(fault);
    Err(FuncError::Generic(function.to_owned()))
}

/// Returns a printed value unchanged. Fails if it does not exist.
fn printed(arguments: &[Value]) -> Result<Value, FuncError> {
    session::end_action();
    match arguments {
        [Value::NoValue | Value::Nil] => failed(PRINTED, Fault::Printed),
        [value] => Ok(value.clone()),
        _ => Err(FuncError::Generic(PRINTED.to_owned())),
    }
}

/// Returns an argument unchanged. Fails if the parts of the action exceed their limit.
fn part(arguments: &[Value]) -> Result<Value, FuncError> {
    match arguments {
        [value] if session::add_part(value) => Ok(value.clone()),
        [_] => failed(PART, Fault::Full),
        _ => Err(FuncError::Generic(PART.to_owned())),
    }
}

/// Returns the value of a variable or block unchanged. Fails if all held values exceed their limit.
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
