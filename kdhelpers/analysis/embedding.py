"""What became of the representation: how tight classes lie in it, how evenly it uses its sphere, and maps to look at.

Every measure sees directions only: embeddings f are scaled to length 1 first, in float64. A zero embedding has no
direction and stays at the sphere's centre.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from kdhelpers.data.dataset import stratified
from kdhelpers.evaluation.linear_probe import probe_accuracy_pct
from kdhelpers.evaluation.metrics import top_k_pct
from kdhelpers.evaluation.predictions import Predictions, require_same_images

CHUNK = 250  # images whose distances to all others are held at once
PRINCIPAL = 50  # directions that t-SNE is given: fewer are quicker, and noise is left out


def _unit(embeddings: Tensor) -> Tensor:
    """float64 [N, d], rows of length 1."""
    embeddings = embeddings.double()
    length = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    return embeddings / length.where(length > 0, 1)


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean of ||f - f+||^2 over the positive pairs, row i of first [N, d] with row i of second: 0 (best) to 4.

    Wang and Isola, ICML 2020, section 4.1 with exponent 2. NaN for no pair. Raises ValueError for unequal shapes.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"first, second: shapes {shapes} differ; give the two views of the same images, row by row")
    return (_unit(first) - _unit(second)).square().sum(1).mean().item()


def class_alignment(predictions: Predictions) -> float:
    """`alignment` where positives are any two different images of one class, over all such pairs: 0 (best) to 4.

    Exact without a loop over pairs: those of a class sum to 2 n_c sum_i ||f_i - mean_c||^2. NaN where every class has
    one image.
    """
    unit, labels = _unit(predictions.embeddings), predictions.labels
    count = torch.bincount(labels).double()
    means = torch.zeros(len(count), unit.shape[1], dtype=torch.float64).index_add_(0, labels, unit)
    means /= count.clamp(min=1)[:, None]
    squared = (unit - means[labels]).square().sum(1)
    return (2 * (count[labels] * squared).sum() / (count * (count - 1)).sum()).item()


def uniformity(embeddings: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t ||f - g||^2) over the pairs of different images [N, d]: the lower, the more even.

    0 where all embeddings are alike, about -2t where they cover a sphere of many dimensions evenly (Wang and Isola,
    ICML 2020, section 4.1). NaN for fewer than two images.
    """
    unit, total = _unit(embeddings), torch.zeros((), dtype=torch.float64)
    for start in range(0, len(unit), CHUNK):
        distances = torch.cdist(unit[start : start + CHUNK], unit[start:])
        total += torch.exp(-t * distances.square()).triu(1).sum()  # each pair once: columns begin where rows do
    return (total / math.comb(len(unit), 2)).log().item()


def nearest_neighbour_pct(train: Predictions, test: Predictions, k: int = 1) -> float:
    """Accuracy in percent on test of the vote of each image's k nearest training images by cosine, one vote each.

    A tie goes to the class with the larger sum of cosines. Raises ValueError for a k outside 1..len(train), and for
    embeddings of different widths.
    """
    count, width = train.embeddings.shape
    if not 1 <= k <= count:
        raise ValueError(f"k = {k}: must lie in 1..{count}, the number of training images")
    if test.embeddings.shape[1] != width:
        raise ValueError(f"test: {test.embeddings.shape[1]} wide, train {width}; infer both with the same network")
    memory, hits = _unit(train.embeddings).float().T, 0
    for images, labels in zip(_unit(test.embeddings).float().split(CHUNK), test.labels.split(CHUNK), strict=True):
        cosine, near = (images @ memory).topk(k, 1)
        votes = torch.zeros(len(labels), train.logits.shape[1])
        votes.scatter_add_(1, train.labels[near], 1 + cosine / (k + 1))  # cosines of k never sum to a vote
        hits += (votes.argmax(1) == labels).sum().item()
    return 100 * hits / len(test.labels)


def embedding_quality(train: dict[str, Predictions], test: dict[str, Predictions], k: int = 1):
    """A DataFrame of how good each network's embedding of the test images is, a row per network in the order of test.

    network; alignment (`class_alignment`) and uniformity; nearest_neighbour_pct by the k nearest of the network's own
    training images; probe_pct of a linear probe fitted to them; top1_pct of the network's own classifier, which may be
    less trained than the embedding deserves; width (d). Raises ValueError for keys that differ.
    """
    import pandas

    if set(train) != set(test):
        raise ValueError(f"test: {', '.join(test)} for train {', '.join(train)}; give both splits of each network")
    return pandas.DataFrame([{"network": name, **_row(train[name], test[name], k)} for name in test])


def _row(train: Predictions, test: Predictions, k: int) -> dict[str, float]:
    return {
        "alignment": class_alignment(test),
        "uniformity": uniformity(test.embeddings),
        "nearest_neighbour_pct": nearest_neighbour_pct(train, test, k),
        "probe_pct": probe_accuracy_pct(train, test),
        "top1_pct": top_k_pct(test),
        "width": test.embeddings.shape[1],
    }


