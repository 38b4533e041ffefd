from . import combinations as combinations
from . import leaderboard as leaderboard
from . import learning as learning
from . import report as report
from . import selection as selection
from . import suites as suites
from . import zoo as zoo
