"""Transformer: torch.nn's layers and stacks as twins, the counts, positions by hand, masks, and step by step."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn
from torch.func import functional_call

from zoo.models.transformer import DecoderLayer, EncoderLayer, MultiHeadAttention, Transformer, sinusoids

D, HEADS, HIDDEN = 12, 3, 20
LENGTHS = torch.tensor([7, 4, 1])
SIZES: dict[str, Any] = {"d_model": D, "heads": HEADS, "layers": 2, "feed_forward": HIDDEN, "max_length": 16}


def make(**options: Any) -> Transformer:
    torch.manual_seed(0)
    return Transformer(**{"num_source_tokens": 11, "num_target_tokens": 9, **SIZES, **options})


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, 9, (3, 7), generator=generator)
    return source, LENGTHS, torch.randint(1, 9, (3, 6), generator=generator)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


# Twins: torch's modules, called with our own parameters, so that both give gradients of the same tensors --------------


def disturbed(module: nn.Module) -> nn.Module:
    """In double precision, without dropout, and no vector at 0 or 1, where an exchange of two would not show."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.double().eval().parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def as_torch(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The parameters of one of our modules under torch's names."""
    found: dict[str, Tensor] = {}
    if isinstance(module, MultiHeadAttention):
        projections = [module.query, module.key, module.value]
        for part in ("weight", "bias"):
            found[f"{prefix}in_proj_{part}"] = torch.cat([getattr(projection, part) for projection in projections])
            found[f"{prefix}out_proj.{part}"] = getattr(module.output, part)
        return found
    own = {"attention": "self_attn.", "self_attention": "self_attn.", "cross_attention": "multihead_attn."}
    own |= {"feed_forward": "", **({"0": "linear1.", "2": "linear2."} if isinstance(module, nn.Sequential) else {})}
    for name, child in module.named_children():
        found |= as_torch(child, prefix + own.get(name, f"{name}."))
    return found | {f"{prefix}{name}": parameter for name, parameter in module.named_parameters(recurse=False)}


def compared(module: nn.Module, mine: Tensor, theirs: Tensor) -> dict[str, Any]:
    """What `differences` finds, with a random sum of the outputs as the loss."""
    first, second = ([output, (output * random(*output.shape)).sum()] for output in (mine, theirs))
    return differences(module, first, second)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


THERE = (torch.arange(7) < LENGTHS[:, None])[:, None, None]  # (B, 1, 1, S)
PADDING = ~THERE[:, 0, 0]
CAUSAL = torch.ones(6, 6, dtype=torch.bool).tril()


@pytest.mark.parametrize("pre_norm", [False, True])
def test_encoder_layer(certify_row: Callable[..., None], pre_norm: bool) -> None:
    ours = disturbed(EncoderLayer(D, HEADS, HIDDEN, 0.1, pre_norm, True))
    twin = nn.TransformerEncoderLayer(D, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=pre_norm).double()
    x = random(3, 7, D)
    mine, theirs = ours(x, THERE), functional_call(twin, as_torch(ours), (x,), {"src_key_padding_mask": PADDING})
    certify_row(
        f"transformer encoder layer, {'pre' if pre_norm else 'post'}-norm",
        **compared(ours, mine, theirs),
        source="torch.nn.TransformerEncoderLayer, with padding",
    )


@pytest.mark.parametrize("pre_norm", [False, True])
def test_decoder_layer(certify_row: Callable[..., None], pre_norm: bool) -> None:
    ours = disturbed(DecoderLayer(D, HEADS, HIDDEN, 0.1, pre_norm, True))
    twin = nn.TransformerDecoderLayer(D, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=pre_norm).double()
    x, memory = random(3, 6, D), random(3, 7, D)
    masks = {"tgt_mask": ~CAUSAL, "memory_key_padding_mask": PADDING}
    certify_row(
        f"transformer decoder layer, {'pre' if pre_norm else 'post'}-norm",
        **compared(
            ours,
            ours(x, ours.start(memory), CAUSAL, THERE)[0],
            functional_call(twin, as_torch(ours), (x, memory), masks),
        ),
        source="torch.nn.TransformerDecoderLayer, causal, with padding in the source",
    )


