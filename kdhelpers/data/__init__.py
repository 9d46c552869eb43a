"""Verified images in, augmented batches out. Knows nothing of runs: plain arguments only."""

from kdhelpers.data.augment import Recipe, augment, parse_recipe
from kdhelpers.data.batches import Batch, Batches, evaluation_batches, to_device
from kdhelpers.data.catalogue import DATASETS
from kdhelpers.data.dataset import Data, Split
from kdhelpers.data.pickles import restricted_load
from kdhelpers.data.plan import Plan, plan_epoch
from kdhelpers.data.sources import load_data

__all__ = [
    "DATASETS",
    "Batch",
    "Batches",
    "Data",
    "Plan",
    "Recipe",
    "Split",
    "augment",
    "evaluation_batches",
    "load_data",
    "parse_recipe",
    "plan_epoch",
    "restricted_load",
    "to_device",
]
