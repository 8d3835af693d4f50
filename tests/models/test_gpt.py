"""GPT: counts, torch.nn's causal stack as twin, causality, first weights, what it refuses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn
from torch.func import functional_call

from zoo.models.gpt import GPT
from zoo.models.transformer import attend

SIZES: dict[str, Any] = {"num_tokens": 11, "context": 8, "layers": 2, "heads": 3, "d_model": 12}


def make(**options: Any) -> GPT:
    torch.manual_seed(0)
    return GPT(**{**SIZES, **options})


def tokens() -> Tensor:
    return torch.randint(0, 11, (3, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("options", "parameters", "without_positions"),
    [
        (
            {"num_tokens": 65, "context": 256, "layers": 6, "heads": 6, "d_model": 384},
            10_745_088,
            10_646_784,
        ),
        ({"num_tokens": 65, "context": 64, "layers": 4, "heads": 4, "d_model": 128}, 804_096, 795_904),
        (
            {"num_tokens": 50_257, "context": 1024, "layers": 12, "heads": 12, "d_model": 768, "bias": True},
            124_439_808,
            123_653_376,
        ),
    ],
)
def test_parameters(options: dict, parameters: int, without_positions: int) -> None:
    with torch.device("meta"):
        network = GPT(**options)
    count = sum(p.numel() for p in network.parameters())
    assert (count, count - network.positions.weight.numel()) == (parameters, without_positions)
    assert network.head.weight is network.embedding.weight


def test_twin(certify_row: Callable[..., None]) -> None:
    ours = make(bias=True).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layer = nn.TransformerEncoderLayer(12, 3, 48, 0.0, nn.GELU("tanh"), batch_first=True, norm_first=True)
    twin = nn.TransformerEncoder(layer, 2, nn.LayerNorm(12), enable_nested_tensor=False).double()
    # torch's stack is called with our own parameters, so that both give gradients of the same tensors
    parameters = {f"norm.{name}": parameter for name, parameter in ours.norm.named_parameters()}
    places = {"norm1": "norm1", "norm2": "norm2", "expand": "linear1", "contract": "linear2"}
    for i, block in enumerate(ours.blocks):
        for part in ("weight", "bias"):
            for name, place in {**places, "attention.output": "self_attn.out_proj"}.items():
                parameters[f"layers.{i}.{place}.{part}"] = getattr(block.get_submodule(name), part)
            projections = [block.attention.query, block.attention.key, block.attention.value]
            packed = torch.cat([getattr(projection, part) for projection in projections])
            parameters[f"layers.{i}.self_attn.in_proj_{part}"] = packed
    assert parameters.keys() == twin.state_dict().keys()
    x = F.embedding(tokens(), ours.embedding.weight) + ours.positions.weight
    theirs = functional_call(twin, parameters, (x, torch.ones(8, 8, dtype=torch.bool).triu(1)))
    theirs = theirs @ ours.embedding.weight.T
    mine, state = ours(tokens())
    assert state is None
    first, second = (
        [logits, F.cross_entropy(logits.flatten(0, 1), tokens().roll(-1, 1).flatten())] for logits in (mine, theirs)
    )
    certify_row(
        "gpt",
        **differences(ours, first, second),
        source="torch.nn.TransformerEncoder, causal, pre-norm, tanh GELU, between learned embeddings and their matrix",
    )


def test_fused_attention_is_the_written_out_equation() -> None:
    attention = make().double().blocks[0].attention
    x = torch.randn(3, 8, 12, dtype=torch.float64)
    q, k, v = (
        project(x).unflatten(-1, (3, 4)).transpose(1, 2)
        for project in (attention.query, attention.key, attention.value)
    )
    mixed, _ = attend(q, k, v, torch.ones(8, 8, dtype=torch.bool).tril())
    torch.testing.assert_close(attention(x), attention.output(mixed.transpose(1, 2).flatten(2)))


def test_no_token_changes_the_logits_before_it() -> None:
    network = make().double()
    logits, _ = network(tokens())
    assert logits.shape == (3, 8, 11)
    for t in range(8):
        changed = tokens()
        changed[:, t] = (changed[:, t] + 1) % 11
        other, _ = network(changed)
        assert torch.equal(other[:, :t], logits[:, :t])
        assert not torch.allclose(other[:, t], logits[:, t])
    torch.testing.assert_close(network(tokens()[:, :5])[0], logits[:, :5])


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = GPT(num_tokens=500, context=100, layers=8, heads=4, d_model=128, bias=True)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            std = 0.02 / math.sqrt(16) if name.endswith(("output.weight", "contract.weight")) else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
            assert parameter.mean().item() == pytest.approx(0, abs=0.05 * std), name
        else:
            assert (parameter == float("norm" in name and name.endswith("weight"))).all(), name


def test_without_bias_there_is_none() -> None:
    assert not [name for name, _ in make().named_parameters() if name.endswith("bias")]


def test_dropout_acts_in_training_alone_and_in_attention_too() -> None:
    network = make(dropout=0.5)
    assert not torch.equal(network(tokens())[0], network(tokens())[0])
    network.eval()
    assert torch.equal(network(tokens())[0], network(tokens())[0])
    attention = network.blocks[0].attention
    seen: list[Tensor] = []
    attention.output.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    attention.train()
    x = torch.randn(3, 8, 12)
    attention(x)
    attention(x)
    assert not torch.equal(*seen)


def test_overfits_a_batch_with_a_gradient_for_every_parameter() -> None:
    network, text = make(bias=True), tokens()
    text[:, 0] = torch.arange(3)  # what follows a beginning must be told by it
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(200):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(text)[0][:, :-1].flatten(0, 1), text[:, 1:].flatten())
        loss.backward()
        if step == 0:
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name
        optimizer.step()
        if loss.item() < 0.02:
            return
    raise AssertionError(f"the loss is still {loss.item():.3f}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_tokens": 0}, "num_tokens=0: must be at least 1"),
        ({"context": 0}, "context=0: must be at least 1"),
        ({"layers": 0}, "layers=0: must be at least 1"),
        ({"heads": 0}, "heads=0: must be at least 1"),
        ({"d_model": 0}, "d_model=0: must be at least 1"),
        ({"d_model": 13}, "d_model=13: must be a multiple of heads=3"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        make(**options)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^tokens of 9 steps: must be at most context=8"):
        make()(torch.zeros(1, 9, dtype=torch.int64))
