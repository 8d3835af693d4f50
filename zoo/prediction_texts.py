"""What text models say of a person's text: a language model how likely each line is, seq2seq the answer to each line.

Shapes: B lines, T tokens, K tokens of the vocabulary.
"""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data import pairs
from zoo.data.own import listed, note
from zoo.data.text import encode, tokenize
from zoo.decoding import END, beam_search
from zoo.errors import ZooError
from zoo.prediction_inputs import Described, chunks, read_lines, read_text, told
from zoo.sampling import by_character, split

LONGEST = 400  # tokens of an answer


@torch.no_grad()
def surprises(task: Any, described: Described, tokens: Tensor) -> Tensor:
    """The bits (T − 1,) that each token after the first costs, read as one stream, as an evaluation reads its streams.

    Windows are those of training; a recurrent network carries its state from one to the next.
    """
    window, state, found = described["preprocessing"]["sequence_length"], None, []
    for part in told(chunks(range(len(tokens) - 1), window)):
        piece = tokens[part[0] : part[-1] + 2].to(task.device)
        logits, state = task.network(piece[None, :-1], state if task.carries else None)  # (1, T, K)
        found.append(F.cross_entropy(logits[0].float(), piece[1:], reduction="none").cpu())
    return torch.cat(found).double() / math.log(2)


def score_text(
    task: Any, described: Described, source: Path, *, encoding: str | None
) -> tuple[list[str], list[list[str]], list[str]]:
    """Bits of each line of a text, and of the whole: head and rows of a table, and what to tell.

    A line's bits are those of its tokens, its line end among them, each after all of the text before it.
    """
    facts = described["preprocessing"]
    content = read_text(source, described, encoding)
    level = facts.get("level") or "characters"
    words = tokenize(content, level)
    tokens = encode(content, facts["vocabulary"], level)
    if len(tokens) < 2:
        raise ZooError(f"input={source}: holds one {level[:-1]}; nothing comes before it, so there is none to predict.")
    bits = surprises(task, described, tokens)
    line = torch.tensor([word == "\n" for word in words]).cumsum(0)[:-1]  # of each token after the first
    lines = content.removesuffix("\n").split("\n")
    count = torch.zeros(len(lines), dtype=torch.float64).index_add_(0, line, torch.ones_like(bits))
    total = torch.zeros(len(lines), dtype=torch.float64).index_add_(0, line, bits)
    unit = "character" if level == "characters" else "token"
    head = ["line", f"{unit}s", "bits", f"bits_per_{unit}", "text"]
    rows = [
        [str(number), f"{n:.0f}", f"{b:.6g}", f"{b / n:.6g}", words_of_line]
        for number, (n, b, words_of_line) in enumerate(zip(count.tolist(), total.tolist(), lines, strict=True), 1)
        if n
    ]
    mean = bits.mean().item()
    said = [f"bits per {unit} {mean:.6g}, perplexity {2**mean:.6g}, over {len(bits):,} {unit}s after the first"]
    if unknown := int((tokens == 0).sum()):
        said.append(f"{unknown:,} of {len(tokens):,} {unit}s are unknown to the network and scored as <unk>")
    return head, rows, said


@torch.no_grad()
def answer_lines(
    task: Any, described: Described, source: Path, *, encoding: str | None, batch_size: int, beam: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """The answer to each line of a text file, "" where there is none, and the lines that could not be read."""
    facts, network = described["preprocessing"], task.network
    vocabulary, target = facts["source_vocabulary"], facts["target_vocabulary"]
    longest = getattr(network, "max_length", None)
    lines, skipped, asked = read_lines(source, described, encoding), [], []
    for number, line in enumerate(lines):
        words = split(line, vocabulary)
        unknown = [repr(word) for word in dict.fromkeys(words) if word not in vocabulary[len(pairs.SPECIAL) :]]
        if not words or unknown or (longest and len(words) > longest):
            why = "empty"
            if unknown:
                why = f"the network was not taught {listed(unknown)}"
            elif words:
                why = f"{len(words)} tokens, and the network reads {longest}"
            skipped.append((f"line {number + 1}", why))
        else:
            asked.append((number, words))
    answers, cut, length = [""] * len(lines), 0, min(LONGEST, longest or LONGEST)
    for part in told(chunks(asked, batch_size)):
        tokens, sizes = (t.to(task.device) for t in pairs.encode([words for _, words in part], vocabulary))
        found, _ = beam_search(network, tokens, sizes, max_length=length, beam=beam)
        cut += int((found != END).all(1).sum())
        for (number, _), row in zip(part, found.tolist(), strict=True):
            said = [target[token] for token in row if token > END]
            answers[number] = ("" if by_character(target) else " ").join(said)
    if cut:
        note(f"{cut} answers did not end within {length} tokens and were cut there.")
    return answers, skipped
