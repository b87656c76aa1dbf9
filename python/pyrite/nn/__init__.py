"""Neural networks: layers, losses, initialisation."""

from . import functional, init, modules, utils  # noqa: F401
from .modules import *  # noqa: F403
from .modules.module import Module  # noqa: F401
from .parameter import Buffer, Parameter  # noqa: F401
