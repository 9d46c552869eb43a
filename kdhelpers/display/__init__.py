"""Figures, pages, texts, progress and the output of a notebook. Knows nothing of runs."""
