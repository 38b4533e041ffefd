from . import closed_forms as closed_forms
from . import tabular as tabular
