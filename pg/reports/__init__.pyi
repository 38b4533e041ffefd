from . import comparison as comparison
from . import curves as curves
from . import drawings as drawings
from . import plots as plots
from . import statistics as statistics
from . import tables as tables
