from . import checks as checks
from . import choices as choices
from . import construction as construction
from . import environments as environments
from . import ranges as ranges
