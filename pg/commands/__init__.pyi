from . import cli as cli
from . import job as job
from . import terminal as terminal
