"""Verified images in, augmented batches out. Takes plain arguments, not runs."""

from kdhelpers.data.augmentation.plan import Plan, plan_epoch, plan_recycled
from kdhelpers.data.augmentation.recipe import Normalise, Recipe, augment, parse_recipe
from kdhelpers.data.batch import Batch, BatchSpec
from kdhelpers.data.batches import Batches, evaluation_batches
from kdhelpers.data.dataset import Data, Split, Unlabelled, few_in_rehearsal
from kdhelpers.data.load import check_data, known_datasets, load_data, unknown_dataset
from kdhelpers.data.readers.arrays import Raw, dataset_from_arrays
from kdhelpers.data.readers.catalogue import DATASETS, Source
from kdhelpers.data.readers.safe_pickle import restricted_load
from kdhelpers.data.readers.unlabelled import check_unlabelled, labelled_count, read_unlabelled
