"""The report's figures: one function a panel, each an SVG that takes the page's colour of ink.

Panels are small and single, so that a page can set them side by side or one below the other. Every reward model is
named where it is drawn, so that nothing hangs on its colour; whole lines and full marks are trained, broken and hollow
constructed.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import quoteattr

import numpy as np

from rmpipe.axis import logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (
    "#0077bb", "#d9631e", "#009988", "#cc3377", "#aa8800", "#2e93cf", "#8866cc", "#777777", "#cc3311", "#559911",
    "#a0602d", "#4a7a90",
)  # fmt: skip
"""Told apart by most colour-blind readers; 3:1 or more on the page's paper, light and dark."""
INK = "#010203"
"""Becomes the text's colour of the page that shows the figure."""
LONGEST = 18
"""Letters of a name; of a longer one the middle goes, for names differ at their end."""
WIDEST = 2.5
"""How far an axis goes beyond the longest bar, for the sake of intervals."""
STYLE: Any = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 10,
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.titlesize": 10,
    "axes.titlelocation": "left", "figure.constrained_layout.use": True,
}  # fmt: skip


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each reward model, in their order."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def plane(rows: Sequence[dict[str, Any]], ink: dict[str, str], accuracy: str = "accuracy_on") -> str:
    """Accuracy against reward variance, each reward model a disc whose area is its gain.

    Args:
        rows: of one policy and algorithm, as an answer holds them.
        ink: of `colours`.
        accuracy: the row's name of the accuracy across.
    """
    gain = "truth_gain" if any(row["truth_gain"] for row in rows) else "proxy_gain"
    known = [row for row in rows if row[accuracy] and row["variance"] and row[gain]]
    if not known:
        return ""
    figure, axes = _panel(3.5)
    most = max(max(row[gain]["value"] for row in known), 1e-9)
    for row in known:
        _disc(axes, row, accuracy, row[gain]["value"] / most, ink[row["reward_model"]])
    axes.margins(0.13)
    where = "on" if accuracy == "accuracy_on" else "off"
    axes.set(xlabel=f"ranking accuracy, {where} policy", ylabel="reward variance (whitened)")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _named(axes, [(row[accuracy]["value"], row["variance"]["value"], row["reward_model"]) for row in known], ink)
    told = "; ".join(f"{row['reward_model']} {row[gain]['value']:.2f}" for row in known)
    return _svg(figure, f"Accuracy against variance; the area of a disc is its {_words(gain)}: {told}")


def curve(curves: Sequence[dict[str, Any]], ink: dict[str, str], trained: dict[str, bool], x: str, y: str) -> str:
    """A reward over training, the mean over seeds of each reward model, named at its end; thin lines are single seeds.

    Args:
        curves: of one policy and algorithm: reward_model, seed, and lists by name.
        ink: of `colours`.
        trained: whether a reward model was trained.
        x: `"steps"` or `"kl"`.
        y: `"proxy"` or `"truth"`, in standard deviations of the initial policy's reward.
    """
    curves = [item for item in curves if item.get(y)]
    if not curves:
        return ""
    figure, axes = _panel(3.3)
    ends = []
    for name in dict.fromkeys(item["reward_model"] for item in curves):
        across, up = stacked([item for item in curves if item["reward_model"] == name], x, y)
        style: Any = {"color": ink[name], "linestyle": "-" if trained[name] else (0, (4, 2))}
        for one_across, one_up in zip(across, up, strict=True) if len(up) > 1 else ():
            axes.plot(one_across, one_up, linewidth=0.6, alpha=0.5, **style)
        axes.plot(across.mean(axis=0), up.mean(axis=0), linewidth=1.9, **style)
        ends.append((across.mean(axis=0)[-1], up.mean(axis=0)[-1], name))
    axes.axhline(0, color=INK, linewidth=0.5)
    across_words = "training steps"
    if x == "kl":  # a policy that runs away would press all others against the edge
        across_words = _by_distance(axes)
    else:
        axes.locator_params(axis="x", integer=True)
    up_words = "ground-truth gain" if y == "truth" else "proxy gain"
    axes.set(xlabel=across_words, ylabel=f"{up_words}, sd")
    _named(axes, ends, ink)
    told = "; ".join(f"{name} {up:.2f}" for _, up, name in ends)
    return _svg(figure, f"{up_words} against {across_words}, one line a reward model; at the end: {told}")


