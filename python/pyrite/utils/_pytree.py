"""Nested lists, tuples, dicts and named tuples as one flat list of leaves, and back."""

from collections import OrderedDict, defaultdict, namedtuple

Spec = namedtuple("Spec", "type context children")
"""How leaves were nested: the container's class, what it needs besides its items, and the items' specs."""

LEAF = Spec(None, None, ())


def is_namedtuple(value):
    return isinstance(value, tuple) and hasattr(type(value), "_fields")


def _parts(value):
    """``(items, context)`` of a container; None for a leaf."""
    if is_namedtuple(value) or type(value) in (list, tuple):
        return list(value), None
    if type(value) in (dict, OrderedDict):
        return list(value.values()), list(value)
    if type(value) is defaultdict:
        return list(value.values()), (value.default_factory, list(value))
    return None


def tree_flatten(tree):
    """``(leaves, spec)``; everything that is no container is a leaf, None as well."""
    leaves = []

    def walk(value):
        parts = _parts(value)
        if parts is None:
            leaves.append(value)
            return LEAF
        items, context = parts
        return Spec(type(value), context, tuple(walk(x) for x in items))

    return leaves, walk(tree)


def tree_unflatten(leaves, spec):
    """The tree of ``spec`` with these leaves."""
    rest = iter(leaves)

    def build(s):
        if s.type is None:
            return next(rest)
        items = [build(c) for c in s.children]
        if s.type in (list, tuple):
            return s.type(items)
        if s.type is defaultdict:
            return defaultdict(s.context[0], zip(s.context[1], items))
        if s.context is not None:
            return s.type(zip(s.context, items))
        return s.type(*items)

    return build(spec)


def tree_map(f, tree, *rest):
    """The tree with ``f`` applied to every leaf (and the leaves of ``rest``, trees of the same shape)."""
    leaves, spec = tree_flatten(tree)
    return tree_unflatten([f(*xs) for xs in zip(leaves, *(tree_flatten(t)[0] for t in rest))], spec)


def tree_leaves(tree):
    return tree_flatten(tree)[0]


def broadcast_to(prefix, spec, is_leaf=lambda value: False):
    """The leaves of ``prefix`` repeated to fit ``spec``, whose upper part it must be; None if it is not."""
    out = []

    def count(s):
        return 1 if s.type is None else sum(count(c) for c in s.children)

    def walk(value, s):
        parts = None if is_leaf(value) else _parts(value)
        if parts is None:
            out.extend([value] * count(s))
            return True
        if s.type is None or len(parts[0]) != len(s.children):
            return False
        same = type(value) is s.type or (type(value) in (list, tuple) and s.type in (list, tuple))
        if not same or (parts[1] is not None and parts[1] != s.context):
            return False
        return all(walk(v, c) for v, c in zip(parts[0], s.children))

    return out if walk(prefix, spec) else None


def show(spec):
    """A spec as text, with `*` for leaves."""
    if spec.type is None:
        return "*"
    inner = ", ".join(show(c) for c in spec.children)
    return f"{spec.type.__name__}({inner})"
