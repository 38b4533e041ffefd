from . import checks as checks
from . import choices as choices
from . import construction as construction
from . import environments as environments
from . import own_files as own_files
from . import parts as parts
from . import ranges as ranges
