"""Variational autoencoders: the evidence lower bound, and what it is made of.

Shapes: B examples, C channels, H×W pixels, Z latent dimensions, K classes, k samples of a latent.
"""

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from zoo.likelihoods import (
    bernoulli_log_likelihood,
    discretised_gaussian_log_likelihood,
    importance_weighted_bound,
    kl_to_standard_normal,
    log_importance_weight,
)
from zoo.randomness import key, normal, uniform
from zoo.tasks.base import Batch
from zoo.tasks.engine import Optimization
from zoo.tasks.generative import Generative, condition_of, is_conditional, require_range
from zoo.vae_scores import VaeScores

PIXELS_AT_ONCE = 2**21  # decoded at once for the importance-weighted bound: what bounds its memory


class Vae(Generative):
    """Pictures from a latent with a standard normal prior. Monitor: validation loss.

    The loss is the negative evidence lower bound in nats per image, −log p(x|z) + `beta`·KL(q(z|x) ‖ p(z)), summed over
    pixels, averaged over the batch, with one sample of z (Kingma & Welling 2014, 1312.6114, eq. 10; β: Higgins et al.
    2017, "β-VAE"). It is the same in training and validation with one exception: over the first `kl_warmup_epochs` the
    training loss weighs the KL linearly from 0 to `beta` (Bowman et al. 2016, 1511.06349), while validation always
    weighs it by `beta`, or its losses could not be compared from epoch to epoch. Weighed by 1 in both are train/nelbo
    and val/nelbo.

    `binarize` makes pixels 0 or 1, for the encoder and the likelihood: threshold (above a half) or dynamic (1 with the
    pixel as probability, drawn anew each epoch, always the same in evaluation: Salakhutdinov & Murray 2008); none
    leaves grey levels, of which a Bernoulli likelihood is none (zoo/likelihoods.py): such numbers compare with each
    other only. A Gaussian likelihood is that of 256 grey levels, and takes no binary pixels.

    Metrics, in nats per image over the whole split: nelbo (β = 1), its parts reconstruction and kl, bits_per_dimension
    (nelbo per pixel and channel), active_units (latents whose posterior mean has a variance above .01 over the split:
    Burda et al. 2016, 1509.00519, section 5.2; near 0 the posterior has collapsed). Evaluated outside training, also
    nll, the bound of `importance_samples` importance-weighted samples (0: none), Burda's L_k.
    """

    network: Any  # VAE or ConvVAE

    def __init__(
        self,
        network: nn.Module,
        *,
        beta: float = 1.0,
        kl_warmup_epochs: float = 0.0,
        binarize: Literal["none", "threshold", "dynamic"] = "none",
        importance_samples: int = 0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        if not 0 <= beta < math.inf:
            raise ValueError(f"beta={beta}: must be 0 or more")
        if not 0 <= kl_warmup_epochs < math.inf:
            raise ValueError(f"kl_warmup_epochs={kl_warmup_epochs}: must be 0 or more")
        if binarize not in ("none", "threshold", "dynamic"):
            raise ValueError(f"binarize={binarize}: must be none, threshold or dynamic")
        if importance_samples < 0:
            raise ValueError(f"importance_samples={importance_samples}: must be 0 (no estimate) or more")
        self.is_bernoulli = network.likelihood == "bernoulli"
        if binarize != "none" and not self.is_bernoulli:
            raise ValueError(f"binarize={binarize}: must be none with likelihood=gaussian, which is of grey levels")
        self.conditional = is_conditional(network, self.facts)
        require_range(self.facts, 0, "a likelihood is of pixels from 0 to 1")
        self.beta, self.kl_warmup_epochs = beta, kl_warmup_epochs
        self.binarize, self.importance_samples = binarize, importance_samples

    # The loss -------------------------------------------------------------------------------------------------------

    def images(self, batch: Batch) -> Tensor:
        """The pixels that the encoder sees and the likelihood is of: (B, C, H, W), from 0 to 1."""
        images = batch["input"].float().clamp(0, 1)
        if self.binarize == "threshold":
            return (images > 0.5).float()
        if self.binarize == "dynamic":
            draws = uniform(key(self.draws, "binarize"), batch["position"], images[0].numel())
            return (draws.view_as(images) < images).float()
        return images

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        noise = normal(key(self.draws, "noise"), batch["position"], self.network.latent_size)
        condition = condition_of(batch, self.conditional)
        return (self.images(batch), noise) if condition is None else (self.images(batch), noise, condition)

    def log_likelihood(self, network: Any, reconstruction: Tensor, images: Tensor) -> Tensor:
        """log p(x|z) of each picture, (B,)."""
        if self.is_bernoulli:
            return bernoulli_log_likelihood(reconstruction, images)
        return discretised_gaussian_log_likelihood(reconstruction, network.log_scale, images)

    def kl_weight(self, network: nn.Module) -> float:
        engine = self.engine
        if engine is None or not network.training or not self.kl_warmup_epochs:
            return self.beta
        return self.beta * min(1.0, (engine.step_count + 1) / (self.kl_warmup_epochs * engine.steps_per_epoch))

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        inputs = self.inputs(batch)
        reconstruction, mean, log_variance = network(*inputs)
        kl = kl_to_standard_normal(mean, log_variance)  # (B, Z)
        cost, divergence = -self.log_likelihood(network, reconstruction, inputs[0]), kl.sum(1)  # (B,)
        outputs = {"mean": mean, "log_variance": log_variance, "kl": kl, "nats": cost + divergence}
        if not network.training:  # only shown, and a tenth of a step of a small network
            outputs["reconstruction"] = self.to_pixels(reconstruction)
        loss = (cost + self.kl_weight(network) * divergence).mean()
        return loss, {name: tensor.detach() for name, tensor in outputs.items()}

    # Metrics --------------------------------------------------------------------------------------------------------

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        return outputs["nats"], outputs["kl"]

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        nats, kl = (torch.cat(part) for part in zip(*kept, strict=True))
        return {"train/nelbo": nats.mean().item(), "train/kl": kl.sum(1).mean().item()}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"vae": VaeScores(self.network.latent_size, math.prod(self.network.shape))})

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        self.split_metrics.update(outputs["nats"], outputs["kl"], outputs["mean"])

    @property
    def latent_scores(self) -> VaeScores:
        return cast(VaeScores, self.split_metrics["vae"])

    @property
    def kl_per_dimension(self) -> Tensor | None:
        """KL (Z,) of each latent over the split scored last, in nats; about 0 where a latent carries nothing."""
        return self.latent_scores.kl_per_dimension

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        outputs = self.evaluation_step(batch, batch_idx)
        if self.importance_samples:
            self.latent_scores.add_nll(-self.importance_weighted(self.evaluated_network, batch))
        return outputs

    @torch.no_grad()
    def importance_weighted(self, network: Any, batch: Batch) -> Tensor:
        """The bound L_k on log p(x) of each picture, (B,), from k = `importance_samples` samples of its latent."""
        images, condition = self.images(batch), condition_of(batch, self.conditional)
        mean, log_variance = network.encode(images, condition)  # (B, Z)
        std, at_once = torch.exp(0.5 * log_variance), max(1, PIXELS_AT_ONCE // images.numel())
        log_weights = []
        for first in range(0, self.importance_samples, at_once):
            samples = range(first, min(first + at_once, self.importance_samples))
            keys = [key(self.draws, "importance", sample) for sample in samples]
            noise = torch.stack([normal(k, batch["position"], mean.shape[1]) for k in keys])  # (k, B, Z)
            latent = mean + std * noise
            told = None if condition is None else condition.repeat(len(samples))
            decoded = network.decode(latent.flatten(0, 1), told)  # (k·B, C, H, W)
            expected = images.repeat(len(samples), 1, 1, 1)
            likelihood = self.log_likelihood(network, decoded, expected).view(len(samples), -1)
            log_weights.append(log_importance_weight(likelihood, latent, noise, log_variance))
        return importance_weighted_bound(torch.cat(log_weights))

    # Making ---------------------------------------------------------------------------------------------------------

    def to_pixels(self, reconstruction: Tensor) -> Tensor:
        """What the decoder says as pixels from 0 to 1: probabilities (Bernoulli) or means (Gaussian)."""
        return (torch.sigmoid(reconstruction) if self.is_bernoulli else reconstruction).float()

    @torch.no_grad()
    def decode_latent(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) from 0 to 1 of latents (B, Z) and classes (B,): traversals and interpolations."""
        network: Any = self.evaluated_network
        return self.to_pixels(network.decode(latent, condition))

    @torch.no_grad()
    def encode_mean(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """The posterior means (B, Z) of pictures (B, C, H, W) with pixels from 0 to 1."""
        network: Any = self.evaluated_network
        return network.encode(images, condition)[0]

    def reconstruct(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) decoded from the posterior means of pictures; both have pixels from 0 to 1."""
        return self.decode_latent(self.encode_mean(images, condition), condition)

    def sample(self, numbers: Tensor, *, seed: int, condition: Tensor | None = None) -> Tensor:
        """Pictures of latents from the prior: probabilities or means, not drawn pixel by pixel."""
        latent = normal(key(seed, "latent"), numbers, self.network.latent_size)
        return self.decode_latent(latent, self.classes(numbers) if condition is None else condition)
