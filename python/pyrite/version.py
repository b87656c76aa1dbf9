"""The package's version: one place, read by `pyrite.__version__`."""

__version__ = "0.1.0"
