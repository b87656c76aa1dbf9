"""Data sets: 10,000 MNIST digits travel with the package, the full set is downloaded on request."""

from .idx import read_idx
from .mnist import MNIST
