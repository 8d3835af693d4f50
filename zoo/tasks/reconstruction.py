"""Reconstruction: an image through a short code and back, with what makes an autoencoder denoising or sparse."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from zoo.corruption import Corruption, check_corruption, corrupt
from zoo.randomness import key, uniform
from zoo.ssim import ssim
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization
from zoo.tasks.generative import require_range

LOSSES = ("mse", "l1", "bce", "ssim")
SPARSITIES = ("none", "kl", "l1")
LEVEL, TARGET, WEIGHT = 0.3, 0.05, 3.0  # of corruption and of sparsity, unless told


def reconstruction_errors(loss: str, values: Tensor, images: Tensor, pixels: Callable[[Tensor], Tensor]) -> Tensor:
    """The error of each image, (B,). `values` are what the decoder gives, of which `pixels` makes pixels.

    mse, l1 and bce are summed over the image (squares, absolute values, nats); ssim is 1 − SSIM. `bce` takes the values
    for logits. Its least is the entropy of the grey pixels, not 0.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(values, images, reduction="none").flatten(1).sum(1)
    if loss == "ssim":
        return 1 - ssim(pixels(values), images)
    error = (pixels(values) - images).flatten(1)
    return error.square().sum(1) if loss == "mse" else error.abs().sum(1)


def kl_sparsity(code: Tensor, target: float) -> Tensor:
    """Σ_j KL(target ‖ mean activation of unit j over the batch), of activations (B, Z) between 0 and 1.

    A. Ng, "Sparse autoencoder", CS294A lecture notes, 2011, section 3.
    """
    mean = code.float().mean(0).clamp(1e-6, 1 - 1e-6)  # a unit that is off for a whole batch must not be infinite
    return (target * torch.log(target / mean) + (1 - target) * torch.log((1 - target) / (1 - mean))).sum()


def encode_and_contract(
    encode: Callable[[Tensor], Tensor], images: Tensor, signs: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The codes (B, Z) of images, and an unbiased estimate of ‖J‖²_F of the encoder at each, (B,).

    For signs v (B, Z) of ±1, which `signs` makes for a code, E‖Jᵀv‖² = ‖J‖²_F (Hutchinson 1990, "A stochastic estimator
    of the trace of the influence matrix"): one back-propagation, where the exact sum takes one for each unit of the
    code. Rifai et al. 2011, whose encoder has one layer, have a closed form. The codes must depend on their own image
    only. Where gradients are off, as in evaluation, they are switched on inside, and nothing is kept.
    """
    learning = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone().requires_grad_()  # of an inference tensor, a clone can have gradients
        code = encode(images)
        (gradient,) = torch.autograd.grad((code.float() * signs(code)).sum(), images, create_graph=learning)
        return code if learning else code.detach(), gradient.float().square().flatten(1).sum(1)


class CodeStatistics(Metric):
    """code_mean, the mean activation, and active_units, the share of units that vary: whose standard deviation over the
    split is above a hundredth of the largest one's."""

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, units: int) -> None:
        super().__init__()
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(units), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(units), dist_reduce_fx="sum")

    def update(self, code: Tensor) -> None:
        self.count += len(code)
        self.total += code.float().sum(0)
        self.squares += code.float().square().sum(0)

    def compute(self) -> dict[str, Tensor]:
        mean = self.total / self.count
        deviation = (self.squares / self.count - mean.square()).clamp(min=0).sqrt()
        active = (deviation > 0.01 * deviation.max()).float().mean()
        return {"code_mean": mean.mean(), "active_units": active}


