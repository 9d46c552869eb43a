"""Teachers trained elsewhere: the published figures of a benchmark, its weights, and their registration here."""
