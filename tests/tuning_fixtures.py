"""The comparison that studies of the tests tune."""

SETTINGS = {"dataset": "few", "model": "resnet8", "epochs": 1, "batch_size": 16, "augmentation": "none"}
SETTINGS |= {"teacher": "resnet14", "val_fraction": 0.25}
METHODS = "si; lm"
