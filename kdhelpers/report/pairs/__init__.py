"""Teacher-student pairs: the CRD benchmark's printed figures next to our stored runs, as frames, tables and bars."""

from kdhelpers.report.pairs.bars import bars
from kdhelpers.report.pairs.frame import OTHER_STYLE, OUR_OWN, SAME_STYLE, beside_ours
from kdhelpers.report.pairs.table import table
from kdhelpers.zoo.benchmark import published_pairs, published_teachers
