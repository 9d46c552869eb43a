"""The nodes of a network as a table, to choose feature maps and the embedding from."""

from kdhelpers.models.external.nodes import choices
from kdhelpers.models.external.trace import Call, trace
from kdhelpers.models.registry import build_model

COLUMNS = ["node", "module", "output", "parameters", "taken as"]


def network_nodes(name: str, num_classes: int = 10, image_size: int = 32, **options):
    """A DataFrame of the nodes that `model_options={"feature_maps": [...], "embedding": ...}` can name, in order.

    output: of an image, channels x height x width of a map. taken as: what feature maps, embedding and final map are
    now. The parts of blocks are left out; they can be named, too. Raises as `build_model` does.
    """
    import pandas

    network = build_model(name, num_classes, image_size=image_size, **options)
    calls, nodes = trace(network, image_size).calls, network.return_nodes
    uses = {path: f"feature map {number}" for number, path in enumerate(nodes.feature_maps.values(), 1)}
    uses |= {nodes.classifier: f"embedding {calls[nodes.classifier].inputs.flatten(1).shape[1]}: its input"}
    uses |= {nodes.pooling: "final map: its input"} if nodes.pooling else {}
    shown = {call.path for call in choices(calls)} | uses.keys()
    rows = [_row(call, uses) for path, call in calls.items() if path in shown]
    return pandas.DataFrame(rows, columns=COLUMNS)


def _row(call: Call, uses: dict[str, str]) -> tuple:
    return call.path, call.kind, " x ".join(map(str, call.shape)), call.parameters, uses.get(call.path, "")
