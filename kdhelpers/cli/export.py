"""`python -m kdhelpers export`: the command, and what it prints."""

from typing import Any

import click

from kdhelpers.cli import examples
from kdhelpers.cli.group import with_network


@click.command(epilog=examples.EXPORT_EXAMPLES)
@with_network
@click.argument("name")
@click.option("--format", default="onnx", show_default=True, metavar="FORMAT", help="onnx, torchscript or safetensors.")
@click.option("--int8", is_flag=True, help="Quantise an ONNX file to int8, calibrated on training images.")
@click.option(
    "--input", "pixels", default="uint8", show_default=True, metavar="TYPE", help="uint8, or float: float32 in 0..1."
)
@click.option("--output", metavar="FILE", help="Default: pth_models/exports/NAME with the format's extension.")
@click.option(
    "--images", type=click.IntRange(1), default=2000, show_default=True, metavar="N", help="Test images of the check."
)
@click.option("--force", is_flag=True, help="Replace a file of other content.")
def export(name: str, output: str | None, **options: Any) -> None:
    """Write stored weights as a file for production.

    NAME is the name of stored weights, or a .pth file. The normalisation is inside an ONNX or TorchScript file: it
    takes images [N, 3, H, W] and gives logits. It is checked against PyTorch on test images, and the command fails if
    they differ. FILE.json describes the file, FILE.md is its model card.
    """
    from kdhelpers.deploy import export as export_weights

    click.echo(described(export_weights(name, output=output, **options)))


def described(exported: Any) -> str:
    """The file, its check, the cost of int8, and the two files next to it."""
    facts = exported.facts
    lines = [f"{exported.path} ({facts['bytes'] / 1e6:.2f} MB)", _check(facts["check"])]
    if paired := facts.get("int8_cost"):
        lines.append(
            f"int8: {paired['top1_pct']:.2f} % top-1, PyTorch {paired['float_top1_pct']:.2f} % on the same "
            f"{paired['images']:,} test images; difference {paired['difference_pct']:+.2f} points, 95 % interval "
            f"{paired['low_pct']:+.2f} to {paired['high_pct']:+.2f}; calibrated on "
            f"{facts['calibration']['images']:,} training images"
        )
    return "\n".join([*lines, f"description: {exported.description}", f"model card: {exported.card}"])


def _check(check: dict) -> str:
    if "tensors" in check:
        return f"check: all {check['tensors']:,} tensors were read back and are equal"
    return (
        f"check against PyTorch on {check['images']:,} test images: largest difference of a logit "
        f"{check['largest_difference']:.2g}, same class for {check['same_class_pct']:.2f} %"
    )
