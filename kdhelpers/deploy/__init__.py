"""Trained networks as files that run without this package: export, int8, model cards, latency."""

from kdhelpers.deploy.checking import check
from kdhelpers.deploy.exporting import Exported, export
from kdhelpers.deploy.extras import FORMATS, lacking
from kdhelpers.deploy.figures import picture
from kdhelpers.deploy.measuring import candidates, measure
from kdhelpers.deploy.timing import latency
