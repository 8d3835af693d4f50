"""`zoo sample`: what it writes is what the network says, the same for the same seed; a mistake gets a sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zoo.cli import main as zoo
from zoo.decoding import beam_search, generate, greedy
from zoo.evaluation import load
from zoo.randomness import key
from zoo.sampling import main

LETTERS = ["<unk>", "\n", " ", *"abcdehlmnor"]
WORDS = ["<unk>", " ", ".", "call", "me", "not"]
SPECIAL = ["<pad>", "<start>", "<end>", "<unk>"]

READER = {"_target_": "zoo.models.recurrent.RecurrentLanguageModel", "embedding": 4, "hidden": 8}
TRANSFORMER = {"_target_": "zoo.models.transformer.Transformer", "d_model": 8, "heads": 2, "layers": 1}
TRANSFORMER |= {"feed_forward": 8, "max_length": 12, "num_target_tokens": 9}
TASKS = {
    "text": ("zoo.tasks.language_model.LanguageModel", {**READER, "num_tokens": len(LETTERS)}),
    "words": ("zoo.tasks.language_model.LanguageModel", {**READER, "num_tokens": len(WORDS)}),
    "pairs": ("zoo.tasks.seq2seq.Seq2Seq", {**TRANSFORMER, "num_source_tokens": 8}),
    "notes": ("zoo.tasks.seq2seq.Seq2Seq", {**TRANSFORMER, "num_source_tokens": 6}),
    "images": (
        "zoo.tasks.classification.Classification",
        {"_target_": "zoo.models.linear.SoftmaxRegression", "in_features": 4, "num_classes": 2},
    ),
}
PREPARED = {
    "text": {"vocabulary": LETTERS, "level": "characters", "lower": True},
    "words": {"vocabulary": WORDS, "level": "words"},
    "pairs": {"source_vocabulary": [*SPECIAL, *"abcd"], "target_vocabulary": [*SPECIAL, *"uvwxy"]},
    "notes": {"source_vocabulary": [*SPECIAL, "do", "re"], "target_vocabulary": [*SPECIAL, "one", *"wxyz"]},
    "images": {},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Any:
    """`checkpoint(kind)` writes one of an untrained network and returns its path."""

    def write(kind: str, **changes: Any) -> Path:
        task, model = TASKS[kind]
        config: dict[str, Any] = {"seed": 0, "data": {}, "task": {"_target_": task}, "model": model, "trainer": {}}
        described = {"format_version": 1, "config": config, "choices": {}, "class_names": [], "logs": {}}
        path = tmp_path / f"{kind}.ckpt"
        described["preprocessing"] = PREPARED[kind]
        described.update(changes)
        network = network_of(model)
        torch.save({"zoo": described, "state_dict": {f"network.{k}": v for k, v in network.state_dict().items()}}, path)
        return path

    return write


def network_of(model: dict[str, Any]) -> nn.Module:
    from zoo.build import build

    torch.manual_seed(22)  # one with which the transformers say something, and another thing with a beam
    network = build(model, "model")()
    for parameter in network.parameters():  # opinionated, so that a temperature shows
        nn.init.normal_(parameter)
    return network


def sampled(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 0
    return capsys.readouterr().out.removesuffix("\n")


# Language models ------------------------------------------------------------------------------------------------------


def test_a_text_goes_on_from_the_prompt_as_generate_draws_it(checkpoint, capsys) -> None:
    path = checkpoint("text")
    words = ["temperature=0.7", "top_k=5", "top_p=0.9", "length=30", "seed=3"]
    said = sampled(capsys, f"ckpt_path={path}", "prompt=Call me", *words)
    network = load(path)[0]
    prompt = torch.tensor([[LETTERS.index(letter) for letter in "call me"]])
    generator = torch.Generator().manual_seed(key(3, "sample", 0))
    tokens = generate(network, prompt, 30, generator=generator, temperature=0.7, top_k=5, top_p=0.9, never=[0])
    assert said == "call me" + "".join(LETTERS[token] for token in tokens[0])
    assert sampled(capsys, f"ckpt_path={path}", "prompt=Call me", *words) == said
    assert sampled(capsys, f"ckpt_path={path}", "prompt=Call me", *words[:-1], "seed=4") != said


def test_several_texts_begin_with_the_one(checkpoint, capsys) -> None:
    path = checkpoint("text")
    one = sampled(capsys, f"ckpt_path={path}", "prompt=a", "length=40")
    three = sampled(capsys, f"ckpt_path={path}", "prompt=a", "length=40", "n=3")
    first, second, third = (part.partition("\n")[2] for part in ("\n\n" + three).split("\n\n--- ")[1:])
    assert three.startswith("--- 1 ---\n")
    assert first == one
    assert len({first, second, third}) == 3


def test_without_a_prompt_a_line_begins(checkpoint, capsys) -> None:
    path = checkpoint("text")
    network = load(path)[0]
    generator = torch.Generator().manual_seed(key(0, "sample", 0))
    tokens = generate(
        network, torch.tensor([[LETTERS.index("\n")]]), 10, generator=generator, temperature=0.8, never=[0]
    )
    for words in (["prompt="], []):
        said = sampled(capsys, f"ckpt_path={path}", "length=10", *words)
        assert said == "".join(LETTERS[token] for token in tokens[0])


def test_a_run_folder_is_all_it_takes(small_run, tmp_path, capsys) -> None:
    (tmp_path / "text.txt").write_text("Call me ahab.\n" * 60)
    words = ["data=text_file", f"data.path={tmp_path / 'text.txt'}", "data.lower=true", "data.batch_size=4"]
    words += ["model=lstm", "model.hidden=8", "data.sequence_length=16", "trainer.max_epochs=1"]
    folder, scores = small_run(*words)
    assert "test/bits_per_character" in scores
    capsys.readouterr()
    said = sampled(capsys, f"ckpt_path={folder}", "prompt=Me", "length=50")
    assert said.startswith("me")
    assert len(said) == 52  # without a single <unk>


def test_words(checkpoint, capsys) -> None:
    said = sampled(capsys, f"ckpt_path={checkpoint('words')}", "prompt=call me.", "length=5")
    assert said.startswith("call me.")
    rest = said.removeprefix("call me.")
    for token in sorted(WORDS, key=len, reverse=True):
        rest = rest.replace(token, "")
    assert rest == ""


def test_a_file_instead_of_the_screen(checkpoint, capsys, tmp_path) -> None:
    path = checkpoint("text")
    said = sampled(capsys, f"ckpt_path={path}", "prompt=a", "length=9")
    out = tmp_path / "new" / "text.txt"
    assert sampled(capsys, f"ckpt_path={path}", "prompt=a", "length=9", f"out={out}") == f"wrote {out}"
    assert out.read_text(encoding="utf-8") == said + "\n"


# Networks from sequence to sequence -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "prompt", "between"), [("pairs", "abba", ""), ("notes", "do  re do", " ")])
def test_an_answer_is_decoded_greedily_or_with_a_beam(kind: str, prompt: str, between: str, checkpoint, capsys) -> None:
    path = checkpoint(kind)
    network, prepared, _ = load(path)
    source, target = prepared["source_vocabulary"], prepared["target_vocabulary"]
    numbers = torch.tensor([[source.index(token) for token in (prompt.split() if between else prompt)]])
    length = torch.tensor([numbers.shape[1]])

    def written(tokens: torch.Tensor) -> str:
        return between.join(target[token] for token in tokens[0].tolist() if token > 2)

    best = written(greedy(network, numbers, length, max_length=12))  # as long as the network can
    assert best
    assert sampled(capsys, f"ckpt_path={path}", f"prompt={prompt}") == best
    short = written(greedy(network, numbers, length, max_length=3))
    assert sampled(capsys, f"ckpt_path={path}", f"prompt={prompt}", "length=3") == short
    beam = written(beam_search(network, numbers, length, max_length=12, beam=3)[0])
    assert sampled(capsys, f"ckpt_path={path}", f"prompt={prompt}", "beam=3") == beam


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words", "sentence"),
    [
        ("text", ["prompt=call 9 é 9"], "prompt: the network was not taught '9', 'é'; write without."),
        ("words", ["prompt=call him"], "not taught 'him'"),
        ("words", ["prompt=Call me"], "not taught 'Call'; write in small letters."),
        ("pairs", ["prompt=abe"], "not taught 'e'"),
        ("notes", ["prompt=do mi"], "not taught 'mi'"),
        ("pairs", [], "prompt is needed"),
        ("pairs", ["prompt=" + "a" * 13], "prompt: source of 13 tokens: must be at most max_length=12"),
        ("pairs", ["prompt=a", "temperature=1"], "temperature=1.0: this network is of task Seq2Seq, which takes beam"),
        ("text", ["beam=2"], "beam=2: this network is of task LanguageModel, which takes temperature, top_k"),
        ("images", ["prompt=a"], "makes nothing: its task is Classification. zoo sample takes language models"),
        ("text", ["lenght=3"], "lenght=3: there is no key lenght. Did you mean length?"),
        ("text", ["zzz=3"], "zzz=3: there is no key zzz. There is ckpt_path, prompt"),
        ("text", ["what=samples"], "what=samples: this network is of task LanguageModel, which takes temperature"),
        ("text", ["length"], "length: write length=value"),
        ("text", ["seed="], "seed=: write seed=value"),
        ("text", ["length=0"], "length=0: must be a whole number, at least 1"),
        ("text", ["n=1.5"], "n=1.5: must be a whole number, at least 1"),
        ("text", ["seed=-1"], "seed=-1: must be a whole number, at least 0"),
        ("text", ["length=null"], "length=null: must be a whole number"),
        ("text", ["temperature=hot"], "temperature=hot: must be a number"),
        ("text", ["temperature=0"], "temperature=0.0: must be above 0; top_k=1 always takes the most likely"),
        ("text", ["temperature=nan"], "temperature=nan: must be above 0"),
        ("text", ["top_p=1.5"], "top_p=1.5: must be above 0 and at most 1"),
        ("text", ["top_k=0"], "top_k=0: must be a whole number, at least 1"),
        ("text", ["trust=yes"], "trust=yes: must be true or false"),
        ("pairs", ["prompt=a", "beam=100000"], "beam=100000: must be at most 1000."),
        ("text", ["length=1000001"], "length=1000001: must be at most 1000000."),
    ],
)
def test_a_mistake_gets_a_sentence(kind: str, words: list[str], sentence: str, checkpoint, capsys) -> None:
    assert zoo(["sample", f"ckpt_path={checkpoint(kind)}", *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_files_that_cannot_be_read_or_written_get_a_sentence(checkpoint, capsys, tmp_path) -> None:
    path = checkpoint("text")
    for words, sentence in (
        ([], "Which network? zoo sample ckpt_path="),
        ([str(path)], f"Did you mean ckpt_path={path}?"),
        (["ckpt_path=nowhere.ckpt"], "There is no checkpoint nowhere.ckpt"),
        ([f"ckpt_path={path}", "length=2", f"out={tmp_path}"], "is a folder, or below a file"),
        ([f"ckpt_path={path}", "length=2", f"out={path}/a.txt"], "is a folder, or below a file"),
    ):
        assert zoo(["sample", *words]) == 2
        assert sentence in capsys.readouterr().err
    checkpoint("text", preprocessing={})
    assert zoo(["sample", f"ckpt_path={path}"]) == 2
    assert "holds no vocabulary" in capsys.readouterr().err


def test_null_means_no_limit(checkpoint, capsys) -> None:
    path = checkpoint("text")
    said = sampled(capsys, f"ckpt_path={path}", "length=20")
    assert sampled(capsys, f"ckpt_path={path}", "length=20", "top_k=null", "top_p=null", "out=null") == said


def test_foreign_code_is_run_only_when_trusted(checkpoint, capsys) -> None:
    path = checkpoint("text")
    content = torch.load(path, weights_only=True)
    content["zoo"]["config"]["model"]["_target_"] = "subprocess.Popen"
    torch.save(content, path)
    assert zoo(["sample", f"ckpt_path={path}"]) == 2
    assert "nothing was run" in capsys.readouterr().err
    content["zoo"]["config"]["task"]["_target_"] = "nowhere.Task"
    torch.save(content, path)
    assert zoo(["sample", f"ckpt_path={path}", "trust=true"]) == 2
    assert "task: " in capsys.readouterr().err


def test_help(capsys) -> None:
    assert zoo(["sample", "--help"]) == 0
    said = capsys.readouterr().out
    for name in (
        "ckpt_path",
        "prompt",
        "length",
        "temperature",
        "top_k",
        "top_p",
        "n (1",
        "seed",
        "beam",
        "out",
        "trust",
    ):
        assert name in said
