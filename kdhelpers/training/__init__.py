"""One training from the description to the record: `fit`, `fit_sweep` and what they are made of."""
