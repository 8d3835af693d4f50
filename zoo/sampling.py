"""`zoo sample`: let a trained network write or draw. A language model goes on with a prompt, a seq2seq network answers
one, a VAE, a GAN or a diffusion network makes pictures, an autoencoder gives pictures back.

zoo sample ckpt_path=runs/lstm-moby_dick/2026-01-31_12-00-00 prompt="Call me" temperature=0.5
zoo sample ckpt_path=runs/seq2seq-dates/2026-01-31_12-00-00 prompt="3 May 2021" beam=4
zoo sample ckpt_path=runs/diffusion-digits/2026-01-31_12-00-00 class=3 steps=20
zoo sample ckpt_path=runs/vae-digits/2026-01-31_12-00-00 what=traversal

Keys for text: prompt (a language model begins a line without one), length (400 tokens; an answer may end before), out
(a file to write to, instead of the screen), trust (false). For language models temperature (0.8; low is safe, high is
wild), top_k and top_p (null; draw from the k most likely tokens, from the most likely that hold the share p), n (1, how
many texts), seed (0; the same seed writes the same); `<unk>` is never written. For seq2seq networks beam (1, greedy;
how many answers are followed at a time).

Keys for pictures: what, which is one of
- samples (VAE, GAN, diffusion; n=64), new pictures; a conditional network's are of the classes in turn;
- reconstructions (autoencoder, VAE; n=32), test pictures over what the network makes of them, and of a denoising one
  the corrupted ones between;
- traversal (VAE; n=10), each of the n latent dimensions that carry most, from -3 to 3, from one test picture;
- interpolation (VAE, GAN, diffusion by DDIM; n=8), rows from one picture to another; a VAE's are test pictures;
- film (diffusion; n=3), a test picture that turns to noise, then for each of n samples how it comes of noise.
Further n, seed (0; what is drawn, and which test pictures are shown), class (a name or number, or several with commas:
in turn); of diffusion networks steps, eta, guidance, sampler (ddim or ddpm), else as in training; out (a folder, or a
name without ending; else the folder samples of the run); trust. Written are a grid (.png) and arrays (.npz): pictures
as uint8 (…, height, width, channels), classes, seed, settings.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.build import task_class
from zoo.checkpoint import find_checkpoint, read_checkpoint
from zoo.data.text import UNKNOWN, encode, tokenize
from zoo.decoding import END, beam_search, check_sampling, generate
from zoo.errors import ZooError
from zoo.evaluation import load_weights
from zoo.keys import MOST, Key, defaults, read, real, truth, whole
from zoo.making import MAKES, make
from zoo.network import construct
from zoo.randomness import key
from zoo.report import write_whole
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.seq2seq import Seq2Seq

KEYS = {
    "ckpt_path": Key(),
    "prompt": Key(default=""),
    "length": Key(whole(1, MOST), 400),
    "temperature": Key(real, 0.8),
    "top_k": Key(whole(1)),
    "top_p": Key(real),
    "n": Key(whole(1, MOST), 1),
    "seed": Key(whole(0), 0),
    "beam": Key(whole(1, 1000), 1),
    "out": Key(),
    "trust": Key(truth, False),
    "what": Key(),
    "class": Key(),
    "steps": Key(whole(2)),
    "eta": Key(real),
    "guidance": Key(real),
    "sampler": Key(),
}
ONLY: dict[type, tuple[str, ...]] = {
    LanguageModel: ("temperature", "top_k", "top_p", "n", "seed", "prompt", "length"),
    Seq2Seq: ("beam", "prompt", "length"),
    **{task: ("what", *dict.fromkeys(key for keys in makes.values() for key in keys)) for task, makes in MAKES.items()},
}


def main(args: Sequence[str]) -> int:
    """Write texts to the screen or to a file, or pictures to files."""
    own = parse(args)
    path, checkpoint, task = described(own)
    kind = next(kind for kind in ONLY if issubclass(task, kind))
    for name in own:
        if name not in ONLY[kind] and any(name in names for names in ONLY.values()):
            takes = ", ".join(ONLY[kind])
            raise ZooError(f"{name}={own[name]}: this network is of task {task.__name__}, which takes {takes}.")
    if kind in MAKES:
        make(own, checkpoint, path, kind)
        return 0
    network, preprocessing = trained(path, checkpoint, task)
    options = {**defaults(KEYS), **own}
    if issubclass(task, LanguageModel):
        texts = continuations(network, preprocessing, options)
    else:
        texts = [answer(network, preprocessing, options)]
    written = texts[0] if len(texts) == 1 else "\n\n".join(f"--- {i} ---\n{text}" for i, text in enumerate(texts, 1))
    if own.get("out") is None:
        print(written)
        return 0
    path = Path(own["out"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, f"{written}\n")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ZooError(f"out={path}: is a folder, or below a file; name a file to write.") from None
    print(f"wrote {path}")
    return 0


def parse(args: Sequence[str]) -> dict[str, Any]:
    """The keys that were given, with their values."""
    own = read(args, KEYS)
    chosen = {**defaults(KEYS), **own}
    try:
        check_sampling(*(chosen[name] for name in ("temperature", "top_k", "top_p")))
    except ValueError as error:
        raise ZooError(str(error)) from None
    if "ckpt_path" not in own:
        raise ZooError("Which network? zoo sample ckpt_path=<run folder or checkpoint file> prompt=…")
    return own


def described(own: dict[str, Any]) -> tuple[Path, dict[str, Any], type]:
    """The checkpoint that is meant: its path, what it holds, and its task."""
    path = find_checkpoint(Path(own["ckpt_path"]))
    checkpoint = read_checkpoint(path)
    task = task_class(checkpoint["zoo"]["config"], str(path), trust=own.get("trust", False))
    if not issubclass(task, tuple(ONLY)):
        raise ZooError(
            f"{path} makes nothing: its task is {task.__name__}. zoo sample takes language models, such as model=lstm, "
            "networks from sequence to sequence, such as model=seq2seq, and those that make pictures, as model=vae."
        )
    return path, checkpoint, task


def trained(path: Path, checkpoint: dict[str, Any], task: type) -> tuple[nn.Module, dict[str, Any]]:
    """The evaluated network of a checkpoint, and what turns text into tokens."""
    described = checkpoint["zoo"]
    vocabulary = "vocabulary" if issubclass(task, LanguageModel) else "source_vocabulary"
    if not described["preprocessing"].get(vocabulary):
        raise ZooError(f"{path} holds no {vocabulary}: it was trained on data of numbered tokens without names.")
    network = construct(described["config"])
    load_weights(network, checkpoint["state_dict"], path)
    return network.eval(), described["preprocessing"]


def continuations(network: nn.Module, preprocessing: dict[str, Any], options: dict[str, Any]) -> list[str]:
    """`n` texts that begin with the prompt; each is a function of the seed and its number."""
    vocabulary, level = preprocessing["vocabulary"], preprocessing.get("level") or "characters"
    prompt = options["prompt"].lower() if preprocessing.get("lower") else options["prompt"]
    refuse_unknown(tokenize(prompt, level), vocabulary)
    before = prompt or ("\n" if "\n" in vocabulary else vocabulary[-1])
    chosen = {name: options[name] for name in ("temperature", "top_k", "top_p")}
    texts = []
    for number in range(options["n"]):
        generator = torch.Generator().manual_seed(key(options["seed"], "sample", number))
        tokens = generate(
            network,
            encode(before, vocabulary, level)[None],
            options["length"],
            generator=generator,
            never=unwritten(vocabulary),
            **chosen,
        )
        texts.append(prompt + "".join(vocabulary[token] for token in tokens[0].tolist()))
    return texts


def unwritten(vocabulary: Sequence[str]) -> list[int]:
    """The token that stands for all unknown ones: no text has it."""
    return [vocabulary.index(UNKNOWN)] if UNKNOWN in vocabulary else []


def answer(network: nn.Module, preprocessing: dict[str, Any], options: dict[str, Any]) -> str:
    """The target sequence for the prompt, by beam search; a beam of 1 is greedy."""
    source, target = preprocessing["source_vocabulary"], preprocessing["target_vocabulary"]
    tokens = split(options["prompt"], source)
    if not tokens:
        raise ZooError("prompt is needed: the sequence to answer, as in prompt=…")
    refuse_unknown(tokens, source)
    numbers = torch.tensor([[source.index(token) for token in tokens]])
    length = min(options["length"], getattr(network, "max_length", options["length"]))
    try:
        found, _ = beam_search(
            network,  # type: ignore[arg-type]
            numbers,
            torch.tensor([len(tokens)]),
            max_length=length,
            beam=options["beam"],
        )
    except ValueError as error:  # a prompt longer than the network reads
        raise ZooError(f"prompt: {error}") from None
    said = [token for token in found[0].tolist() if token > END]
    return ("" if by_character(target) else " ").join(target[token] for token in said)


def by_character(vocabulary: Sequence[str]) -> bool:
    """Whether all tokens but the four special ones are single characters."""
    return all(len(token) == 1 for token in vocabulary[4:])


def split(text: str, vocabulary: Sequence[str]) -> Sequence[str]:
    return text if by_character(vocabulary) else text.split()


def refuse_unknown(tokens: Sequence[str], vocabulary: Sequence[str]) -> None:
    unknown = [repr(token) for token in dict.fromkeys(tokens) if token not in vocabulary]
    if unknown:
        small = " in small letters" if all(token.lower() in vocabulary for token in tokens) else " without"
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise ZooError(f"prompt: the network was not taught {', '.join(unknown[:10])}{more}; write{small}.")
