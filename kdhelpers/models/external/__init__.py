"""Networks that are not of the registry: of torchvision, of timm, of the user."""

from kdhelpers.models.external.build import (
    FORMS,
    NODE_OPTIONS,
    build_external,
    build_facts,
    check_external,
    is_external,
)
