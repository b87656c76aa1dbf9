"""Pictures of the backward graph: DOT text, or SVG where the `graphviz` package is installed."""

from . import _C

__all__ = ["Graph", "graph"]


def _quoted(text):
    return '"' + str(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class Graph:
    """The graph behind one or more tensors. ``str(g)`` and ``g.dot`` are DOT text; notebooks show the SVG."""

    def __init__(self, dot, nodes, edges):
        self.dot = dot
        self.nodes = nodes
        self.edges = edges

    def __str__(self):
        return self.dot

    def __repr__(self):
        return f"<pyrite.viz.Graph: {len(self.nodes)} nodes, {len(self.edges)} edges>"

    def render(self, format="svg"):
        """The picture as bytes (SVG, PNG, ...), drawn by the `graphviz` package.

        Raises ImportError where the package is not installed, RuntimeError where its program `dot` is not.
        """
        try:
            import graphviz
        except ImportError:
            raise ImportError(
                "pyrite.viz: drawing needs the Python package `graphviz` (pip install graphviz) and the program `dot`; "
                "the text is in `.dot`"
            ) from None
        try:
            return graphviz.Source(self.dot).pipe(format=format)
        except graphviz.backend.ExecutableNotFound as error:
            raise RuntimeError(f"pyrite.viz: the program `dot` of Graphviz was not found: {error}") from error

    def svg(self):
        """The picture as SVG text; see :meth:`render`."""
        return self.render("svg").decode()

    def save(self, path):
        """Writes DOT text (``.dot``, ``.gv``) or, by the file's ending, a picture (``.svg``, ``.png``, ``.pdf``)."""
        ending = str(path).rpartition(".")[2].lower()
        data = self.dot.encode() if ending in ("dot", "gv") else self.render(ending)
        with open(path, "wb") as f:
            f.write(data)

    def _repr_mimebundle_(self, include=None, exclude=None):
        try:
            return {"image/svg+xml": self.svg(), "text/plain": repr(self)}
        except (ImportError, RuntimeError):
            return {"text/plain": self.dot}


def _shape(shape):
    return "x".join(map(str, shape)) if len(shape) else "scalar"


def _outputs(node):
    return ", ".join(f"{_shape(m.shape)} {str(m.dtype).rpartition('.')[2]}" for m in node._input_metadata)


def _as_dict(params):
    if params is None:
        return {}
    if hasattr(params, "named_parameters"):
        return dict(params.named_parameters())
    return dict(params)


def graph(outputs, params=None, *, max_nodes=2000):
    """The backward graph of a tensor (or several): operations with the shapes they gave, leaves, and the source line of
    every operation where it is known.

    Args:
        params: names for leaves: a module, or a dict (or pairs) of name -> tensor.
        max_nodes: larger graphs are cut off there, and say so.

    Raises ValueError for tensors without a history.

    >>> import pyrite as torch
    >>> x = torch.ones(2, requires_grad=True)
    >>> g = torch.viz.graph((x * x).sum(), {"x": x})
    >>> [n["name"] for n in g.nodes]
    ['SumBackward0', 'MulBackward0', 'x']
    """
    tensors = (outputs,) if isinstance(outputs, _C.Tensor) else tuple(outputs)
    names = {id(t): n for n, t in _as_dict(params).items()}
    roots = []
    for t in tensors:
        if t.grad_fn is None:
            raise ValueError(
                "viz.graph: a tensor without a history has no graph (it was made with requires_grad=False, under no_grad, or is a leaf)"
            )
        roots.append(t.grad_fn)
    nodes, edges, index, todo = [], [], {}, list(roots)
    keep = []  # Node objects stay alive, so that one node is one object.
    cut = False
    at = 0
    for n in todo:
        if n not in index:
            index[n] = len(index)
    todo = list(index)
    while at < len(todo):
        node = todo[at]
        at += 1
        keep.append(node)
        leaf = getattr(node, "variable", None) if node.name() == "AccumulateGrad" else None
        entry = {
            "id": index[node],
            "name": node.name() if leaf is None else names.get(id(leaf), "leaf"),
            "leaf": leaf is not None,
            "shape": _outputs(node) if leaf is None else f"{_shape(leaf.shape)} {str(leaf.dtype).rpartition('.')[2]}",
            "site": None if leaf is not None else node._site,
        }
        nodes.append(entry)
        for child, _ in node.next_functions:
            if child is None:
                continue
            if child not in index:
                if len(index) >= max_nodes:
                    cut = True
                    continue
                index[child] = len(index)
                todo.append(child)
            edges.append((index[child], index[node]))
    lines = [
        "digraph backward {",
        '  rankdir=TB; node [shape=box, style="rounded,filled", fillcolor="#eef2f7", fontname="Helvetica", fontsize=10];',
    ]
    for e in nodes:
        title = e["name"] if e["leaf"] else e["name"].removesuffix("Backward0").removesuffix("Backward")
        label = "\n".join(str(p) for p in (title, e["shape"], e["site"]) if p)
        style = ', fillcolor="#d8ead2", shape=ellipse' if e["leaf"] else ""
        lines.append(f"  n{e['id']} [label={_quoted(label)}{style}];")
    for i, t in enumerate(tensors):
        label = f"output {i}" if len(tensors) > 1 else "output"
        lines.append(
            f'  out{i} [label={_quoted(label + chr(10) + _shape(t.shape))}, fillcolor="#f7d9d9", shape=ellipse];'
        )
        lines.append(f"  n{index[t.grad_fn]} -> out{i};")
    lines += [f"  n{a} -> n{b};" for a, b in edges]
    if cut:
        lines.append(f'  more [label="cut off at {max_nodes} nodes", shape=plaintext, style=""];')
    lines.append("}")
    return Graph("\n".join(lines) + "\n", nodes, edges)
