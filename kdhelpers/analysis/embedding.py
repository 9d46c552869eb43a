"""Embeddings: alignment, uniformity, nearest neighbours, t-SNE maps and spheres.

Every measure first scales embeddings f to length 1, in float64. A zero embedding stays at the sphere's centre. A GPU
does the work if there is one; Apple's has no float64 and takes float32.
"""

import math

import pandas
import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.artifacts import rehearsed_root
from kdhelpers.data.dataset import stratified
from kdhelpers.device import pick_device
from kdhelpers.evaluation.linear_probe import probe_accuracy_pct
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.evaluation.predictions import Predictions, require_same_images

Networks = dict[str, Predictions]  # a network's name -> its predictions

CHUNK = 250  # images whose distances to all others are in memory at once
PRINCIPAL_COMPONENTS = 50  # the input of t-SNE: faster than all, and without noise


def _unit(embeddings: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """[N, d], rows of length 1."""
    embeddings = embeddings.to(dtype)
    length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    return embeddings / length.where(length > 0, 1)


def _moved_unit(embeddings: Tensor) -> Tensor:
    """`_unit` on the GPU if there is one."""
    device = pick_device()
    return _unit(embeddings.to(device), torch.float32 if device.type == "mps" else torch.float64)


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean of ||f - f+||^2 over the positive pairs, row i of first [N, d] with row i of second: 0 (best) to 4.

    Wang and Isola, ICML 2020, section 4.1 with exponent 2. NaN for no pair. Raises ValueError for unequal shapes.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first, second: shapes {shapes} differ; give the two views of the same images, row by row")
    return (_moved_unit(first) - _moved_unit(second)).square().sum(1).mean().item()


def class_alignment(embeddings: Tensor, labels: Tensor) -> float:
    """`alignment` over all pairs of different images of one class, embeddings [N, d], labels [N]: 0 (best) to 4.

    The pairs of a class sum to 2 n_c sum_i ||f_i - mean_c||^2, which needs no loop. NaN if every class has one image.
    """
    unit = _moved_unit(embeddings)
    count, labels = torch.bincount(labels).to(unit), labels.to(unit.device)
    means = unit.new_zeros(len(count), unit.shape[1]).index_add_(0, labels, unit)
    means /= count.clamp(min=1)[:, None]
    squared = (unit - means[labels]).square().sum(1)
    return (2 * (count[labels] * squared).sum() / (count * (count - 1)).sum()).item()


def uniformity(embeddings: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t ||f - g||^2) over pairs of different images [N, d]; lower is more uniform.

    0 for equal embeddings, about -2t for a uniform distribution on a sphere of many dimensions (Wang and Isola, ICML
    2020, section 4.1). NaN for fewer than two images.
    """
    unit, total = _moved_unit(embeddings), torch.zeros((), dtype=torch.float64)
    for start in range(0, len(unit), CHUNK):
        distances = torch.cdist(unit[start : start + CHUNK], unit[start:])
        # each pair once: columns begin at the first row
        total += torch.exp(-t * distances.square()).triu(1).sum().cpu()
    return (total / math.comb(len(unit), 2)).log().item()


def nearest_neighbour_pct(train: Predictions, test: Predictions, k: int = 1) -> float:
    """Test accuracy in percent of k-nearest-neighbour classification by cosine among the training images.

    A tie goes to the class with the larger sum of cosines. Raises ValueError for a k outside 1..len(train), and for
    embeddings of different widths.
    """
    count, width = train.embeddings.shape
    if not 1 <= k <= count:
        raise ValueError(f"k = {k}: must lie in 1..{count}, the number of training images")
    if test.embeddings.shape[1] != width:
        raise ValueError(f"test: {test.embeddings.shape[1]} wide, train {width}; infer both with the same network")
    memory = _moved_unit(train.embeddings).float().T
    known, wanted = train.labels.to(memory.device), test.labels.to(memory.device)
    hits = torch.zeros((), dtype=torch.long, device=memory.device)
    for images, labels in zip(_moved_unit(test.embeddings).float().split(CHUNK), wanted.split(CHUNK), strict=True):
        cosine, near = (images @ memory).topk(k, 1)
        votes = cosine.new_zeros(len(labels), train.logits.shape[1])
        votes.scatter_add_(1, known[near], 1 + cosine / (k + 1))  # k cosines never sum to a vote
        hits += (votes.argmax(1) == labels).sum()
    return 100 * hits.item() / len(test.labels)


def embedding_quality(train: Networks, test: Networks, k: int = 1):
    """A DataFrame of the quality of test embeddings, a row per network in the order of `test`.

    Columns: network; alignment (`class_alignment`), uniformity; nearest_neighbour_pct (k neighbours) and probe_pct
    (linear probe), both from the training embeddings; top1_pct of the network's classifier; width (d). Raises
    ValueError for keys that differ.
    """
    if set(train) != set(test):
        raise ValueError(f"test: {', '.join(test)} for train {', '.join(train)}; give both splits of each network")
    return pandas.DataFrame([{"network": name, **_quality(train[name], test[name], k)} for name in test])


def _quality(train: Predictions, test: Predictions, k: int) -> dict[str, float]:
    return {
        "alignment": class_alignment(test.embeddings, test.labels),
        "uniformity": uniformity(test.embeddings),
        "nearest_neighbour_pct": nearest_neighbour_pct(train, test, k),
        "probe_pct": probe_accuracy_pct(train, test),
        "top1_pct": top_k_pct(test),
        "width": test.embeddings.shape[1],
    }


def tsne(
    predictions: Networks, count: int = 2000, classes: list[int] | None = None, perplexity: float = 30, seed: int = 0
):
    """A DataFrame of t-SNE maps (van der Maaten and Hinton 2008) of the same images for every network.

    Columns: network, index (of the image in its split), label, x, y, perplexity. `seed` draws `count` images of
    `classes` (None: all), stratified by class; fewer images are all taken. PCA reduces unit embeddings to at most 50
    components; the first two initialise the map. Axes differ between networks. Raises ValueError for predictions of
    different images, a class without images, a perplexity not below the number of images, and equal embeddings.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    chosen, maps = _chosen(predictions, count, classes, seed), []
    images = count if rehearsed_root() else len(chosen)
    if not 0 < perplexity < images:
        raise ValueError(f"perplexity = {perplexity}: must lie between 0 and {images}, the number of images")
    perplexity = min(perplexity, len(chosen) - 1)  # a rehearsal has few images
    for name, network in predictions.items():
        unit = _unit(network.embeddings[chosen]).numpy()
        if not unit.var(0).max() > 1e-20:
            raise ValueError(f"predictions: the embeddings of {name} are all equal; leave out a collapsed network")
        reduced = PCA(min(PRINCIPAL_COMPONENTS, *unit.shape), svd_solver="full").fit_transform(unit)
        x, y = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced).T
        maps.append(_points(name, network, chosen, x=x, y=y, perplexity=perplexity))
    return pandas.concat(maps, ignore_index=True)


