"""Copying forms of the view functions: `torch.permute_copy` is `torch.permute` whose result has memory of its own.

>>> import pyrite as torch
>>> x = torch.zeros(2, 3)
>>> torch.t_copy(x).fill_(1.0).sum(), x.sum()
(tensor(6.), tensor(0.))
"""

from . import Tensor


def alias(input):
    return input.view(input.shape)


def slice_(input, dim=0, start=None, end=None, step=1):
    index = [slice(None)] * input.dim()
    index[dim] = slice(start, end, step)
    return input[tuple(index)]


def _copying(name, view):
    def copy(input, *args, out=None, **kwargs):
        views = view(input, *args, **kwargs)
        if isinstance(views, Tensor):
            return views.clone() if out is None else _put(name, views, out)
        if out is None:
            return tuple(v.clone() for v in views)
        if len(out) != len(views):
            raise RuntimeError(f"{name}() expected an out= argument of {len(views)} tensors, got {len(out)}")
        for v, o in zip(views, out, strict=True):
            _put(name, v, o)
        return None

    copy.__name__ = copy.__qualname__ = name
    copy.__doc__ = (
        f"As the view function `{name.removesuffix('_copy')}`, but the result is a copy (into ``out``, if given)."
    )
    return copy


def _put(name, value, out):
    if out.dtype != value.dtype:
        raise RuntimeError(f"{name}: Expected out tensor to have dtype {value.dtype}, but got {out.dtype} instead")
    return out.resize_(value.shape).copy_(value)


_VIEWS = {
    "alias": alias,
    "as_strided": Tensor.as_strided,
    "detach": Tensor.detach,
    "diagonal": Tensor.diagonal,
    "expand": Tensor.expand,
    "permute": Tensor.permute,
    "select": Tensor.select,
    "slice": slice_,
    "split": Tensor.split,
    "split_with_sizes": Tensor.split_with_sizes,
    "squeeze": Tensor.squeeze,
    "t": Tensor.t,
    "transpose": Tensor.transpose,
    "unbind": Tensor.unbind,
    "unfold": Tensor.unfold,
    "unsqueeze": Tensor.unsqueeze,
    "view": Tensor.view,
}


def view_as_real(input):
    from . import view_as_real

    return view_as_real(input)


def view_as_complex(input):
    from . import view_as_complex

    return view_as_complex(input)


_VIEWS["view_as_real"] = view_as_real
_VIEWS["view_as_complex"] = view_as_complex

globals().update({f"{name}_copy": _copying(f"{name}_copy", view) for name, view in _VIEWS.items()})
