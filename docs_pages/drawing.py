"""From nodes to SVG: rows for a whole network, a graph of boxes for one block.

Rows: one a stage, top to bottom; the bar is as wide as the map is large, arcs on its left are connections that skip
stages. Graphs: layers by longest path; a connection over several layers keeps a lane of its own.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from scipy.optimize import linprog

from docs_pages.graphs import Node

COLOURS = {
    "input": "#e8eaed",
    "convolution": "#cfe2f9",
    "up": "#b9e3d5",
    "pool": "#f9d9d0",
    "linear": "#fbe7b3",
    "recurrent": "#e3d4f5",
    "attention": "#e3d4f5",
    "block": "#cfe2f9",
    "norm": "#eef3da",
    "activation": "#eef3da",
    "function": "#ffffff",
}
INK, LINE = "#1f2933", "#52606d"
WIDTH, ROW = 672, 30


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, colour: str = INK) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, colour: str, *, round: int = 4) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round}" fill="{colour}" '
        f'stroke="{LINE}" stroke-width="0.8"/>'
    )


def svg(title: str, width: float, height: float, parts: Sequence[str]) -> str:
    """A picture on white, which is legible on a dark page too."""
    arrow = (
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" fill="{LINE}"/></marker></defs>'
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'role="img" font-family="system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif">'
    )
    frame = f'<rect width="{width:.0f}" height="{height:.0f}" rx="6" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", arrow, frame, *parts, "</svg>"]) + "\n"


def dimensions(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


# Rows -----------------------------------------------------------------------------------------------------------------


SQUASHES = ("σ", "tanh", "relu", "softmax", "gelu", "silu")


def merged(nodes: Sequence[Node], told: str = "") -> list[Node]:
    """Fewer rows: norms, activations and the like join the row before them, equal neighbours become one with a number.

    Functions of one thing, and what only joins maps for the next module, are not shown. What is fed by the module
    `told` says so in words, as it would else be an arc to every row.
    """
    rows: list[Node] = []
    counts: list[int] = []
    where: dict[int, list[int]] = {}  # of each node the rows that stand for it
    for number, node in enumerate(nodes):
        before = list(dict.fromkeys(row for n in node.before for row in where[n]))
        fed = [row for row in before if rows[row].path == told] if told and node.path else []
        others = [row for row in before if row not in fed]
        before, is_told = others or before, bool(others and fed)
        chained = bool(rows) and before == [len(rows) - 1]
        kind = "activation" if node.kind == "function" and node.label in SQUASHES else node.kind
        if chained and kind in ("norm", "activation") and rows[-1].kind != "input":
            if counts[-1] == 1 and node.label not in rows[-1].label:
                rows[-1].label += f" · {node.label}"
            rows[-1].parameters += node.parameters
            rows[-1].shape = node.shape or rows[-1].shape
            where[number] = [len(rows) - 1]
            continue
        if node.kind == "function" and (len(before) == 1 or node.label == "join"):
            where[number] = before
            continue
        label = f"{node.label}, told the {told}" if is_told else node.label
        rows.append(Node(label, node.kind, node.path, node.shape, node.parameters, before))
        counts.append(1)
        where[number] = [len(rows) - 1]
        _join_equal(rows, counts, where)
    for row, count in zip(rows, counts, strict=True):
        row.label = f"{count} × {row.label}" if count > 1 else row.label
    return rows


def _join_equal(rows: list[Node], counts: list[int], where: dict[int, list[int]]) -> None:
    """The row before the last one joins its predecessor, if it says the same and only follows it."""
    if len(rows) < 3:
        return
    first, second = rows[-3], rows[-2]
    follows = second.before == [len(rows) - 3] and second.kind not in ("input", "function")
    used = [n for n in rows[-1].before if n == len(rows) - 3]
    if follows and not used and first.label == second.label and first.shape == second.shape:
        last = rows.pop()
        rows.pop()
        counts.pop(), counts.pop()
        first.parameters += second.parameters
        counts[-1] += 1
        for key, places in where.items():
            where[key] = [row - 1 if row > len(rows) - 1 else row for row in places]
        last.before = [n - 1 if n > len(rows) - 1 else n for n in last.before]
        rows.append(last)
        counts.append(1)


def draw_rows(title: str, nodes: Sequence[Node], told: str = "") -> str:
    """A network as rows, its input first."""
    rows = merged(nodes, told)
    sizes = [row.shape[-1] if len(row.shape) == 3 else 1 for row in rows]
    widest = max(math.log2(size + 1) for size in sizes)
    flat = max((math.prod(row.shape) for row in rows if len(row.shape) < 3), default=1)
    lanes = _lanes(rows)
    left = 18 + 15 * max((lane + 1 for lane in lanes.values()), default=0)
    bar, words = 120, left + 120 + 20
    parts: list[str] = []
    middle = left + bar / 2
    for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        y = 34 + number * ROW
        width = 2 * _half(row, size, widest, flat, bar)
        if row.kind == "function":
            parts.append(box(middle - 13, y + 2, 26, ROW - 11, COLOURS[row.kind], round=9))
        else:
            parts.append(box(middle - width / 2, y + 1, width, ROW - 9, COLOURS.get(row.kind, "#ffffff")))
        if number + 1 < len(rows) and number in rows[number + 1].before:
            parts.append(
                f'<path d="M{middle:.0f} {y + ROW - 8} v7" stroke="{LINE}" fill="none" marker-end="url(#to)"/>'
            )
        parts.append(text(words, y + 16, row.label if len(row.label) < 52 else row.label[:50] + "…"))
        parts.append(text(WIDTH - 112, y + 16, dimensions(row.shape), anchor="end", colour="#334e68"))
        parts.append(text(WIDTH - 14, y + 16, f"{row.parameters:,}" if row.parameters else "", anchor="end"))
    for (start, end), lane in lanes.items():
        x, top, bottom = left - 8 - 15 * lane, 34 + start * ROW + 11, 34 + end * ROW + 11
        widths = [_half(rows[n], sizes[n], widest, flat, bar) for n in (start, end)]
        parts.append(
            f'<path d="M{middle - widths[0]:.0f} {top} H{x + 6:.0f} Q{x:.0f} {top} {x:.0f} {top + 6} V{bottom - 6} '
            f'Q{x:.0f} {bottom} {x + 6:.0f} {bottom} H{middle - widths[1]:.0f}" stroke="{LINE}" fill="none" '
            'marker-end="url(#to)"/>'
        )
    head = [
        text(words, 22, "what", size=11, colour=LINE),
        text(WIDTH - 112, 22, "shape that leaves it", anchor="end", size=11, colour=LINE),
        text(WIDTH - 14, 22, "parameters", anchor="end", size=11, colour=LINE),
    ]
    return svg(title, WIDTH, 34 + len(rows) * ROW + 10, head + parts)


def _half(row: Node, size: int, widest: float, flat: int, bar: float) -> float:
    """Half the width of a row's shape."""
    if row.kind == "function":
        return 13
    share = (
        math.log2(size + 1) / widest
        if len(row.shape) == 3
        else 0.12 + 0.5 * math.log2(math.prod(row.shape) + 1) / math.log2(max(flat, 2) + 1)
    )
    return max(bar * share, 16) / 2


