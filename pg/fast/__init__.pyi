from . import blocks as blocks
from . import cores as cores
from . import devices as devices
from . import scans as scans
