//! The functions of templates: an allow-list. What is not listed here is unknown, whatever the engine knows.

mod catalog;
mod dicts;
mod encoding;
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
use values::Outcome;

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
                Ok(value) => return Ok(value),
                Err(why) => Fault::Refused { function, why },
            }
        };
        session::fail(fault);
        Err(FuncError::Generic(function.to_owned()))
    }
}

/// The name of the function that every printed value goes through. A template cannot write it: it is no identifier that
/// the check of the text lets pass.
pub(super) const PRINTED: &str = "lockstep__printed";

/// Lets a printed value pass, unless it is not there.
pub(super) fn printed(arguments: &[Value]) -> Result<Value, FuncError> {
    match arguments {
        [Value::NoValue | Value::Nil] => {
            session::fail(Fault::Printed);
            Err(FuncError::Generic(PRINTED.to_owned()))
        }
        [value] => Ok(value.clone()),
        _ => Err(FuncError::Generic(PRINTED.to_owned())),
    }
}
