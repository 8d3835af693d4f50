"""The right name for a wrong one: what people guess, then what is spelt alike."""

from collections.abc import Sequence
from difflib import SequenceMatcher

# What it is called here, and what it is called elsewhere.
_ALSO = {
    "lr": "learning_rate learningrate rate base_lr max_lr init_lr",
    "max_epochs": "epochs epoch num_epochs n_epochs nepochs epochs_max",
    "max_steps": "steps num_steps n_steps iterations max_iter max_iters max_iterations",
    "batch_size": "bs batch batchsize train_batch_size batch_size_train",
    "eval_batch_size": "val_batch_size test_batch_size valid_batch_size",
    "weight_decay": "wd decay l2_reg weightdecay",
    "num_workers": "workers n_workers nworkers num_worker",
    "devices": "gpus num_gpus n_gpus gpu num_devices",
    "accelerator": "device",
    "num_classes": "n_classes nclasses classes nb_classes num_labels",
    "in_channels": "input_channels in_chans n_channels",
    "channels": "num_channels",
    "image_size": "img_size imgsize size resolution",
    "label_smoothing": "smoothing",
    "loss": "criterion loss_fn loss_function",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
    "ema_decay": "ema",
    "gradient_clip_val": "grad_clip clip clip_grad clip_grad_norm gradient_clip max_grad_norm gradient_clipping",
    "accumulate_grad_batches": "accumulate accumulation grad_accum gradient_accumulation_steps accum_steps",
    "precision": "amp fp16 bf16 mixed_precision",
    "warmup_epochs": "warmup",
    "seed": "random_seed rng_seed manual_seed random_state",
    "run_dir": "output_dir out_dir log_dir save_dir output",
    "ckpt_path": "ckpt checkpoint_path model_path weights",
    "resume": "resume_from continue",
    "data": "dataset datamodule datasets",
    "model": "net network arch architecture backbone",
    "optimizer": "optim opt optimiser",
    "scheduler": "sched schedule lr_scheduler lr_schedule",
    "init": "initialization initialisation initializer weight_init",
    "experiment": "exp recipe",
    "logger": "log loggers",
    "digits": "mnist5k mnist_5k",
    "lenet5": "lenet le_net",
}
ALIASES = {alias: name for name, others in _ALSO.items() for alias in others.split()}

_FAR = 7.0  # less than 60 % alike


def _one_edit(a: str, b: str) -> bool:
    """Whether one insertion, deletion, substitution or swap of neighbours turns a into b."""
    while a and b and a[0] == b[0]:
        a, b = a[1:], b[1:]
    while a and b and a[-1] == b[-1]:
        a, b = a[:-1], b[:-1]
    return (len(a) <= 1 and len(b) <= 1) or (len(a) == 2 and a == b[::-1])


def _distance(a: str, b: str) -> float:
    """0: the same; 1: one edit; 2 to 3: one begins the other; then by likeness."""
    if a == b:
        return 0
    if _one_edit(a, b):
        return 1
    likeness = SequenceMatcher(None, a, b).ratio()
    if len(a) > 2 and len(b) > 2 and (a.startswith(b) or b.startswith(a)):
        return 3 - likeness
    return 3 + 10 * (1 - likeness)


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def nearest(given: str, candidates: Sequence[str]) -> str | None:
    """The candidate a person most likely meant, if any is near."""
    given = _plain(given)
    if ALIASES.get(given) in candidates:
        return ALIASES[given]
    distance, found = min(((_distance(given, _plain(name)), name) for name in candidates), default=(_FAR, None))
    return found if distance < _FAR else None


def nearest_key(given: str, candidates: Sequence[str]) -> str | None:
    """The dotted key a person most likely meant: an alias, the same key in another node, or one that is spelt alike."""
    given = _plain(given.lstrip("+~").replace("/", "."))
    meant = ".".join(ALIASES.get(part, part) for part in given.split("."))
    node, _, last = given.rpartition(".")

    def distance(candidate: str) -> float:
        its_node, _, its_last = candidate.rpartition(".")
        if given.startswith(f"{candidate}."):  # the node itself is no answer
            return _FAR
        if candidate == meant:
            return 0.5
        if its_last == meant.rpartition(".")[2]:  # the same key, without its node or in another
            return min(_distance(given, candidate), 1.2 if node else 0.6)
        if node == its_node:
            return _distance(last, its_last)
        return min(_distance(given, candidate), _distance(last, its_last) + (0.7 if not node else 2.0))

    found = min(candidates, key=distance, default=None)
    return found if found is not None and distance(found) < _FAR else None
