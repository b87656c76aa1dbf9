//! What a call says that fits none of an entry's signatures.

use crate::args::{self, Given, Misfit, Obj};
use crate::signature::{Parsed, Ty};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

fn type_name(o: Obj) -> String {
    o.get_type().name().map_or_else(|_| "object".into(), |n| n.to_string())
}

/// The TypeError of a call that fits no overload.
#[cold]
pub fn misfit(name: &str, all: &[Parsed], given: &Given, why: Option<Misfit>, has_out: bool) -> PyErr {
    let method = given.receiver.is_some();
    // The forms with a number in front are of interest only to who gives one there.
    let number = given.positional() > 0 && matches!(args::number(given.at(0)), Ok(Some(_)));
    let in_front = |s: &&Parsed| s.params.first().is_some_and(|p| p.ty == Ty::Number && p.name == "input");
    let sigs: Vec<&Parsed> = all.iter().filter(|s| number && !method || !in_front(s)).collect();
    let valid: Vec<String> = sigs.iter().map(|s| format!(" * {}", s.show(method))).collect();
    if let [sig] = sigs[..] {
        let text = match why {
            Some(Misfit::TooMany) => {
                let most = sig.positional - method as usize;
                format!(
                    "{name}() takes {most} positional argument{} but {} were given",
                    if most == 1 { "" } else { "s" },
                    given.nargs
                )
            }
            Some(Misfit::Missing(i)) => {
                format!("{name}() missing 1 required positional argument: \"{}\"", sig.params[i].name)
            }
            Some(Misfit::Type(i, at)) => {
                let p = &sig.params[i];
                let (place, got) = if at == usize::MAX {
                    (String::new(), given.keyword(p.name).map_or_else(|| "another type".into(), type_name))
                } else {
                    (format!(" (position {})", at + 1 - method as usize), type_name(given.at(at)))
                };
                format!("{name}(): argument '{}'{place} must be {}, not {got}", p.name, p.ty.describe())
            }
            Some(Misfit::Twice(i)) => {
                format!("{name}() got multiple values for argument '{}'", sig.params[i].name)
            }
            Some(Misfit::Unknown(k)) => {
                let key = given.key(k).and_then(args::text).unwrap_or("?").to_owned();
                let hint = if key == "out" && !has_out { " (this function takes no out=)" } else { "" };
                format!("{name}() got an unexpected keyword argument '{key}'{hint}")
            }
            None => format!("{name}() received invalid arguments"),
        };
        return PyTypeError::new_err(format!("{text}; the valid signature is\n{}", valid.join("\n")));
    }
    let mut got: Vec<String> = (0..given.nargs).map(|i| type_name(given.obj(i))).collect();
    for k in 0..given.keywords() {
        if let Some(key) = given.key(k).and_then(args::text) {
            got.push(format!("{key}={}", type_name(given.obj(given.nargs + k))));
        }
    }
    PyTypeError::new_err(format!(
        "{name}() received an invalid combination of arguments - got ({}), but expected one of:\n{}",
        got.join(", "),
        valid.join("\n")
    ))
}
