"""Expands `3` to `(3, 3)` where a layer takes one size per dimension."""


def ntuple(value, n, layer, what):
    """``value`` as a tuple of ``n`` numbers."""
    if isinstance(value, (tuple, list)):
        if len(value) != n:
            raise ValueError(f"{layer}: {what} must be a number or {n} numbers, but got {value!r}")
        return tuple(value)
    return (value,) * n