def tsne(
    predictions: dict[str, Predictions],
    count: int = 2000,
    classes: list[int] | None = None,
    perplexity: float = 30,
    seed: int = 0,
):
    """A DataFrame of t-SNE maps (van der Maaten and Hinton 2008) of the same images for every network.

    Columns: network, index (of the image in its split), label, x, y, perplexity. Of the images of `classes` (of all,
    where None) `count` are chosen by `seed`, each class in proportion, or all if there are fewer. Each network's unit
    embeddings go through PCA to at most 50 directions; the map starts from the first two. Maps of two networks have no
    axis in common. Raises ValueError for predictions of different images, a class without any, a perplexity not below
    the number of images, and embeddings that are all alike.
    """
    import pandas
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    chosen, maps = _chosen(predictions, count, classes, seed), []
    if not 0 < perplexity < len(chosen):
        raise ValueError(f"perplexity = {perplexity}: must lie between 0 and {len(chosen)}, the number of images")
    for name, network in predictions.items():
        unit = _unit(network.embeddings[chosen]).numpy()
        if not unit.var(0).max() > 1e-20:
            raise ValueError(f"predictions: the embeddings of {name} are all alike; leave out a collapsed network")
        reduced = PCA(min(PRINCIPAL, *unit.shape), svd_solver="full").fit_transform(unit)
        x, y = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced).T
        maps.append(_points(name, network, chosen, x=x, y=y, perplexity=perplexity))
    return pandas.concat(maps, ignore_index=True)


def hypersphere(predictions: dict[str, Predictions], classes: list[int], count: int = 600, seed: int = 0):
    """A DataFrame of each network's embeddings as points of a sphere: network, index, label, x, y, z, kept_pct.

    Unit embeddings of the images chosen as in `tsne` are projected to three directions and scaled to length 1 again.
    The directions are the leading singular ones about the sphere's centre, not about the mean: so a network whose
    embeddings crowd in a cone shows a crowd. x points to where the images are on the whole.

    What is lost: everything in the other d - 3 directions, and how far each image stood from the three. kept_pct is
    the share in percent of the embeddings' variance about their mean that the three directions hold. Each network has
    directions of its own; its sphere as a whole is turned (or mirrored) to lie as the first network's does, as nearly
    as the points allow. Raises ValueError for predictions of different images and a class without any.
    """
    import pandas

    chosen, points, first = _chosen(predictions, count, classes, seed), [], None
    for name, network in predictions.items():
        seen, kept = _three_directions(_unit(network.embeddings[chosen]))
        sphere = _unit(seen)
        first = sphere if first is None else first
        x, y, z = (sphere @ _turn(sphere, first)).T.numpy()
        points.append(_points(name, network, chosen, x=x, y=y, z=z, kept_pct=100 * kept))
    return pandas.concat(points, ignore_index=True)


def _three_directions(unit: Tensor) -> tuple[Tensor, float]:
    """Coordinates [n, 3] along the leading singular directions, 0 where d < 3, and the share of variance they hold."""
    directions = torch.linalg.svd(unit, full_matrices=False).Vh[:3]
    seen = unit @ directions.T
    seen = seen * torch.where(seen.sum(0) < 0, -1, 1)  # which of the two signs is the solver's whim
    share = (seen - seen.mean(0)).square().sum() / (unit - unit.mean(0)).square().sum()
    return F.pad(seen, (0, 3 - seen.shape[1])), share.item()


def _turn(points: Tensor, target: Tensor) -> Tensor:
    """The orthogonal Q [3, 3] of least ||points Q - target|| (Schoenemann 1966)."""
    left, _, right = torch.linalg.svd(points.T @ target)
    return left @ right


def _chosen(predictions: dict[str, Predictions], count: int, classes: list[int] | None, seed: int) -> Tensor:
    """Positions, ascending, of the images to show of every network."""
    if not predictions:
        raise ValueError("predictions: none given; name at least one network")
    first, *others = predictions.values()
    for other in others:
        require_same_images(first, other)
    wanted = first.labels.unique() if classes is None else torch.tensor(classes, dtype=torch.int64)
    if len(missing := wanted[~torch.isin(wanted, first.labels)]):
        raise ValueError(f"classes: no image is of class {missing[0]}; choose among the labels of the split")
    members = torch.isin(first.labels, wanted).nonzero()[:, 0]
    if len(members) > count:
        members = members[stratified(first.labels[members], count, seed)[1]]
    if len(members) < 2:
        raise ValueError(f"count = {count}, classes = {classes}: leaves {len(members)} images; at least 2 are needed")
    return members


def _points(name: str, network: Predictions, chosen: Tensor, **columns):
    import pandas

    facts = {"index": network.index[chosen].numpy(), "label": network.labels[chosen].numpy()}
    return pandas.DataFrame({"network": name, **facts, **columns})
