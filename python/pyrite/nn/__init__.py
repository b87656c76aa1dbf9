"""Neural networks: layers, losses, initialisation."""

from . import functional, init, modules, utils
from .modules import *
from .modules.module import Module
from .parameter import Buffer, Parameter
