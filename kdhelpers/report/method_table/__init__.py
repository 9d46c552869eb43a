"""Every stored method of one pair and budget: what it gains over no teacher and over its placebo, and what it costs."""

from kdhelpers.report.method_table.cost import with_costs
from kdhelpers.report.method_table.frame import frame
from kdhelpers.report.method_table.picture import picture
from kdhelpers.report.method_table.table import published, table
