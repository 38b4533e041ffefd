from . import aim as aim
from . import base as base
from . import mlflow as mlflow
from . import tensorboard as tensorboard
from . import wandb as wandb
