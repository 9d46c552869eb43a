"""Evaluation of a trained network: predictions, metrics, linear probe, submission."""
