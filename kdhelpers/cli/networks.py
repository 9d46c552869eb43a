"""`python -m kdhelpers network`: the nodes of any network, and the names of a library's networks."""

from collections.abc import Sequence

from kdhelpers.models.external.libraries import library_names
from kdhelpers.models.external.table import network_nodes
from kdhelpers.python_paths import LIBRARIES


def described(name: str, image_size: int, classes: int, options: Sequence[str]) -> str:
    """The table of nodes; of `torchvision`, `timm` or `timm:TEXT*` the names of networks."""
    from kdhelpers.cli.output import columns

    library, _, text = name.partition(":")
    if library in LIBRARIES and (not text or text.endswith("*")):
        return "\n".join(library_names(library, text.rstrip("*"))) or f"none of {library} contains {text.rstrip('*')}"
    given = dict(option.split("=", 1) for option in options if "=" in option)
    if bad := [option for option in options if "=" not in option]:
        raise ValueError(f"option = {bad[0]}: is not NAME=VALUE; write for instance patch_size=4")
    frame = network_nodes(name, classes, image_size, **given)
    rows = [frame.columns, *([str(value) for value in row[:3]] + [f"{row[3]:,}", row[4]] for row in frame.values)]
    return f"{columns(rows, indent='')}\n\n{_remedy(frame)}"


def _remedy(frame) -> str:
    maps = [node for node, use in zip(frame["node"], frame["taken as"], strict=True) if use.startswith("feature map")]
    return f'model_options={{"feature_maps": {maps[-2:]}, "embedding": "..."}} chooses others'.replace("'", '"')
