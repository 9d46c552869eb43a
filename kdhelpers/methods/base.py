"""The base of the distillation methods: a module that turns one batch into named, weighted loss terms."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, get_type_hints

from torch import Tensor, nn

from kdhelpers.methods.parts.ranges import Range, check_range

OUTPUTS = ("logits", "embedding", "feature_maps", "final_map", "pre_activations")  # of a network's outputs


class Classifier:
    """The classifier of a network as a function [..., d] -> [..., C], with its present weights.

    It is not a module, so a method that keeps it does not train, save or count it. `module` is the network's own.
    """

    def __init__(self, module: nn.Module, owner: str = "model"):
        self.module, self._owner = module, owner

    def __call__(self, embedding: Tensor) -> Tensor:
        if isinstance(self.module, nn.Conv2d):  # of 1x1 pixel: it takes maps, not vectors
            _ = self.weight
        return self.module(embedding)

    @property
    def weight(self) -> Tensor:
        """[C, d]. Raises ValueError for a classifier without such a weight."""
        weight = getattr(self.module, "weight", None)
        if not isinstance(weight, Tensor) or weight.ndim != 2:
            kind = type(self.module).__name__
            raise ValueError(f"{self._owner}: its classifier is {kind}, without a weight [C, d]; name an nn.Linear")
        return weight

    def frozen_copy(self) -> nn.Module:
        """A module of a method's own. Raises as `weight` does."""
        _ = self.weight
        return copy.deepcopy(self.module).requires_grad_(False)


@dataclasses.dataclass(frozen=True)
class Context:
    """The networks and the training split, as `Method.build` needs them."""

    student_outputs: Any  # `kdhelpers.models.Outputs` of two images: logits [B, C], embedding [B, d], maps [B, c, h, w]
    teacher_outputs: Any  # the same; None without a teacher
    copy_student: Callable[[], nn.Module]  # makes a frozen copy of the student, a module `view -> Outputs`
    labels: Tensor  # int64 [N], of the training split in `batch.index` order
    num_classes: int
    student_parameters: Sequence[nn.Parameter] = ()  # in the order of the copy's
    student_classifier: Classifier | None = None  # live
    teacher_classifier: Classifier | None = None  # frozen; None without a teacher


