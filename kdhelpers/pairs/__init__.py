"""Teacher-student pairs: the CRD benchmark's printed figures beside our stored runs, as frames, tables and bars."""

from kdhelpers.pairs.bars import bars
from kdhelpers.pairs.columns import OTHER_STYLE, OUR_OWN, SAME_STYLE, beside_ours
from kdhelpers.pairs.printed import published_pairs, published_teachers
from kdhelpers.pairs.table import table

__all__ = [
    "OTHER_STYLE",
    "OUR_OWN",
    "SAME_STYLE",
    "bars",
    "beside_ours",
    "published_pairs",
    "published_teachers",
    "table",
]
