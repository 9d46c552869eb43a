"""What is done to a batch of images: the recipe, the draws of an epoch, and the steps as functions of both."""
