"""Training and evaluating any network on images in memory, resumable after every epoch. Knows nothing of NAS."""

from nas.augment import Normalisation
from nas.training.loop import Diverged, Epoch, train
from nas.training.measure import evaluate
from nas.training.parallel import Group, leads, together
from nas.training.recipe import PUBLISHED, Recipe, learning_rate
from nas.training.stages import Stage
from nas.training.step import pick_device

__all__ = [
    "PUBLISHED",
    "Diverged",
    "Epoch",
    "Group",
    "Normalisation",
    "Recipe",
    "Stage",
    "evaluate",
    "leads",
    "learning_rate",
    "pick_device",
    "together",
    "train",
]
