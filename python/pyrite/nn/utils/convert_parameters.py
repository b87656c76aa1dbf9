"""Parameters as one flat vector, and back."""

from ... import _C


def parameters_to_vector(parameters):
    """Concatenates all parameters, flattened.

    >>> import pyrite as torch
    >>> torch.nn.utils.parameters_to_vector(torch.nn.Linear(2, 3).parameters()).shape
    torch.Size([9])
    """
    return _C.cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec, parameters):
    """Puts slices of ``vec`` into the parameters' ``data``; ValueError if the sizes differ.

    >>> import pyrite as torch
    >>> p = torch.zeros(2); torch.nn.utils.vector_to_parameters(torch.ones(2), [p]); p.tolist()
    [1.0, 1.0]
    """
    if not isinstance(vec, _C.Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec).__name__}")
    parameters = list(parameters)
    total = sum(p.numel() for p in parameters)
    if total != vec.numel():
        raise ValueError(f"vector_to_parameters: the vector has {vec.numel()} elements, the parameters {total}")
    start = 0
    for p in parameters:
        n = p.numel()
        p.data = vec[start : start + n].view_as(p).data
        start += n