class Method(nn.Module):
    """A distillation method. A subclass declares hyperparameters as fields and returns its loss terms from `forward`.

    `temperature: Temperature = 4.0` declares a hyperparameter, its range and its default: a subclass is a keyword-only
    dataclass. Rules between hyperparameters stand in `__post_init__`, after `super().__post_init__()`.
    Class attributes without an annotation override the attributes below; a property may compute one from the fields.

    `forward(student, teacher, batch, epoch)` returns scalar terms, already weighted: {"ce": ..., "kd": ...}. The loop
    minimises their sum and logs each term.
    student, teacher:  view -> Outputs(logits, embedding, feature_maps, final_map, pre_activations); the teacher's
                       carry no gradient, and hold of the last three what `reads` names. `pre_activations` are made
                       for the teacher alone.
                       `student(view, stop_at="layer2")` ends the forward pass at that map; layers above stay unchanged.
    batch:             views (`views` tensors [B, 3, H, W], augmented independently), labels [B], index [B] (rows of the
                       training split), weak_view, and unlabelled (with views, weak_view and index). If labelled and
                       unlabelled images share a forward pass of the student, the labelled ones come first.
    epoch:             counted from 1

    Parameters of a method are trained with the student. Its buffers are saved in the checkpoint and updated in place,
    without gradient. The student's weight file holds neither. Submodules are in train mode during training, also
    `context.copy_student()`, whose BatchNorm then uses batch statistics. Draw from torch's global generator: the loop
    seeds it from (seed, epoch). A GPU may repeat a recorded step until the epoch ends: from step to step
    only tensors may change, and numbers of Python with `epoch` alone.
    """

    title: ClassVar[str]  # the method's name in tables and figures; by default its key in capitals
    needs_teacher = True
    reads: tuple[str, ...] = ("logits",)  # parts of the teacher's outputs; logits and embedding can be cached.
    # With "final_map" the student has one, too: networks that lack it, or pre-activations, are refused before training.
    views = 1
    weak_view = ""  # "shared_crop" or "own_crop" adds a weak view (FixMatch's term: crop and flip only) to the batch
    needs_strong_view = False  # a Run refuses an augmentation of crop and flip only
    uses_unlabelled = False
    mixes_images = False  # the networks get images that the method makes: no cached teacher, no train accuracy
    trains_classifier = True  # else a linear probe is fitted to the embeddings after training
    stage_epochs = 0  # length of a first stage that trains a part of the student; less than the run's epochs
    retired: ClassVar[dict[str, Any]] = {}  # removed hyperparameters, which older records hold at this value

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own, inherited = cls.__dict__.get("__annotations__", {}), getattr(cls, "__dataclass_fields__", {})
        for name in vars(cls):
            if name in inherited and name not in own:
                raise TypeError(f"{cls.__name__}.{name}: is a hyperparameter; annotate the new default, too")
        if "__init__" in vars(cls):
            raise TypeError(f"{cls.__name__}.__init__: annotate hyperparameters instead, and make modules in build()")
        for name, value in vars(cls).items():
            is_declared = name in own or name == "title" or name.startswith("_") or hasattr(Method, name)
            if type(value) in (bool, int, float, str) and not is_declared:
                line = f"{name}: {type(value).__name__} = {value!r}"
                raise TypeError(f"{cls.__name__}.{name}: has no annotation; write `{line}`")
        for name, hint in own.items():
            if hasattr(Method, name) and name not in inherited and "ClassVar" not in str(hint):
                raise TypeError(f"{cls.__name__}.{name}: is not a hyperparameter; leave its annotation out")
        reads = vars(cls).get("reads", ())
        if isinstance(reads, str) or (isinstance(reads, tuple) and not set(reads) <= set(OUTPUTS)):
            raise TypeError(f"{cls.__name__}.reads = {reads!r}: must be a tuple of some of {', '.join(OUTPUTS)}")
        dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
        for field in dataclasses.fields(cls):
            if field.name in vars(cls):
                delattr(cls, field.name)  # the default on the class would hide a submodule of this name

    def __post_init__(self) -> None:
        """Raise ValueError for a hyperparameter out of its range, and if all weights are 0."""
        super().__init__()  # a module takes plain values before this call
        weights = {}
        for name, hint in get_type_hints(type(self).__init__, include_extras=True).items():
            for limits in getattr(hint, "__metadata__", ()):
                if not isinstance(limits, Range):
                    raise TypeError(f"{type(self).__name__}.{name}: {limits!r} is not a Range; write Range(low, high)")
                check_range(name, getattr(self, name), limits.low, limits.high)
                if limits.is_weight:
                    weights[name] = getattr(self, name)
        if weights and not any(weights.values()):
            raise ValueError(f"{', '.join(weights)}: all are 0, which trains nothing; raise one")

    def build(self, context: Context) -> None:
        """Make projectors, memory banks, slow copies. The loop calls it once, before it makes the optimiser."""

    def predicting_head(self) -> nn.Module | None:
        """After `build`: the module that predicts for the student, from its final map [B, c, h, w] to logits [B, C].

        Its submodules `pool` and `classifier` take the place of the student's, also in the outputs of `student(view)`.
        It is stored in a file of its own, which `load_head` reads. None: the student's own classifier predicts.
        """
        return None

    @staticmethod
    def load_head(state: Mapping[str, Tensor]) -> nn.Module:
        """The head of a stored state_dict, whose shapes give its sizes."""
        raise NotImplementedError("a method with a predicting_head() must rebuild it in load_head()")

    def measure(self) -> dict[str, float]:
        """Numbers for the history at the end of an epoch that are not loss terms: {"temperature": 15.6}.

        `display.progress.MEASUREMENTS` holds their names; plots show all other columns as loss terms.
        """
        return {}

    def forward(self, student, teacher, batch, epoch: int) -> dict[str, Tensor]:
        raise NotImplementedError(f"{type(self).__name__} must return its loss terms from forward()")
