from . import leaderboard as leaderboard
from . import learning as learning
from . import suites as suites