def _lanes(rows: Sequence[Node]) -> dict[tuple[int, int], int]:
    """For each connection that skips a row a lane, the nearest in which it crosses no other."""
    arcs = [(start, end) for end, row in enumerate(rows) for start in row.before if start < end - 1]
    lanes: dict[tuple[int, int], int] = {}
    for arc in sorted(arcs, key=lambda arc: arc[1] - arc[0]):
        taken = {lane for other, lane in lanes.items() if other[0] <= arc[1] and arc[0] <= other[1]}
        lanes[arc] = next(lane for lane in range(len(arcs)) if lane not in taken)
    return lanes


# Graphs ---------------------------------------------------------------------------------------------------------------


def draw_graph(title: str, nodes: Sequence[Node]) -> str:
    """One block as boxes and arrows."""
    nodes = [Node(with_depth(node), node.kind, node.path, node.shape, 0, node.before) for node in nodes]
    layer: list[int] = []
    for node in nodes:
        layer.append(1 + max((layer[n] for n in node.before), default=-1))
    for number in reversed(range(len(nodes))):  # what feeds only later layers moves down to them: shorter lines
        users = [layer[k] for k, node in enumerate(nodes) if number in node.before]
        if users and not nodes[number].before:
            layer[number] = min(users) - 1
    first = min(layer)
    layer = [value - first for value in layer]
    columns: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    for number, value in enumerate(layer):
        columns[value].append(number)
    edges: list[list[int]] = []  # each as the chain of places it goes through, of which the inner ones are lanes
    lanes: dict[int, int] = {}
    for number, node in enumerate(nodes):
        for start in node.before:
            chain = [start]
            for value in range(layer[start] + 1, layer[number]):
                lane = len(nodes) + len(lanes)
                lanes[lane] = value
                columns[value].append(lane)
                chain.append(lane)
            edges.append([*chain, number])
    links = [(a, b) for chain in edges for a, b in pairwise(chain)]
    for sweep in range(12):
        downward = sweep % 2 == 0
        for value in range(len(columns)) if downward else reversed(range(len(columns))):
            near: dict[int, float] = {}
            for place in columns[value]:
                beside = [a for a, b in links if b == place] if downward else [b for a, b in links if a == place]
                spots = [spot for spot in (_spot(columns, n) for n in beside) if spot is not None]
                near[place] = sum(spots) / len(spots) if spots else (_spot(columns, place) or 0)
            columns[value].sort(key=lambda place: near[place])
    sizes = [
        26 if not n.path and n.kind == "function" and len(n.label) < 3 else max(64, 15 + 7.2 * len(n.label))
        for n in nodes
    ]

    def width(place: int) -> float:
        return sizes[place] if place < len(nodes) else 12

    gap, step = 22, 50
    x = _places(columns, links, width, gap)
    first_x = min(x[place] - width(place) / 2 for place in x) - 20
    x = {place: value - first_x for place, value in x.items()}
    total = max(x[place] + width(place) / 2 for place in x) + 20
    y = {place: 14 + value * step for value, column in enumerate(columns) for place in column}
    parts = [_curve([(x[p], y[p], p < len(nodes)) for p in chain]) for chain in edges]
    for number, node in enumerate(nodes):
        wide = sizes[number]
        round_ = 13 if wide == 26 else 4
        parts.append(box(x[number] - wide / 2, y[number], wide, 26, COLOURS.get(node.kind, "#ffffff"), round=round_))
        parts.append(text(x[number], y[number] + 17, node.label, anchor="middle", size=12))
    return svg(title, total, 14 + len(columns) * step - 12, parts)


