"""Arguments by name: what a call of a registry function means, read from the signatures the core declares."""

import ast

from .. import _C

Tensor = _C.Tensor

ALIASES = {
    "axis": "dim",
    "keepdims": "keepdim",
    "x": "input",
    "self": "input",
    "x1": "input",
    "a": "input",
    "x2": "other",
}


def _int(v):
    return (isinstance(v, int) and not isinstance(v, bool)) or (
        hasattr(v, "__index__") and not isinstance(v, (bool, Tensor))
    )


def _number(v):
    return isinstance(v, (int, float, complex)) or (isinstance(v, Tensor) and v.ndim == 0) or hasattr(v, "__float__")


FITS = {
    "Tensor": lambda v: isinstance(v, Tensor),
    "Tensors": lambda v: isinstance(v, (list, tuple)),
    "Operand": lambda v: isinstance(v, Tensor) or _number(v),
    "Number": _number,
    "float": _number,
    "int": _int,
    "ints": lambda v: _int(v) or isinstance(v, (list, tuple)),
    "size": lambda v: _int(v) or isinstance(v, (list, tuple)),
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
}


class Param:
    __slots__ = ("default", "fits", "keyword_only", "name", "optional", "required", "type")

    def __init__(self, text, keyword_only):
        head, _, default = text.partition("=")
        name, _, kind = head.partition(":")
        kind = kind.strip()
        self.name = name.strip()
        self.optional = kind.endswith("?")
        self.type = kind.rstrip("?")
        self.fits = FITS.get(self.type, lambda v: True)
        self.required = not default
        try:
            self.default = ast.literal_eval(default.strip())
        except (SyntaxError, ValueError):
            self.default = None
        self.keyword_only = keyword_only


def _split(text):
    depth, start, quoted = 0, 0, False
    for i, c in enumerate(text):
        if c in "'\"":
            quoted = not quoted
        elif c in "([" and not quoted:
            depth += 1
        elif c in ")]" and not quoted:
            depth -= 1
        elif c == "," and depth == 0 and not quoted:
            yield text[start:i].strip()
            start = i + 1
    yield text[start:].strip()


def parse(text):
    params, keyword_only = [], False
    for part in _split(text):
        if part == "*":
            keyword_only = True
        elif part and part != "/":
            params.append(Param(part, keyword_only))
    return params


def bind_one(params, args, kwargs):
    """The arguments by name, or None if they do not fit this overload."""
    bound, at = {}, 0
    positional = [p for p in params if not p.keyword_only]
    for p in positional:
        if at >= len(args):
            break
        v = args[at]
        if p.type == "size" and _int(v):
            bound[p.name] = tuple(args[at:])
            at = len(args)
            continue
        if not (p.fits(v) or (v is None and p.optional)):
            return None
        bound[p.name] = v
        at += 1
    if at < len(args):
        return None
    names = {p.name: p for p in params}
    for k, v in kwargs.items():
        name = k if k in names else ALIASES.get(k, k)
        p = names.get(name)
        if p is None or name in bound or not (p.fits(v) or v is None):
            return None
        bound[name] = v
    if any(p.required and p.name not in bound for p in params):
        missing = [p for p in params if p.required and p.name not in bound]
        # `x.permute()`: an empty size.
        if [p.type for p in missing] != ["size"]:
            return None
        bound[missing[0].name] = ()
    return bound


class Signatures:
    """The overloads of one registry entry."""

    def __init__(self, texts):
        self.texts = texts
        self.overloads = None

    def bind(self, args, kwargs):
        """The arguments of the first overload that fits, by name; None if none does."""
        if self.overloads is None:
            self.overloads = [parse(t) for t in self.texts]
        for params in self.overloads:
            bound = bind_one(params, args, kwargs)
            if bound is not None:
                return bound
        return None

    def default(self, name):
        """What `name` is where a call does not say it."""
        for params in self.overloads or ():
            for p in params:
                if p.name == name:
                    return p.default
        return None


def _registry():
    table = {}
    for op in _C._registry():
        for name in (op["name"], *op["aliases"]):
            key = f"{op['namespace']}.{name}" if op["namespace"] else name
            known = table.get(key)
            table[key] = (
                known[0] if known else op["name"],
                Signatures((known[1].texts if known else []) + op["signatures"]),
                op["row"] if op["row"] is not None else (known[2] if known else None),
                op["namespace"],
            )
    return table


# Key ("softmax", "nn.softmax") -> (canonical name, Signatures, row or None, namespace).
REGISTRY = _registry()
