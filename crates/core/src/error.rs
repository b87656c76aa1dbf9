//! The one error type of the library: a kind (which Python exception it becomes) and a message
//! that names op, shapes, dtypes and cure. Boxed, so that `Result<Tensor>` stays two words.

use std::fmt;

/// Which exception the error becomes in Python (`py/src/error.rs` holds the mapping).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Shapes that do not fit: `ShapeError(RuntimeError, ValueError)`.
    Shape,
    /// A dimension or index out of range: `IndexError`.
    Index,
    /// A wrong argument type or dtype where PyTorch raises `TypeError`.
    Type,
    /// A value outside its domain: `ValueError`.
    Value,
    /// Everything that PyTorch raises as a plain `RuntimeError`.
    Runtime,
    /// An argument, dtype or device that is not supported: `NotImplementedError`.
    NotImplemented,
    /// `OutOfMemoryError(RuntimeError, MemoryError)`.
    OutOfMemory,
    /// `linalg.LinAlgError(RuntimeError)`.
    LinAlg,
    /// Ctrl-C seen during a long operation.
    Interrupted,
    /// An exception raised by Python code that the core called (hook, Function): carried unchanged.
    Foreign,
}

/// See the module text.
pub struct Error(Box<Repr>);

struct Repr {
    kind: Kind,
    msg: String,
    foreign: Option<Box<dyn std::any::Any + Send + Sync>>,
    /// Where it happened, innermost first; the binding adds them to the exception.
    notes: Vec<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    #[cold]
    pub fn new(kind: Kind, msg: impl Into<String>) -> Error {
        Error(Box::new(Repr { kind, msg: msg.into(), foreign: None, notes: Vec::new() }))
    }

    /// Carries an exception object of the embedding language through the core.
    #[cold]
    pub fn foreign(payload: Box<dyn std::any::Any + Send + Sync>) -> Error {
        let msg = "an exception was raised by a callback".into();
        Error(Box::new(Repr { kind: Kind::Foreign, msg, foreign: Some(payload), notes: Vec::new() }))
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    pub fn message(&self) -> &str {
        &self.0.msg
    }

    /// The carried exception object, if this is [`Kind::Foreign`].
    pub fn into_foreign(self) -> Option<Box<dyn std::any::Any + Send + Sync>> {
        self.0.foreign
    }

    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// The same error, saying more about its origin.
    pub fn with_note(mut self, note: String) -> Error {
        self.0.notes.push(note);
        self
    }

    /// The same error with a prefix in front of its message (the op that was running).
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.msg = format!("{what}: {}", self.0.msg);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.msg)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.msg)
    }
}

impl std::error::Error for Error {}

/// `err!(Shape, "add: shapes {:?} and {:?} ...", a, b)` builds an [`Error`].
#[macro_export]
macro_rules! err {
    ($kind:ident, $($fmt:tt)+) => {
        $crate::error::Error::new($crate::error::Kind::$kind, format!($($fmt)+))
    };
}

/// `bail!(Index, "...")` returns the error.
#[macro_export]
macro_rules! bail {
    ($kind:ident, $($fmt:tt)+) => { return Err($crate::err!($kind, $($fmt)+)) };
}

/// `ensure!(cond, Shape, "...")` returns the error unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($cond:expr, $kind:ident, $($fmt:tt)+) => {
        if !$cond { return Err($crate::err!($kind, $($fmt)+)) }
    };
}
