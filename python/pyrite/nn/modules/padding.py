"""Padding layers: `pyrite.nn.functional.pad` with the mode and the amounts fixed."""

from .. import functional as F
from ._size import ntuple
from .module import Module

__all__ = [
    "CircularPad1d",
    "CircularPad2d",
    "CircularPad3d",
    "ConstantPad1d",
    "ConstantPad2d",
    "ConstantPad3d",
    "ReflectionPad1d",
    "ReflectionPad2d",
    "ReflectionPad3d",
    "ReplicationPad1d",
    "ReplicationPad2d",
    "ReplicationPad3d",
    "ZeroPad1d",
    "ZeroPad2d",
    "ZeroPad3d",
]


class _Pad(Module):
    _n = 0
    _mode = "constant"

    def __init__(self, padding):
        super().__init__()
        self.padding = ntuple(padding, 2 * self._n, type(self).__name__, "padding")

    def forward(self, input):
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self):
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding, value):
        super().__init__(padding)
        self.value = value

    def forward(self, input):
        return F.pad(input, self.padding, "constant", self.value)

    def extra_repr(self):
        return f"padding={self.padding}, value={self.value}"


def _layer(name, base, n, mode, what, extra=""):
    doc = f"""Pads the last {n} dimension{"s" if n > 1 else ""} {what}; ``padding`` is one number or
    {2 * n} numbers (left, right{", top, bottom" if n > 1 else ""}{", front, back" if n > 2 else ""}).

    >>> import pyrite as torch
    >>> torch.nn.{name}(1{extra})(torch.ones({", ".join(["1", "1"] + ["3"] * n)})).shape
    torch.Size([{", ".join(["1", "1"] + ["5"] * n)}])
    """
    return type(name, (base,), {"_n": n, "_mode": mode, "__doc__": doc, "__module__": __name__})


ConstantPad1d = _layer("ConstantPad1d", _ConstantPad, 1, "constant", "with ``value``", ", 0.5")
ConstantPad2d = _layer("ConstantPad2d", _ConstantPad, 2, "constant", "with ``value``", ", 0.5")
ConstantPad3d = _layer("ConstantPad3d", _ConstantPad, 3, "constant", "with ``value``", ", 0.5")
ZeroPad1d = _layer("ZeroPad1d", _Pad, 1, "constant", "with zeros")
ZeroPad2d = _layer("ZeroPad2d", _Pad, 2, "constant", "with zeros")
ZeroPad3d = _layer("ZeroPad3d", _Pad, 3, "constant", "with zeros")
ReflectionPad1d = _layer("ReflectionPad1d", _Pad, 1, "reflect", "by reflection at the border")
ReflectionPad2d = _layer("ReflectionPad2d", _Pad, 2, "reflect", "by reflection at the border")
ReflectionPad3d = _layer("ReflectionPad3d", _Pad, 3, "reflect", "by reflection at the border")
ReplicationPad1d = _layer("ReplicationPad1d", _Pad, 1, "replicate", "with the border's values")
ReplicationPad2d = _layer("ReplicationPad2d", _Pad, 2, "replicate", "with the border's values")
ReplicationPad3d = _layer("ReplicationPad3d", _Pad, 3, "replicate", "with the border's values")
CircularPad1d = _layer("CircularPad1d", _Pad, 1, "circular", "with the values of the other side")
CircularPad2d = _layer("CircularPad2d", _Pad, 2, "circular", "with the values of the other side")
CircularPad3d = _layer("CircularPad3d", _Pad, 3, "circular", "with the values of the other side")