def test_attention(certify_row: Callable[..., None]) -> None:
    ours = disturbed(MultiHeadAttention(D, HEADS, True))
    twin = nn.MultiheadAttention(D, HEADS, batch_first=True).double()
    x, memory = random(3, 6, D), random(3, 7, D)
    mine, weights = ours(x, *ours.project(memory), THERE)
    theirs, mean = functional_call(twin, as_torch(ours), (x, memory, memory), {"key_padding_mask": PADDING})
    torch.testing.assert_close(weights.mean(1), mean, rtol=0, atol=1e-12)
    certify_row("transformer attention", **compared(ours, mine, theirs), source="torch.nn.MultiheadAttention, padded")


@pytest.mark.parametrize("pre_norm", [False, True])
def test_whole_stacks(certify_row: Callable[..., None], pre_norm: bool) -> None:
    """The paper's post-norm stacks end with a layer; PyTorch's always with one norm more."""
    ours = disturbed(make(pre_norm=pre_norm))
    options = {"dropout": 0.0, "batch_first": True, "norm_first": pre_norm}
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(D, HEADS, HIDDEN, **options),
        2,
        nn.LayerNorm(D) if pre_norm else None,
        enable_nested_tensor=False,
    )
    twin = nn.Transformer(D, HEADS, 2, 2, HIDDEN, custom_encoder=encoder, **options).double()
    parameters = as_torch(ours.encoder, "encoder.layers.") | as_torch(ours.decoder, "decoder.layers.")
    if pre_norm:
        parameters |= as_torch(ours.encoder_norm, "encoder.norm.") | as_torch(ours.decoder_norm, "decoder.norm.")
    else:
        twin.decoder.norm = None
    source, lengths, target = pairs()
    positions = sinusoids(16, D).double()
    arguments = (
        F.embedding(source, ours.source_embedding.weight) * math.sqrt(D) + positions[:7],
        F.embedding(target, ours.target_embedding.weight) * math.sqrt(D) + positions[:6],
    )
    masks = {"tgt_mask": ~CAUSAL, "src_key_padding_mask": PADDING, "memory_key_padding_mask": PADDING}
    assert parameters.keys() == twin.state_dict().keys()
    certify_row(
        f"transformer, {'pre' if pre_norm else 'post'}-norm",
        **compared(
            ours,
            ours(source, lengths, target),
            functional_call(twin, parameters, arguments, masks) @ ours.output.weight.T,
        ),
        source="torch.nn.Transformer between embeddings × √D with sinusoids and an output matrix"
        + ("" if pre_norm else ", without its two last norms"),
    )


# The paper ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "bias", "parameters"),
    [
        ({}, True, 63_082_496),
        ({}, False, 63_045_632),
        ({"d_model": 1024, "heads": 16, "feed_forward": 4096}, True, 214_245_376),
        ({"d_model": 1024, "heads": 16, "feed_forward": 4096}, False, 214_171_648),
    ],
)
def test_parameters_with_one_matrix_of_37000_tokens(options: dict, bias: bool, parameters: int) -> None:
    with torch.device("meta"):
        network = Transformer(
            num_source_tokens=37_000, num_target_tokens=37_000, share_embeddings=True, attention_bias=bias, **options
        )
    assert count(network) == parameters


def test_parameters_of_the_stacks_are_those_of_torch() -> None:
    with torch.device("meta"):
        ours, twin = (
            Transformer(num_source_tokens=5, num_target_tokens=5, pre_norm=True),
            nn.Transformer(batch_first=True),
        )
    stacks = count(ours.encoder, ours.encoder_norm, ours.decoder, ours.decoder_norm)
    assert stacks == count(twin) == 44_140_544


def test_shared_embeddings_are_one_matrix_and_others_are_three() -> None:
    shared, own = make(share_embeddings=True, num_source_tokens=9), make()
    assert shared.source_embedding.weight is shared.target_embedding.weight is shared.output.weight
    assert count(own) - count(shared) == 11 * D + 9 * D


def test_positions_are_the_formula_with_sines_and_cosines_in_turn() -> None:
    table = sinusoids(30, 6)
    for t in (0, 1, 17):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = Transformer(num_source_tokens=1000, num_target_tokens=1000, d_model=64, layers=1, share_embeddings=True)
    assert network.output.weight.std().item() == pytest.approx(1 / 8, rel=0.02)
    limit = math.sqrt(6 / (64 + 64))
    for projection in (network.encoder[0].attention.query, network.decoder[0].cross_attention.value):
        assert projection.weight.abs().max().item() == pytest.approx(limit, rel=0.01)
        assert projection.bias.abs().max() == 0
    limit = math.sqrt(6 / (64 + 2048))
    assert network.decoder[0].feed_forward[0].weight.abs().max().item() == pytest.approx(limit, rel=0.01)


