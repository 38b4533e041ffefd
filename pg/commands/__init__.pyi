from . import cli as cli
from . import flags as flags
from . import job as job
from . import options as options
from . import terminal as terminal
