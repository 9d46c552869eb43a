"""Teachers made elsewhere: published accuracies of a benchmark, download and registration of weights."""
