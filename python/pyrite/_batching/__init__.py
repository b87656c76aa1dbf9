"""How `vmap` sees a batch as one sample: batched tensors and the rules of operations on them."""

from . import along, index, layers, matrices, pointwise, products, random, rare, sections, shape, tensor, writes
from .autograd import apply_function, at_all_levels, bottom, grad, physical, together
from .core import BatchedTensor, Frame, frames, highest

__all__ = [
    "BatchedTensor",
    "Frame",
    "along",
    "apply_function",
    "at_all_levels",
    "bottom",
    "frames",
    "grad",
    "highest",
    "index",
    "layers",
    "matrices",
    "physical",
    "pointwise",
    "products",
    "random",
    "rare",
    "sections",
    "shape",
    "tensor",
    "together",
    "writes",
]
