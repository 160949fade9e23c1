"""The one trainer of all passes that train."""

from strop.passes.train.policy import Policy
from strop.passes.train.trainer import Trained, train
from strop.passes.train.update import Loss

__all__ = ["Loss", "Policy", "Trained", "train"]