def _places(
    columns: Sequence[Sequence[int]], links: Sequence[tuple[int, int]], width: Callable[[int], float], gap: float
) -> dict[int, float]:
    """Where boxes and lanes stand from left to right: the order kept, and all lines together as upright as can be."""
    count = sum(map(len, columns))
    out, into = Counter(a for a, _ in links), Counter(b for _, b in links)
    weights = [8.0 if out[a] == into[b] == 1 else 1.0 for a, b in links]
    rows: list[list[float]] = []
    limits: list[float] = []
    for number, (a, b) in enumerate(links):  # each line's slant is at least the difference of its ends, both ways
        for sign in (1.0, -1.0):
            row = [0.0] * (count + len(links))
            row[a], row[b], row[count + number] = sign, -sign, -1.0
            rows.append(row)
            limits.append(0.0)
    for column in columns:
        for a, b in pairwise(column):
            row = [0.0] * (count + len(links))
            row[a], row[b] = 1.0, -1.0
            rows.append(row)
            limits.append(-(width(a) + width(b)) / 2 - gap)
    found = linprog([1e-4] * count + weights, A_ub=rows, b_ub=limits, method="highs")
    return {place: float(found.x[place]) for place in range(count)}


def with_depth(node: Node) -> str:
    """A convolution's label with the depth of the maps that leave it."""
    deep = node.kind in ("convolution", "up") and len(node.shape) == 3
    return f"{node.label} → {node.shape[0]}" if deep else node.label


def _spot(columns: Sequence[Sequence[int]], place: int) -> float | None:
    for column in columns:
        if place in column:
            return (column.index(place) + 0.5) / len(column)
    return None


def _curve(points: Sequence[tuple[float, float, bool]]) -> str:
    """A smooth line from below the first box, through lanes, to the top of the last one."""
    (x, y, _), *rest = points
    path = f"M{x:.0f} {y + 26:.0f}"
    at = (x, y + 26)
    for x, y, is_box in rest:
        bend = (y - at[1]) / 2
        path += f" C{at[0]:.0f} {at[1] + bend:.0f} {x:.0f} {y - bend:.0f} {x:.0f} {y:.0f}"
        at = (x, y)
        if not is_box:
            path += f" V{y + 26:.0f}"
            at = (x, y + 26)
    return f'<path d="{path}" stroke="{LINE}" fill="none" marker-end="url(#to)"/>'
