"""The networks: one file per family, each with its ARCHITECTURES."""
