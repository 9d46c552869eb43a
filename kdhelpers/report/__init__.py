"""Stored records -> tables, figures and the gallery: results, cohort, tables, gallery, published, pairs."""
