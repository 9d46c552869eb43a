"""Result records as `fit` writes them, for the tests of everything that reads records."""

from __future__ import annotations

import hashlib

from kdhelpers import artifacts

RUN = {
    "dataset": "cifar100",
    "image_size": None,
    "val_fraction": 0.1,
    "split_seed": 0,
    "model": "resnet8",
    "model_options": {},
    "pretrained": False,
    "role": "student",
    "teacher": None,
    "method": "si",
    "hyperparameters": {},
    "optimizer": "sgd",
    "lr": 0.05,
    "weight_decay": 5e-4,
    "optimizer_options": {"momentum": 0.9, "nesterov": True},
    "schedule": "cosine",
    "schedule_options": {},
    "warmup_epochs": 0,
    "epochs": 8,
    "batch_size": 64,
    "augmentation": "crop=4 flip",
    "seed": 0,
    "precision": "auto",
    "selection": "best_val",
    "name": None,
}
LM = {
    "method": "lm",
    "teacher": "teacher_resnet20_cifar100",
    "hyperparameters": {"temperature": 4.0, "ce_weight": 0.5, "kd_weight": 0.5},
}
TEACHER_TOP1_PCT = 60.0


def history(epochs: int = 8, top1_pct: float = 50.0, terms: tuple[str, ...] = ("ce",)) -> list[dict]:
    """Rows of a training whose losses fall and whose validation accuracy rises to `top1_pct`."""
    rows = []
    for epoch in range(1, epochs + 1):
        losses = {term: (4.5 - 0.5 * number) * 0.8**epoch for number, term in enumerate(terms)}
        rows.append(
            {
                "epoch": epoch,
                "lr": 0.05 * (1 - epoch / epochs),
                "loss": sum(losses.values()),
                **losses,
                "train_top1_pct": top1_pct * (1 - 0.75**epoch) + 2,
                "val_top1_pct": top1_pct * (1 - 0.7**epoch),
                "val_nll": 4.6 * 0.85**epoch,
                "seconds": 2.5,
                "images_per_second": 18000.0,
                "peak_memory_mib": 512.0,
            }
        )
    return rows


def record(test_top1_pct: float = 50.0, *, status: str = "finished", device: str = "cpu", **run) -> dict:
    """A record of the Run `RUN | run`, its teacher of TEACHER_TOP1_PCT, if any; early keys alone if unfinished."""
    run = RUN | run
    method = "" if run["role"] == "teacher" else f"_{run['method']}"
    stem = run["name"] or f"{run['role']}{method}_{run['model']}_{run['dataset']}"
    name = f"{stem}_seed{run['seed']}" if run["seed"] else stem
    teacher = {"name": run["teacher"], "sha256": "a" * 64, "model": "resnet20", "test_top1_pct": TEACHER_TOP1_PCT}
    early = {
        "schema": 1,
        "name": name,
        "identity": hashlib.sha256(repr(sorted(run.items())).encode()).hexdigest(),
        "status": status,
        "error": "FloatingPointError: kd is not finite in epoch 3" if status == "failed" else None,
        "run": run,
        "teacher": teacher if run["teacher"] else None,
        "data": {
            "name": run["dataset"],
            "image_size": 32,
            "classes": 100,
            "train": 45000,
            "val": 5000,
            "test": 10000,
            "hash": "d" * 64,
        },
        "environment": {
            "python": "3.11.9",
            "torch": "2.8.0",
            "kdhelpers": "0.1.0",
            "platform": "Linux",
            "device": device,
            "device_name": "x86_64" if device == "cpu" else "NVIDIA H200",
            "threads": 2,
            "precision": {"auto": "fp32" if device == "cpu" else "bf16"}.get(run["precision"], run["precision"]),
            "started": "2026-11-21T02:00:00+00:00",
        },
        "notebook": None,
        "command": "fit",
    }
    if status != "finished":
        return early
    early["environment"]["finished"] = f"2026-11-21T03:00:{run['seed']:02d}+00:00"
    return early | {
        "model": {"parameters": 78042, "macs": 12_500_000},
        "selection": {"rule": run["selection"], "epoch": run["epochs"]},
        "metrics": {
            "test_top1_pct": test_top1_pct,
            "test_top5_pct": min(100.0, test_top1_pct + 25),
            "test_nll": 1.8,
            "test_ece_pct": 3.1,
            "val_top1_pct": test_top1_pct + 0.4,
            "train_seconds": 20.0,
            "seconds_per_epoch": 2.5,
            "images_per_second": 18000.0,
            "peak_memory_mib": 512.0,
        },
        "history": history(run["epochs"], test_top1_pct, ("ce", "kd") if run["method"] == "lm" else ("ce",)),
        "weights": {"file": f"{name}.pth", "sha256": "b" * 64},
    }


def store(*found: dict) -> None:
    """Write records where `artifacts.records()` finds them."""
    for item in found:
        artifacts.save_json(artifacts.record_path(item["name"]), item)


def study() -> list[dict]:
    """A teacher; students alone and by LM with seeds 0-2; LM at T=2 once; one failed and one running student."""
    return [
        record(60.0, role="teacher", model="resnet20"),
        *(record(top1, seed=seed) for seed, top1 in enumerate((50.0, 51.0, 49.0))),
        *(record(top1, seed=seed, **LM) for seed, top1 in enumerate((52.0, 52.5, 51.5))),
        record(53.0, **LM | {"hyperparameters": LM["hyperparameters"] | {"temperature": 2.0}, "name": "student_lm_t2"}),
        record(status="failed", seed=3, **LM),
        record(status="running", seed=4, **LM),
    ]