def _by_distance(axes: Axes) -> str:
    """Lets KL run across by its root, the distance that gains go with; gives its words."""
    words = "KL from the initial policy, nats a response"
    axes.set_xscale("function", functions=(lambda kl: np.sqrt(np.maximum(kl, 0)), np.square))
    axes.locator_params(axis="x", nbins=5)  # they crowd at the right
    axes.set_xlim(left=0)
    axes.set_xlabel(words)
    return words


def stacked(curves: Sequence[dict[str, Any]], x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """The curves of one reward model as `curve` draws them, each from 0 up: (seeds, evaluations) of both."""
    shortest = min(len(item[x]) for item in curves)
    across, up = (np.array([item[name][:shortest] for item in curves], dtype=float) for name in (x, y))
    return across, up - up[:, :1]


def parted(
    curves: Sequence[dict[str, Any]], told: Sequence[dict[str, Any]], ink: dict[str, str], trained: dict[str, bool],
    where: str,
) -> str:  # fmt: skip
    """Ground truth and proxy over KL, means over seeds: where they part, over-optimisation begins.

    The ground truth is thick, the proxy thin and, where it runs away, cut off; a disc marks the highest look of a
    ground truth that turns, and a bar the interval of where it does.

    Args:
        curves: of one policy and algorithm, as `curve` takes them.
        told: their rows of `rmpipe.overoptimisation.answer`.
        ink: of `colours`.
        trained: whether a reward model was trained.
        where: whose they are, as in `bars`.
    """
    if not told:
        return ""
    figure, axes = _panel(3.9)
    ends, heights, said = [], [0.0], []
    for row in told:
        name = row["reward_model"]
        mine = [item for item in curves if item["reward_model"] == name]
        across, up = (lines.mean(axis=0) for lines in stacked(mine, "kl", "truth"))
        proxy = stacked(mine, "kl", "proxy")[1].mean(axis=0)
        axes.plot(across, proxy, color=ink[name], linewidth=0.9, alpha=0.8)
        axes.plot(across, up, color=ink[name], linewidth=1.9, linestyle="-" if trained[name] else (0, (4, 2)))
        _mark(axes, row, ink[name])
        ends.append((across[-1], up[-1], name))
        heights += [*up]
        said.append(f"{name} {row['outcome']}, at the end {up[-1]:.2f} and {proxy[-1]:.2f}")
    axes.axhline(0, color=INK, linewidth=0.5)
    _by_distance(axes)
    low, high = axes.get_ylim()
    most = WIDEST * max(map(abs, heights)) or 1.0
    axes.set_ylim(max(low, -most), min(high, most))
    axes.set(ylabel="gain, sd: ground truth (thick), proxy (thin)")
    _named(axes, ends, ink)
    words = "ground truth and proxy against the KL from the initial policy"
    return _svg(figure, f"{where}, {words}: {'; '.join(said)}")


def _mark(axes: Axes, row: dict[str, Any], colour: str) -> None:
    """Where a ground truth turns: its highest look, and the interval of the KL of its turning point."""
    if row["outcome"] != "turns":
        return
    peak, turn = row["peak"], row["turn"]
    axes.plot(peak["kl"], peak["gain"], "o", markersize=7, color=colour, zorder=3)
    if turn:
        ends = [turn["low"], turn["high"]]
        axes.plot(ends, [peak["gain"]] * 2, color=colour, linewidth=1.2, marker="|", scalex=False)


def foretold(rows: Sequence[dict[str, Any]], ink: dict[str, str], where: str) -> str:
    """Forecasts against what came true, each reward model a disc with both of its intervals.

    Where gains are foretold in standard deviations, the broken line is where both are alike; else a forecast is a share
    of what the ground truth itself would teach, and the line stands there.

    Args:
        rows: of an answer's forecast, of one policy, algorithm and ground truth.
        ink: of `colours`.
        where: whose they are, as in `bars`.
    """
    known = [row for row in rows if row["forecast"] and row["gain"]]
    if not known:
        return ""
    figure, axes = _panel(_tall(len(known)))
    told = "gain_foretold" if all(row.get("gain_foretold") for row in known) else "forecast"
    for row in known:
        name, (x, y) = row["reward_model"], (row[told], row["gain"])
        _ends(axes, x, y, ink[name])
        face = ink[name] if row["trained"] else "none"
        axes.plot(x["value"], y["value"], "o", markersize=6, color=ink[name], markerfacecolor=face, zorder=3)
    broken: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 3))}
    axes.axhline(0, color=INK, linewidth=0.5)
    across = [row[told] for row in known]
    if told == "forecast":
        axes.axvline(1, **broken)
        across = [*across, {"value": 1.0, "low": None, "high": None}]
    else:
        axes.axline((0, 0), slope=1, **broken)
    axes.set_xlim(*reach(across))
    axes.set_ylim(*reach([row["gain"] for row in known]))
    words = "forecast (1: the ground truth)" if told == "forecast" else "foretold gain, sd"
    axes.set(xlabel=words, ylabel="ground-truth gain, sd")
    # of no one's colour, for it runs where an interval may
    leaders = dict.fromkeys(ink, INK)
    _named(axes, [(row[told]["value"], row["gain"]["value"], row["reward_model"]) for row in known], leaders)
    said = "; ".join(f"{row['reward_model']} {row[told]['value']:.2f} and {row['gain']['value']:.2f}" for row in known)
    return _svg(figure, f"Forecast against what came true, {where}: {said}")