def hypersphere(predictions: Networks, classes: list[int], count: int = 600, seed: int = 0):
    """A DataFrame of embeddings as points of a sphere: network, index, label, x, y, z, kept_pct.

    Unit embeddings of the images (drawn as in `tsne`) are projected onto their three leading singular directions and
    scaled to length 1 again. The directions pass through the sphere's centre, not the mean: embeddings in a narrow cone
    stay together. x is the leading direction.

    kept_pct is the percentage of the embeddings' variance about their mean in the three directions; the rest is lost.
    An orthogonal transformation aligns each network's sphere with the first network's. Raises ValueError for
    predictions of different images and a class without images.
    """
    chosen, points, first = _chosen(predictions, count, classes, seed), [], None
    for name, network in predictions.items():
        coordinates, kept = _three_directions(_unit(network.embeddings[chosen]))
        sphere = _unit(coordinates)
        first = sphere if first is None else first
        x, y, z = (sphere @ _alignment_to(sphere, first)).T.numpy()
        points.append(_points(name, network, chosen, x=x, y=y, z=z, kept_pct=100 * kept))
    return pandas.concat(points, ignore_index=True)


def _three_directions(unit: Tensor) -> tuple[Tensor, float]:
    """Coordinates [n, 3] along the leading singular directions, padded with 0 if d < 3, and their share of variance."""
    directions = torch.linalg.svd(unit, full_matrices=False).Vh[:3]
    coordinates = unit @ directions.T
    coordinates = coordinates * torch.where(coordinates.sum(0) < 0, -1, 1)  # the solver's sign is arbitrary
    share = (coordinates - coordinates.mean(0)).square().sum() / (unit - unit.mean(0)).square().sum()
    return F.pad(coordinates, (0, 3 - coordinates.shape[1])), share.item()


def _alignment_to(points: Tensor, target: Tensor) -> Tensor:
    """The orthogonal Q [3, 3] that minimises ||points Q - target|| (Schoenemann 1966)."""
    left, _, right = torch.linalg.svd(points.T @ target)
    return left @ right


def _chosen(predictions: Networks, count: int, classes: list[int] | None, seed: int) -> Tensor:
    """Positions, ascending, of the images that represent every network."""
    if not predictions:
        raise ValueError("predictions: none given; give at least one network")
    first, *others = predictions.values()
    for other in others:
        require_same_images(first, other)
    classes_drawn = first.labels.unique() if classes is None else torch.tensor(classes, dtype=torch.int64)
    if len(missing := classes_drawn[~torch.isin(classes_drawn, first.labels)]):
        raise ValueError(f"classes: no image has class {missing[0]}; choose among the labels of the split")
    members = torch.isin(first.labels, classes_drawn).nonzero()[:, 0]
    if len(members) > count:
        members = members[stratified(first.labels[members], count, seed)[1]]
    if len(members) < 2:
        raise ValueError(f"count = {count}, classes = {classes}: leaves {len(members)} images; at least 2 are needed")
    return members


def _points(name: str, network: Predictions, chosen: Tensor, **columns):
    index, labels = network.index[chosen].numpy(), network.labels[chosen].numpy()
    return pandas.DataFrame({"network": name, "index": index, "label": labels, **columns})