class Reconstruction(Task):
    """Images through a short code and back. Monitor: validation loss. Pixels must run from 0 to 1; no labels are used.

    loss = mean over images of `reconstruction_errors`
    + sparsity_weight · (kl: `kl_sparsity` with sparsity_target; l1: the mean over images of Σ|code|)
    + contractive_weight · mean of ‖J‖²_F (`encode_and_contract`; Rifai et al. 2011, "Contractive auto-encoders").
    Errors being sums over an image, the weights are on the scale of the papers. KL is of a batch's mean activations, so
    that it depends on the size of the batch.

    With `corruption` (zoo/corruption.py) the network sees a corrupted image and is compared with the clean one, in the
    loss of training and validation alike; every metric without "denoised" or "corrupted" is of clean input.

    Metrics, means over the images of a split, of pixels clipped to [0, 1]: mse, mae (per value), squared_error (summed
    over the image, as Hinton & Salakhutdinov 2006 report it), psnr (dB; of an error below 1e-10, 100), ssim; of the
    code: code_mean, active_units. With corruption also denoised_squared_error and corrupted_squared_error, before and
    after the network; with contraction also jacobian, ‖J‖²_F.
    """

    needs: ClassVar[dict[str, str]] = {"channels": "this data has no pictures: choose data=digits, or another task"}

    def __init__(
        self,
        network: Any,
        *,
        loss: Literal["mse", "l1", "bce", "ssim"] = "mse",
        corruption: Corruption = "none",
        corruption_level: float = LEVEL,
        sparsity: Literal["none", "kl", "l1"] = "none",
        sparsity_target: float = TARGET,
        sparsity_weight: float = WEIGHT,
        contractive_weight: float = 0.0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        if loss not in LOSSES:
            raise ValueError(f"loss={loss}: must be one of {', '.join(LOSSES)}")
        if loss == "bce" and network.output != "sigmoid":
            raise ValueError(f"loss=bce: must be mse, l1 or ssim with a network of output={network.output}")
        check_corruption(corruption, corruption_level)
        if sparsity not in SPARSITIES:
            raise ValueError(f"sparsity={sparsity}: must be one of {', '.join(SPARSITIES)}")
        if sparsity == "kl" and not isinstance(network.encoder[-1], nn.Sigmoid):
            raise ValueError(
                "sparsity=kl: must be l1 or none for a code that is no sigmoid, as KL takes activations "
                "between 0 and 1; or say model.code_activation=sigmoid"
            )
        if not 0 < sparsity_target < 1:
            raise ValueError(f"sparsity_target={sparsity_target}: must lie between 0 and 1")
        for name, weight in {"sparsity_weight": sparsity_weight, "contractive_weight": contractive_weight}.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name}={weight}: must be 0 or more")
        for name, given, usual, used, by in (
            ("corruption_level", corruption_level, LEVEL, corruption != "none", "corruption"),
            ("sparsity_target", sparsity_target, TARGET, sparsity == "kl", "sparsity=kl"),
            ("sparsity_weight", sparsity_weight, WEIGHT, sparsity != "none", "sparsity"),
        ):
            if given != usual and not used:
                raise ValueError(f"{name}={given}: must be left out without {by}")
        require_range(facts or {}, 0, "an autoencoder makes pixels from 0 to 1")
        self.criterion, self.corruption, self.corruption_level = loss, corruption, corruption_level
        self.sparsity, self.sparsity_target, self.sparsity_weight = sparsity, sparsity_target, sparsity_weight
        self.contractive_weight = contractive_weight
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)

    def signs(self, positions: Tensor) -> Callable[[Tensor], Tensor]:
        """Makes ±1 for codes (B, Z) of the examples at `positions`."""
        seed = key(self.draws, "contraction")
        return lambda code: torch.where(uniform(seed, positions, code.shape[1]) < 0.5, -1.0, 1.0)

    def loss(self, network: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        clean, positions = batch["input"], batch["position"]
        seen = corrupt(
            *(clean, positions),
            seed=key(self.draws, "corruption"),
            corruption=self.corruption,
            level=self.corruption_level,
        )
        outputs: dict[str, Tensor] = {}
        if self.contractive_weight:
            code, jacobian = encode_and_contract(network.encode, seen, self.signs(positions))
            outputs["jacobian"] = jacobian.detach()
        else:
            code = network.encode(seen)
        values = network.decode(code).float()
        loss = reconstruction_errors(self.criterion, values, clean, network.pixels).mean()
        if self.contractive_weight:
            loss = loss + self.contractive_weight * jacobian.mean()
        if self.sparsity == "kl":
            loss = loss + self.sparsity_weight * kl_sparsity(code, self.sparsity_target)
        elif self.sparsity == "l1":
            loss = loss + self.sparsity_weight * code.float().abs().sum(1).mean()
        if network.training:  # the rest is measured and shown of whole splits only
            return loss, outputs
        with torch.no_grad():
            outputs |= {"code": code.detach(), "reconstruction": network.pixels(values).clamp(0, 1)}
            if self.corruption != "none":
                outputs |= {"corrupted": seen, "denoised": outputs["reconstruction"]}
                outputs["code"] = network.encode(clean)
                outputs["reconstruction"] = network.pixels(network.decode(outputs["code"]).float()).clamp(0, 1)
        return loss, outputs

    def metrics(self) -> MetricCollection:
        names = ["mse", "squared_error", "mae", "psnr", "ssim"]
        if self.corruption != "none":
            names += ["denoised_squared_error", "corrupted_squared_error"]
        if self.contractive_weight:
            names.append("jacobian")
        units: Any = self.network.code
        means: dict[str, Any] = {name: MeanMetric(nan_strategy=math.nan) for name in names}
        return MetricCollection({**means, "code": CodeStatistics(units)}, compute_groups=False)

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        images, made = batch["input"], outputs["reconstruction"]
        mse = (made - images).square().flatten(1).mean(1)
        scores = {
            "mse": mse,
            "squared_error": mse * images[0].numel(),
            "mae": (made - images).abs().flatten(1).mean(1),
            "psnr": -10 * torch.log10(mse.clamp(min=1e-10)),
            "ssim": ssim(made, images),
        }
        for name in ("denoised", "corrupted"):
            if name in outputs:
                scores[f"{name}_squared_error"] = (outputs[name] - images).square().flatten(1).sum(1)
        if "jacobian" in outputs:
            scores["jacobian"] = outputs["jacobian"]
        for name, values in scores.items():
            self.split_metrics[name].update(values)
        self.split_metrics["code"].update(outputs["code"])
