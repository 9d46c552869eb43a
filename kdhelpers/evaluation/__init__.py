"""What a trained network outputs, and how good it is: predictions, metrics, linear probe, submission."""