def tilted(
    curves: Sequence[dict[str, Any]], ink: dict[str, str], trained: dict[str, bool], where: str
) -> str:  # fmt: skip
    """The ground truth of a policy that is tilted ever further towards a reward, over KL; a disc marks where it turns.

    Args:
        curves: of one ground truth, policy and algorithm, as a forecast holds them.
        ink: of `colours`.
        trained: whether a reward model was trained.
        where: whose they are, as in `bars`.
    """
    if not curves:
        return ""
    figure, axes = _panel(_tall(len(curves)))
    lines = {item["reward_model"]: followed(item) for item in curves}
    ends = _lines(axes, lines, ink, trained)
    for item in curves:
        if (at := turning(item)) is not None:
            axes.plot(*at, "o", markersize=7, color=ink[item["reward_model"]], zorder=3)
    _by_distance(axes)
    axes.set_ylabel("ground-truth gain, sd")
    _named(axes, ends, ink)
    said = [f"{name} {up:.2f} at a KL of {kl:.2f}{', turned' * (turning(item) is not None)}"
            for item, (kl, up, name) in zip(curves, ends, strict=True)]  # fmt: skip
    return _svg(figure, f"Tilted policy, {where}, ground-truth gain against KL; at the end: {'; '.join(said)}")


def followed(curve: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """KL and gain of a tilted policy, as far as the samples carry it: (looks,) of both."""
    held = np.asarray(curve["ess"]) >= curve["least"]
    return np.asarray(curve["kl"], float)[held], np.asarray(curve["gain"], float)[held]


def turning(curve: Mapping[str, Any]) -> tuple[float, float] | None:
    """KL and gain where the ground truth of a tilted policy turns; None of one that does not."""
    if curve["turn"] is None:
        return None
    place = curve["eta"].index(curve["turn"])
    return curve["kl"][place], curve["gain"][place]


def best_of_n(
    curves: Sequence[dict[str, Any]], ink: dict[str, str], trained: dict[str, bool], where: str
) -> str:  # fmt: skip
    """The ground truth of the response that a reward model likes best of n, over n.

    Args:
        curves: of one ground truth and policy, as a forecast holds them.
        ink: of `colours`.
        trained: whether a reward model was trained.
        where: whose they are, as in `bars`.
    """
    if not curves:
        return ""
    figure, axes = _panel(_tall(len(curves)))
    ends = _lines(axes, {item["reward_model"]: (item["n"], item["gain"]) for item in curves}, ink, trained)
    counts = sorted({n for item in curves for n in item["n"]})
    logarithmic(axes, "x", np.array(counts), counts)
    axes.set(xlabel="responses that the best is chosen of", ylabel="ground-truth gain, sd")
    _named(axes, ends, ink)
    told = "; ".join(f"{name} {up:.2f} of {n:g}" for n, up, name in ends)
    return _svg(figure, f"Best of n, {where}, ground-truth gain; at the end: {told}")


def _lines(
    axes: Axes, lines: Mapping[str, tuple[Any, Any]], ink: dict[str, str], trained: dict[str, bool]
) -> list[tuple[float, float, str]]:  # fmt: skip
    """A line a reward model, whole or broken, and one at 0; gives the ends, for their names."""
    for name, (across, up) in lines.items():
        axes.plot(across, up, linewidth=1.6, color=ink[name], linestyle="-" if trained[name] else (0, (4, 2)))
    axes.axhline(0, color=INK, linewidth=0.5)
    return [(float(across[-1]), float(up[-1]), name) for name, (across, up) in lines.items()]


def spread(values: dict[str, Sequence[float]], ink: dict[str, str]) -> str:
    """Reward variance prompt by prompt: every prompt a dot, the median and the quartiles marked.

    Args:
        values: reward model -> (prompts,) whitened variances.
        ink: of `colours`.
    """
    if not values:
        return ""
    figure, axes = _panel(0.8 + 0.34 * len(values))
    jitter = np.random.default_rng(0)
    for place, (name, numbers) in enumerate(values.items()):
        y = place + jitter.uniform(-0.28, 0.28, len(numbers))
        axes.scatter(numbers, y, s=6, color=ink[name], alpha=0.55, linewidth=0)
        low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
        axes.plot([low, high], [place, place], color=INK, linewidth=1.3)
        axes.plot(middle, place, marker="|", color=INK, markersize=11, markeredgewidth=1.8)
    axes.set_yticks(range(len(values)), list(values))
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("reward variance of a prompt (whitened)")
    medians = "; ".join(f"{name} {np.median(numbers):.2f}" for name, numbers in values.items())
    return _svg(figure, f"Reward variance of each prompt; medians: {medians}")


def forest(
    items: Sequence[tuple[str, dict[str, Any] | None]], xlabel: str, limits: tuple[float, float] | None = None,
    where: str = "",
) -> str:  # fmt: skip
    """Numbers with their intervals, one below the other, and a line at 0.

    Args:
        items: label and {"value", "low", "high"}.
        xlabel: what the numbers are.
        limits: of the axis.
        where: whose they are, as in `bars`, where a page has several of one kind.
    """
    known = [(label, number) for label, number in items if number]
    if not known:
        return ""
    figure, axes = _panel(0.75 + 0.27 * len(known))
    for place, (_, number) in enumerate(known):
        if number["low"] is not None and number["high"] is not None:
            axes.plot([number["low"], number["high"]], [place, place], color=PALETTE[0], linewidth=1.8)
        axes.plot(number["value"], place, marker="o", color=PALETTE[0], markersize=5)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yticks(range(len(known)), [label for label, _ in known])
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    if limits:
        axes.set_xlim(*limits)
    told = "; ".join(f"{label} {number['value']:.2f}" for label, number in known)
    return _svg(figure, f"{f'{where}, ' if where else ''}{xlabel}: {told}")


def bars(
    items: Sequence[tuple[str, dict[str, Any], str, bool]], xlabel: str, where: str, at: float | None = None,
    limits: tuple[float, float] | None = None,
) -> str:  # fmt: skip
    """Bars from 0 with their intervals, one below the other; one of no length is a disc.

    Args:
        items: label, {"value", "low", "high"}, colour, and whether the bar is full or hollow. Of a label's lines each
            word may be a name.
        xlabel: what the numbers are.
        where: whose they are, for those who do not see under which heading it stands.
        at: where a broken line stands, such as at chance.
        limits: of the axis; an interval that goes past them ends at the edge.
    """
    if not items:
        return ""
    lines = 1 + max(label.count("\n") for label, *_ in items)
    figure, axes = _panel(0.75 + (0.12 + 0.17 * lines) * len(items))
    for place, (_, number, colour, full) in enumerate(items):
        axes.barh(
            place, number["value"], 0.62, color=[(colour, 0.6)] if full else "none", edgecolor=colour, linewidth=1.4
        )
        if not number["value"]:  # without a length it would show neither its colour nor whether it is full
            face = colour if full else "none"
            axes.plot(0, place, "o", markersize=8, color=colour, markerfacecolor=face, clip_on=False, zorder=3)
        if number["low"] is not None and number["high"] is not None:
            axes.plot([number["low"], number["high"]], [place, place], color=INK, linewidth=1.2)
    axes.axvline(0, color=INK, linewidth=0.6)
    if at is not None:
        axes.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(items)), [re.sub(r"[^ \n]+", lambda word: _short(word[0]), label) for label, *_ in items])
    axes.set_ylim(len(items) - 0.4, -0.6)
    axes.set_xlabel(xlabel)
    if limits:
        axes.set_xlim(*limits)
    told = "; ".join(f"{label} {number['value']:.2f}".replace("\n", " ") for label, number, *_ in items)
    return _svg(figure, f"{where}, {xlabel}: {told}")


