"""One script that proves speed and correctness on a device, and trains published runs there within a deadline.

    python -m benchmarks gpu check --out OUT --seconds 150     # first: what is right, what is fast
    python -m benchmarks gpu real --out OUT --seconds 545      # then, on the same machine: 240 epochs of vgg13 -> vgg8
    python -m benchmarks gpu check --device cpu --seconds 60   # a rehearsal, with small networks

A command is a list of sections. After each section `gpu_<command>.json` is written; a second call skips sections that
finished. Artifacts lie under `state/work/artifacts`; `--state` moves them and the JSON's first copy out of OUT.

`real` leaves in OUT at most eight files of at most 16 MiB: the JSON, `results.tar` (records, test logits, curves), and
the weights as `weights.tar.part0`, ...; join them by `cat weights.tar.part* | tar x`.

A machine without network lacks pydantic: `pip download -d wheels -r requirements-package.txt` elsewhere, carry the
folder, then `pip install --no-index --find-links wheels pydantic scikit-learn matplotlib pandas tqdm`.
"""
