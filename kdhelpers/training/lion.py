"""Lion (Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023), for all parameters at once.

    w <- w (1 - lr decay) - lr sign(beta1 m + (1 - beta1) g),      m <- beta2 m + (1 - beta2) g

Its state has the names of the package lion-pytorch, so the checkpoints of either load into the other.
"""

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """A step never waits for the device, so a CUDA graph can capture it.

    lr: a number, or a tensor without dimensions on the parameters' device. `torch.amp.GradScaler` leaves the division
    of the gradients by its scale, and the test for inf and nan, to `step`. Parameters are float32 with a scaler.
    """

    _step_supports_amp_scaling = True

    def __init__(self, parameters, lr: float | Tensor, betas: tuple[float, float], weight_decay: float):
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            if parameters := [p for p in group["params"] if p.grad is not None]:
                self._step(parameters, group["lr"], group["weight_decay"], *group["betas"])

    def _step(self, parameters: list[Tensor], lr: float | Tensor, decay: float, beta1: float, beta2: float) -> None:
        gradients, momenta = [p.grad for p in parameters], [self._momentum(p) for p in parameters]
        kept = beta2
        if (infinite := getattr(self, "found_inf", None)) is not None:  # 1 skips the step
            _unscale_or_clear(gradients, self.grad_scale, infinite)
            lr, kept = lr * (1 - infinite), beta2 * (1 - infinite) + infinite
        torch._foreach_mul_(parameters, 1 - lr * decay)
        updates = torch._foreach_mul(momenta, beta1)
        torch._foreach_add_(updates, gradients, alpha=1 - beta1)
        torch._foreach_sign_(updates)
        torch._foreach_mul_(updates, -lr)
        torch._foreach_add_(parameters, updates)
        torch._foreach_mul_(momenta, kept)
        torch._foreach_add_(momenta, gradients, alpha=1 - beta2)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["exp_avg"] = torch.zeros_like(parameter)
        return state["exp_avg"]


def _unscale_or_clear(gradients: list[Tensor], scale: Tensor | None, infinite: Tensor) -> None:
    """Divide the gradients by `scale` (None: done already); set all to zero if `infinite` is 1."""
    if scale is not None:
        torch._foreach_mul_(gradients, scale.reciprocal())
    # inf * 0 is nan, but the bits of inf, as an integer, times 0 give 0.
    torch._foreach_mul_([gradient.view(torch.int32) for gradient in gradients], (1 - infinite).int())
