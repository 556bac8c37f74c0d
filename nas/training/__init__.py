"""Training and evaluating any network on images in memory, resumable after every epoch. Knows nothing of NAS."""

from nas.augment import Normalisation
from nas.training.loop import Diverged, Epoch, train
from nas.training.measure import evaluate
from nas.training.pace import as_many_threads, pick_threads
from nas.training.parallel import Group, leads, together
from nas.training.recipe import PUBLISHED, Recipe, learning_rate
from nas.training.stages import Stage
from nas.training.step import pick_device
from nas.training.teacher import Distillation, Teacher

__all__ = [
    "PUBLISHED",
    "Distillation",
    "Diverged",
    "Epoch",
    "Group",
    "Normalisation",
    "Recipe",
    "Stage",
    "Teacher",
    "as_many_threads",
    "evaluate",
    "leads",
    "learning_rate",
    "pick_device",
    "pick_threads",
    "together",
    "train",
]