def test_dropout_is_on_the_embedded_input_and_each_branch() -> None:
    network = make(dropout=0.3)
    places = {name: module.p for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert places == dict.fromkeys(
        ["dropout", *(f"{side}.{i}.dropout" for side in ("encoder", "decoder") for i in range(2))], 0.3
    )
    calls = []
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda *_: calls.append(1))
    network(*pairs())
    assert len(calls) == 2 + 2 * 2 + 2 * 3  # both inputs; two branches in the encoder's layers, three in the decoder's


# The contract -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pre_norm", [False, True])
def test_steps_give_what_the_whole_gives(pre_norm: bool) -> None:
    network = disturbed(make(pre_norm=pre_norm))
    source, lengths, target = pairs()
    expected, state = network(source, lengths, target), network.start(source, lengths)
    assert expected.shape == (3, 6, 9)
    for t in range(6):
        assert all(len(part) == 3 for part in state), "the batch is the first axis of every part"
        logits, state = network.step(target[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], rtol=0, atol=1e-12)
    order = torch.tensor([2, 0, 0])  # rows can be taken along, as a beam does
    logits, _ = network.step(target[order, 0], tuple(part.index_select(0, order) for part in state))
    expected, _ = network.step(target[:, 0], state)
    assert not torch.allclose(logits, expected)
    torch.testing.assert_close(logits[1:2], network.step(target[:1, 0], tuple(p[:1] for p in state))[0])


def test_later_targets_and_padding_of_the_source_do_not_matter() -> None:
    network = disturbed(make())
    source, lengths, target = pairs()
    logits = network(source, lengths, target)
    for t in range(6):
        changed = target.clone()
        changed[:, t] = 9 - changed[:, t]
        other = network(source, lengths, changed)
        assert torch.equal(other[:, :t], logits[:, :t])
        assert not torch.allclose(other[:, t], logits[:, t])
    padded = source.masked_fill(torch.arange(7) >= lengths[:, None], 3)
    torch.testing.assert_close(network(F.pad(padded, (0, 4), value=2), lengths, target), logits, rtol=0, atol=1e-12)


def test_attention_is_a_distribution_over_the_steps_there_are() -> None:
    source, lengths, target = pairs()
    network = disturbed(make())
    weights = network.attention(source, lengths, target)
    assert weights.shape == (3, 6, 7)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 6, dtype=torch.float64))
    for row, length in enumerate(lengths.tolist()):
        assert (weights[row, :, :length] > 0).all()
        assert (weights[row, :, length:] == 0).all()
    last: list[Tensor] = []
    network.decoder[1].cross_attention.register_forward_hook(lambda module, args, output: last.append(output[1]))
    network.attention(source, lengths, target)
    assert torch.equal(weights, last[0].mean(1))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_overfits_a_batch_with_a_gradient_for_every_parameter(pre_norm: bool) -> None:
    network = make(pre_norm=pre_norm, dropout=0.0)
    source, lengths, target = pairs()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(source, lengths, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
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
        ({"num_source_tokens": 0}, "num_source_tokens=0: must be at least 1"),
        ({"num_target_tokens": 0}, "num_target_tokens=0: must be at least 1"),
        ({"heads": 0}, "heads=0: must be at least 1"),
        ({"layers": 0}, "layers=0: must be at least 1"),
        ({"feed_forward": 0}, "feed_forward=0: must be at least 1"),
        ({"max_length": 0}, "max_length=0: must be at least 1"),
        ({"d_model": 13, "heads": 1}, "d_model=13: must be even and a multiple of heads=1"),
        ({"d_model": 14}, "d_model=14: must be even and a multiple of heads=3"),
        ({"d_model": 0}, "d_model=0: must be even"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        (
            {"share_embeddings": True},
            "share_embeddings=True: must be false for vocabularies of different sizes, 11 and 9",
        ),
    ],
)
def test_wrong_arguments_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        make(**options)


def test_sequences_that_are_too_long_are_refused() -> None:
    network, (source, lengths, target) = make(max_length=6), pairs()
    with pytest.raises(ValueError, match=r"^source of 7 tokens: must be at most max_length=6"):
        network(source, lengths, target)
    state = network.start(source[:, :6], lengths.clamp(max=6))
    for t in range(6):
        _, state = network.step(target[:, t], state)
    with pytest.raises(ValueError, match=r"^target of 7 tokens: must be at most max_length=6"):
        network.step(target[:, 0], state)
