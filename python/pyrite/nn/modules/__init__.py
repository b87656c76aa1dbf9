"""Layers by family."""

from .activation import *
from .attention import *
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
from .transformer import *
from .unpooling import *
from .upsampling import *
