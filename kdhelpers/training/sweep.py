"""Sweeps: the runs that differ from one in a few hyperparameters or the optimiser, under names that say in which."""

from itertools import combinations

from kdhelpers.training.optim import starting_point
from kdhelpers.training.run import Run, named_values

WORDS = {"lam": "hybrid_lambda", "temperature": "tau"}  # in names, as users of the published table know them
PURE = ("lam", 1.0)  # no hybrid, and not named as one
EXAMPLE = '"alpha=1 beta=12; temperature=0.05; lam=0.3"'


def sweep_runs(run: Run, settings: str) -> list[Run]:
    """`run` with the hyperparameters of each setting instead of its own; `run` alone where `settings` is empty.

    settings: "alpha=1 beta=12; temperature=0.05; lam=0.3". What a setting leaves out is as in `run`; its name says what
    it does not: student_alpha_1.0_beta_12.0_resnet18_cifar100, student_tau_0.05_..., student_hybrid_lambda_0.3_...
    (methods other than SupCRD put their own name before). A `name` of the run goes in front instead. Raises ValueError
    for what is no setting, and as `Run` does.
    """
    runs = [_variant(run, text) for text in settings.split(";") if text.strip()] or [run]
    for first, second in combinations(runs, 2):
        if first.name == second.name and first.id != second.id:
            raise ValueError(f"settings: two of them make different runs named {first.name}; say in each what differs")
    return runs


def optimizer_runs(run: Run, others: str) -> list[Run]:
    """`run`, then the same run with each of the `others`: names of optimisers, separated by spaces; its own is skipped.

    The others take the learning rate and weight decay that they begin with (`optim.starting_point`). All are named
    after their optimiser, student_conkd_lion_resnet18_imagenette; a `name` of the run stays its own, and goes in front
    of the others'. Raises ValueError for an unknown optimiser.
    """

    def name(optimizer: str) -> str:
        return (
            f"{run.name}_{optimizer}"
            if run.name
            else "_".join((run.role, run.method, optimizer, run.model, run.dataset))
        )

    runs = [run.model_copy(update={"name": run.name or name(run.optimizer)})]
    standing = run.model_dump(exclude={"optimizer", "optimizer_options", "lr", "weight_decay", "name"})
    for other in dict.fromkeys(others.split()):
        if other != run.optimizer:
            lr, decay = starting_point(other)
            runs.append(Run(**standing, optimizer=other, lr=lr, weight_decay=decay, name=name(other)))
    return runs


def _variant(run: Run, text: str) -> Run:
    chosen = named_values(text, "settings", EXAMPLE)
    standing = run.model_dump(exclude={"hyperparameters", "name"})
    variant = Run(**standing, hyperparameters=run.hyperparameters | chosen)
    values = variant.hyperparameters
    said = {name: values[name] for name in (*chosen, "lam") if name in values}  # a hybrid's name always says so
    words = [f"{WORDS.get(name, name)}_{value}" for name, value in said.items() if (name, value) != PURE]
    method = [] if words and run.method == "supcrd" else [run.method]
    stem = [run.name, *words] if run.name else [run.role, *method, *words, run.model, run.dataset]
    return variant.model_copy(update={"name": "_".join(stem)})
