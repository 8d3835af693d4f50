"""TensorBoard's event files, read without TensorFlow: the clock, the last picture of each name, the last text of each.

An event file is a row of records, each its length (8 bytes), a checksum of it (4), an `Event` and a checksum (4). A
file that a killed run left ends in the middle of one; what stands before is read.
"""

import hashlib
import io
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from google.protobuf.message import DecodeError
from PIL import Image

WIDEST = 760  # pixels of a picture, of which 100 were an inch
QUALITY = 55  # WebP's, of 100
# which pictures tell most of a run, when not all find room
RANK = ("samples", "confusion", "worst", "mistakes", "attention", "forecast", "reconstructions", "classes", "kl")
LAST = ("filters", "input")


class Picture(NamedTuple):
    tag: str
    caption: str
    source: bytes | Path

    def rank(self) -> int:
        """Where it stands among the pictures of a run, the most telling first."""
        name = self.tag.rpartition("/")[2]
        return RANK.index(name) if name in RANK else len(RANK) + (1 + LAST.index(name) if name in LAST else 0)


@dataclass
class Events:
    seconds: float | None = None  # from the first event to the last; the pauses of a continued run do not count
    seconds_at: dict[int, float] = field(default_factory=dict)  # of a step
    pictures: list[Picture] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)


def read_events(folder: Path, notes: list[str]) -> Events:
    """What the event files of a run tell, one after the other."""
    from tensorboard.compat.proto.event_pb2 import Event

    events = Events()
    pictures: dict[str, Picture] = {}
    texts: dict[str, str] = {}
    before = 0.0
    for file in sorted(folder.glob("events.out.tfevents.*"), key=_opened):
        begun, elapsed = None, 0.0
        try:
            for record in records(file):
                event = Event.FromString(record)
                begun = event.wall_time if begun is None else begun
                elapsed = max(elapsed, event.wall_time - begun)
                for value in event.summary.value:
                    kind = value.WhichOneof("value")
                    if kind == "simple_value":
                        events.seconds_at.setdefault(event.step, before + elapsed)
                    elif kind == "image":
                        encoded = value.image.encoded_image_string
                        pictures[value.tag] = Picture(value.tag, f"step {event.step:,}", encoded)
                    elif kind == "tensor" and value.metadata.plugin_data.plugin_name == "text":
                        text = b"".join(value.tensor.string_val).decode("utf-8", errors="replace")
                        texts[value.tag.removesuffix("/text_summary")] = text
        except (OSError, DecodeError):
            notes.append(f"{file.name} is damaged: what stands behind the damage is missing.")
        before += elapsed
        events.seconds = before
    events.pictures = sorted(pictures.values(), key=Picture.rank)
    events.texts = sorted(texts.items())
    return events


def _opened(file: Path) -> tuple[int, str]:
    """When an event file was opened, which is in its name."""
    found = re.search(r"tfevents\.(\d+)", file.name)
    return int(found[1]) if found else 0, file.name


def records(file: Path) -> Iterator[bytes]:
    """The whole records of an event file."""
    left = file.stat().st_size
    with file.open("rb") as opened:
        while left >= 16:
            size = int.from_bytes(opened.read(12)[:8], "little")
            left -= size + 16
            if left < 0:
                return
            yield opened.read(size)
            opened.read(4)


class Album:
    """The pictures that a page holds, each once, shrunk, while there is room for them."""

    def __init__(self, room: int) -> None:
        self.room = room  # bytes, as they stand in the page
        self.images: list[str] = []
        self.sizes: list[tuple[int, int]] = []
        self.places: dict[bytes, int] = {}  # of a picture's checksum
        self.left_out = 0

    def put(self, picture: Picture) -> int | None:
        """The number of the picture among `images`; None where it cannot be read or finds no room."""
        if self.room <= 0:
            self.left_out += 1
            return None
        try:
            data = picture.source if isinstance(picture.source, bytes) else picture.source.read_bytes()
            digest = hashlib.sha256(data).digest()
            if digest not in self.places:
                with Image.open(io.BytesIO(data)) as image:
                    encoded, size = shrunk(image)
                self.places[digest] = len(self.images)
                self.images.append(encoded)
                self.sizes.append(size)
                self.room -= len(encoded)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None
        return self.places[digest]


def shrunk(image: Image.Image) -> tuple[str, tuple[int, int]]:
    """A picture as WebP in the form that an address in a page has, and its width and height."""
    small = image.convert("RGB")
    small.thumbnail((WIDEST, 2 * WIDEST))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY)
    return "data:image/webp;base64," + b64encode(file.getvalue()).decode(), small.size


def in_turns(pictures: Sequence[Sequence[Picture]]) -> list[tuple[int, int]]:
    """(run, place) of all pictures: first each run's most telling one, then each run's second, and so on."""
    ordered = [(place, number) for number, of_run in enumerate(pictures) for place in range(len(of_run))]
    return [(number, place) for place, number in sorted(ordered)]
