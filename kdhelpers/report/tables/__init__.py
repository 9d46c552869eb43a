"""The tables and sentences of the notebooks: what a reader needs first, the rest in an element that unfolds."""

from kdhelpers.report.styling import plain
from kdhelpers.report.tables.comparison import results_table
from kdhelpers.report.tables.measures import metrics, over_seeds
from kdhelpers.report.tables.sentences import difference, score, verdict
from kdhelpers.report.tables.settings import networks, run_table
from kdhelpers.report.tables.stored import missing, saved
