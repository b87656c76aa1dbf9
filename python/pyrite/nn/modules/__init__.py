"""Layers by family."""

from .activation import *
from .container import *
from .conv import *
from .distance import *
from .dropout import *
from .flatten import *
from .linear import *
from .loss import *
from .module import Module
from .norm import *
from .padding import *
from .pooling import *
from .sparse import *
