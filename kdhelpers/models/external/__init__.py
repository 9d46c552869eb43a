"""Networks that are not of the registry: of torchvision, of timm, of the user."""