def reach(numbers: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """An axis with 0, all values, and intervals as far as they leave the values to be seen.

    Args:
        numbers: {"value", "low", "high"} of all panels that share the axis.
    """
    most = WIDEST * max([abs(number["value"]) for number in numbers], default=1.0) or 1.0
    lows, highs = ([number["value"] if number[end] is None else number[end] for number in numbers]
                   for end in ("low", "high"))  # fmt: skip
    return max(-most, min([0.0, *lows]) * 1.05), min(most, max([0.0, *highs]) * 1.05)


def runs(curves: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Several runs as `learning` draws them, as far as the shortest goes: (runs, looks) of steps and of numbers.

    Args:
        curves: with steps, and lists by name.
        name: of the numbers.
    """
    shortest = min(len(item["steps"]) for item in curves)
    across, up = (np.array([item[key][:shortest] for item in curves], dtype=float) for key in ("steps", name))
    return across, up


def learning(
    lines: dict[str, tuple[np.ndarray, np.ndarray]], ink: dict[str, str], ylabel: str, where: str, at: float | None,
    log: bool = False,
) -> str:  # fmt: skip
    """A number in training: thin lines are single runs, thick ones their mean, discs the end.

    Args:
        lines: reward model -> steps and numbers, both (runs, looks).
        ink: of `colours`.
        ylabel: what the numbers are.
        where: whose they are, as in `bars`.
        at: where a broken line stands, such as at chance.
        log: whether the numbers, all above 0, span orders of magnitude.
    """
    if not lines:
        return ""
    figure, axes = _panel(3.3)
    ends = []
    for name, (across, up) in lines.items():
        for one_across, one_up in zip(across, up, strict=True) if len(up) > 1 else ():
            axes.plot(one_across, one_up, linewidth=0.6, alpha=0.5, color=ink[name])
        mean_across, mean_up = across.mean(axis=0), up.mean(axis=0)
        axes.plot(mean_across, mean_up, linewidth=1.9, color=ink[name])
        axes.plot(mean_across[-1], mean_up[-1], marker="o", markersize=5, color=ink[name])
        ends.append((mean_across[-1], mean_up[-1], name))
    if at is not None:
        axes.axhline(at, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="training steps", ylabel=ylabel)
    if log:
        logarithmic(axes, "y", np.concatenate([up.ravel() for _, up in lines.values()]))
    _named(axes, ends, ink)
    told = "; ".join(f"{name} {up:{'.3g' if log else '.2f'}}" for _, up, name in ends)
    return _svg(figure, f"{where}, {ylabel} while training, a line each; at the end: {told}")


def ladder(
    lines: Mapping[str, Sequence[tuple[float, dict[str, Any]]]], ink: dict[str, str], xlabel: str, ylabel: str,
    where: str, at: float = 0, log: bool = False,
) -> str:  # fmt: skip
    """Numbers with their intervals over quantiles or counts, a line a ladder.

    Args:
        lines: ladder -> quantile, or count, and {"value", "low", "high"} of each rung.
        ink: of `colours`.
        xlabel: what the quantiles are of, or what is counted.
        ylabel: what the numbers are.
        where: whose they are, as in `bars`.
        at: where a broken line stands.
        log: whether counts stand on a logarithmic axis, none of them at its edge.
    """
    if not lines:
        return ""
    figure, axes = _panel(3.3)
    places = sorted({place for rungs in lines.values() for place, _ in rungs})
    nought, ends = logarithmic(axes, "x", np.array(places), places) if log else 0.0, []
    for index, (name, rungs) in enumerate(lines.items()):
        aside = 0.008 * (index - (len(lines) - 1) / 2)
        across = [(place or nought) * (1 + 3 * aside) if log else place + aside for place, _ in rungs]
        axes.plot(across, [number["value"] for _, number in rungs], linewidth=1.9, marker="o", markersize=5,
                  color=ink[name])  # fmt: skip
        for x, (_, number) in zip(across, rungs, strict=True):
            if number["low"] is not None and number["high"] is not None:
                axes.plot([x, x], [number["low"], number["high"]], linewidth=1, color=ink[name])
        ends.append((across[-1], rungs[-1][1]["value"], name))
    axes.axhline(at, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _named(axes, ends, ink)
    values = {name: ", ".join(f"{number['value']:.2f}" for _, number in rungs) for name, rungs in lines.items()}
    told = "; ".join(f"{name} {text}" for name, text in values.items())
    return _svg(figure, f"{where}, {ylabel}, over the {xlabel}: {told}")


def scatter(
    groups: Mapping[str, tuple[Any, Any]], ink: dict[str, str], words: tuple[str, str], where: str,
    at: float | None = None, limits: tuple[float, float] | None = None, log: bool = False,
) -> str:  # fmt: skip
    """Points and the line that they lie along; each group has a mark of its own, and its name at its middle.

    On logarithmic axes what is 0 stands at the edge, hollow.

    Args:
        groups: group -> (points,) across and (points,) up; one without a name is not named.
        ink: of `colours`.
        words: what is across, and what is up.
        where: whose they are, as in `bars`.
        at: where, across, a broken line stands.
        limits: of what is up, where panels have one scale.
        log: whether both axes are logarithmic.
    """
    known = {name: (np.asarray(x, float), np.asarray(y, float)) for name, (x, y) in groups.items() if len(x)}
    if not known:
        return ""
    figure, axes = _panel(3.3)
    across, up = (np.concatenate([pair[side] for pair in known.values()]) for side in (0, 1))
    edges = [logarithmic(axes, "x", across), logarithmic(axes, "y", up)] if log else [0.0, 0.0]
    middles = []
    for (name, pair), mark in zip(known.items(), itertools.cycle("o^sD")):
        zero = (pair[0] <= 0) | (pair[1] <= 0) if log else np.zeros(len(pair[0]), dtype=bool)
        x, y = (np.where(values > 0, values, edge) if log else values for values, edge in zip(pair, edges, strict=True))
        look: Any = {"color": ink[name], "marker": mark, "linestyle": "", "clip_on": False}
        axes.plot(x[~zero], y[~zero], markersize=4.5, markeredgewidth=0, alpha=0.75, **look)
        axes.plot(x[zero], y[zero], markersize=8, markerfacecolor="none", **look)
        middles.append((float(np.median(x)), float(np.median(y)), name))
    _lean(axes, across, up, log)
    if at is not None:
        axes.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    if not log:
        axes.axhline(0, color=INK, linewidth=0.5)
        axes.set_ylim(limits)
    axes.set(xlabel=words[0], ylabel=words[1])
    if named := [middle for middle in middles if middle[2]]:
        _named(axes, named, ink)
    told = "; ".join(f"{len(x)} points {name}".strip() + f", medians {np.median(x):.3g} and {np.median(y):.3g}"
                     for name, (x, y) in known.items())  # fmt: skip
    return _svg(figure, f"{where}, {words[1]} against {words[0]}: {told}")


def slope(x: Any, y: Any, log: bool = False) -> tuple[float, float] | None:
    """Slope and height at 0 of the line that points lie along, by least squares; None where there is none.

    Args:
        x: (points,).
        y: (points,).
        log: of log y on log x, over the points where both are above 0.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if log:
        above = (x > 0) & (y > 0)
        x, y = np.log(x[above]), np.log(y[above])
    if np.unique(x).size < 3:
        return None
    found = np.polyfit(x, y, 1)
    return float(found[0]), float(found[1])


def _lean(axes: Axes, x: np.ndarray, y: np.ndarray, log: bool) -> None:
    """The line that points lie along, from the first of them to the last."""
    if found := slope(x, y, log):
        shown = x[(x > 0) & (y > 0)] if log else x
        ends = np.array([shown.min(), shown.max()])
        heights = np.exp(found[1]) * ends ** found[0] if log else found[1] + found[0] * ends
        axes.plot(ends, heights, color=INK, linewidth=1.1, scalex=False, scaley=False)


def _tall(names: int) -> float:
    """Inches of a panel with so many names in its margin."""
    return max(3.3, 1.0 + 0.19 * names)


def _panel(height: float) -> tuple[Figure, Axes]:
    """One panel: as wide as lets its letters stay readable on a telephone."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):  # not pyplot: no state, no window
        figure = Figure(figsize=(4.2, height))
        return figure, figure.subplots()


def _ends(axes: Axes, x: dict[str, Any], y: dict[str, Any], colour: str) -> None:
    """The intervals of a point, across and up, as far as each is known."""
    for number, other, upright in ((x, y, False), (y, x, True)):
        if number["low"] is not None and number["high"] is not None:
            along, at = [number["low"], number["high"]], [other["value"]] * 2
            axes.plot(*((at, along) if upright else (along, at)), color=colour, linewidth=1, alpha=0.7)


def _disc(axes: Axes, row: dict[str, Any], accuracy: str, size: float, colour: str) -> None:
    """A disc whose area is a gain, as a share of the greatest; a cross where it was a loss."""
    x, y = row[accuracy]["value"], row["variance"]["value"]
    if size < 0:
        axes.scatter(x, y, s=40, marker="x", color=colour, linewidth=1.8)
        return
    face = [(colour, 0.6)] if row["trained"] else "none"
    axes.scatter(x, y, s=500 * size, facecolors=face, edgecolors=colour, linewidth=1.6)


def _named(axes: Axes, points: Sequence[tuple[float, float, str]], ink: dict[str, str]) -> None:
    """Names in the right margin, none upon another, each with a line of its colour to its point, the fewest crossed."""
    place = axes.transData + axes.transAxes.inverted()
    axes.autoscale_view()
    there = sorted(((*place.transform((x, y)), x, y, name) for x, y, name in points), key=lambda point: -point[1])
    heights = _apart([point[1] for point in there])
    for _ in there:
        for i, high in enumerate(heights[:-1]):
            if _cross(there[i], high, there[i + 1], heights[i + 1]):
                there[i], there[i + 1] = there[i + 1], there[i]
    for (*_, x, y, name), height in zip(there, heights, strict=True):
        axes.annotate(
            _short(name),
            (x, y), xytext=(1.03, height), textcoords="axes fraction", fontsize=9.5, color=INK, va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.9, "linestyle": (0, (1, 1.6)), "color": ink[name],
                        "relpos": (0, 0.5), "shrinkA": 1, "shrinkB": 0},
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"


def _apart(heights: Sequence[float]) -> list[float]:
    """Falling heights, as shares of the axes, moved so that each has a line of text and none leaves the axes."""
    least = min(0.078, 1 / len(heights))
    found: list[float] = []
    for height in heights:
        found.append(min(height, found[-1] - least) if found else min(height, 1.0))
    return [max(height, least * (len(found) - 1 - i)) for i, height in enumerate(found)]


def _cross(one: tuple[Any, ...], high: float, other: tuple[Any, ...], low: float) -> bool:
    """Whether the line from `one` up to `high` would cross that from `other` to `low`, both ending at the margin."""
    x = max(one[0], other[0])
    if x >= 1:
        return False
    up, down = (y + (end - y) * (x - start) / (1 - start) for start, y, end in ((*one[:2], high), (*other[:2], low)))
    return bool(up < down)


def _svg(figure: Figure, text: str) -> str:
    """The figure as an SVG element with a name for those who do not see it."""
    import matplotlib as mpl

    out = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": text}):  # no two figures of a page share the names of their parts
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    head, rest = svg[svg.index("<svg") :].replace(INK, "currentColor").split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", rest, flags=re.DOTALL)
    rest = re.sub(r' id="[\w.]+_\d+"', "", rest)  # many figures stand on one page, and nothing points at these
    return f'{head} style="stroke-linejoin: round" role="img" aria-label={quoteattr(text)}>{rest}'


def _words(gain: str) -> str:
    return "ground-truth gain" if gain == "truth_gain" else "proxy gain"
