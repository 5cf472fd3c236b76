"""The page of `vanish`: the answer first, each number with interval and address, and nothing absent."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import pytest

from rmpipe import invocation, page, sieve, vanished
from rmpipe.citation import place
from rmpipe.generalisation import EVERY
from rmpipe.reckoning import ALL
from rmpipe.recovery import RECOVERED
from tests.rmpipe.test_displaced import words
from tests.rmpipe.test_page import Page, check_named_once, check_whole

MINUS = "\N{MINUS SIGN}"
ARMS: dict[str, dict[str, Any]] = {
    name: {"finetuning": finetuning, "algorithm": algorithm, "sifted": name == "sifted", "share": share, "of": of,
           "sft_steps": 30 if finetuning else 0, "rlhf_steps": 80 if algorithm else 0}
    for name, finetuning, algorithm, share, of in (
        ("rft", None, "rloo", 0.0, None), ("sft", "all", None, 1.0, "all"), ("few_rft", "few", "rloo", 0.03, "all"),
        ("sft_rft", "all", "rloo", 1.0, "all"), ("low_rft", "low", "rloo", 0.03, "low"),
        ("sifted", None, "rloo", 0.0, None),
    )
}  # fmt: skip
GAINS = {"sft_rft": (0.5, 0.4), "few_rft": (0.4, 0.32), "low_rft": (0.35, 0.3), "sft": (0.25, 0.25),
         "rft": (0.12, 0.01), "sifted": (0.11, 0.0)}  # fmt: skip
"""The gain of each arm, and that of its low-std prompts, the most first."""
LABELS = {"rft": None, "sft": 60.0, "few_rft": 2.0, "sft_rft": 60.0, "low_rft": 2.0, "sifted": None}
STD = [0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4]
UNKNOWN = ("norm_low", "norm_high", "norm_gap", "ratio", "spearman", "pearson", "exponent", "bound", "tighter")
"""What is not known of a place where no gradient was taken."""
PLACES = [("small", "rouge"), ("large", "rouge")]


def number(value: float, width: float | None = None) -> dict[str, Any]:
    ends = (None, None) if width is None else (value - width, value + width)
    return {"value": value, "low": ends[0], "high": ends[1]}


def row(policy: str, reward: str, arm: str) -> dict[str, Any]:
    gain, low = GAINS[arm]
    high, told = (4 * gain - low) / 3, ARMS[arm]
    related = number(0.02, 0.3) if arm == "sft" else number(0.45, 0.2)
    return {
        "policy": policy, "reward": reward, "arm": arm, "rank": {"sft_rft": "1=", "few_rft": "1="}.get(arm, "3"),
        "bases": 2, "runs": 2, "gain": number(gain, 0.05), "low": number(low, 0.05), "high": number(high, 0.05),
        "gap": number(high - low, 0.08), "before": number(0.2, 0.02), "after": number(0.2 + gain, 0.05),
        "low_after": number(0.1 + low), "high_after": number(0.3 + high), "spearman": related,
        "pearson": number(0.4, 0.2), "recovered": number(gain / 0.5, 0.1), "recovered_low": number(low / 0.4, 0.2),
        "recovered_high": number(3 * high / 1.6, 0.2),
        "kl": number(1.5) if told["algorithm"] else None, "tokens": number(12.0),
        "labels": LABELS[arm] and number(LABELS[arm]), "not_told_from": ["few_rft"] if arm == "sft_rft" else [],
        **{name: told[name] for name in ("share", "of", "sft_steps", "rlhf_steps")},
        "addresses": {
            stage: [f"{stage}/{policy}{arm}{seed}" for seed in (1, 2)] if there else []
            for stage, there in (("score", True), ("imitate", told["finetuning"]), ("align", told["algorithm"]))
        },
    }  # fmt: skip


def before(policy: str, reward: str) -> dict[str, Any]:
    numbers = {"flat": 0.3, "zero": 0.25, "mean": 0.2, "mean_low": 0.0625, "mean_high": 0.25, "std": 0.13, "cut": 0.01,
               "std_low": 0.002, "std_high": 0.17, "norm_low": 0.0125, "norm_high": 1234.5, "norm_gap": 1234.4,
               "ratio": 0.01, "spearman": 0.9, "pearson": 0.8, "exponent": 0.95, "bound": 0.0021,
               "tighter": 0.034}  # fmt: skip
    known = {name: number(value, value / 10) for name, value in numbers.items()}
    counts = {"bases": 2, "runs": 2, "prompts": 8, "samples": 32}
    addresses = {"gauge": [f"gauge/{policy}{seed}" for seed in (1, 2)]}
    return {"policy": policy, "reward": reward, **counts, **known, "addresses": addresses}


def experiment() -> dict[str, Any]:
    methods = {"supervised": (1.5, 0.4, 0.98), "expected_reinforce": (0.05, 0.5, 0.9)}
    curves = [
        {"method": method, "seed": seed, "steps": [0, 10, 20], "reward_modified": [-0.9, gain - 1, gain - 0.9],
         "reward_unmodified": [0.4, 0.6, 0.9], "norm_modified": [0.01, 0.02, 0.03], "norm_unmodified": [1.0, 0.5, 0.2]}
        for method, (gain, *_) in methods.items() for seed in (1, 2)
    ]  # fmt: skip
    told = [
        {"method": method, "modified": number(low, 0.1), "unmodified": number(high, 0.1), "accuracy": number(right),
         "gap": number(high - low, 0.1)}
        for method, (low, high, right) in methods.items()
    ]  # fmt: skip
    also = {"spearman": number(0.9, 0.05), "bound": None}
    first = {"std_modified": 0.05, "std_unmodified": 0.8, "norm_modified": 0.01, "norm_unmodified": 1.0, "tighter": 0.2}
    return {
        "name": "digits", "seeds": [1, 2], "methods": told, "curves": curves,
        "before": also | {name: number(value) for name, value in first.items()},
        "points": {"std": [0.01, 0.02, 0.7, 0.8], "norm": [0.02, 0.03, 1.0, 1.1], "gamma": [3.0] * 4,
                   "modified": [True, True, False, False]},
        "addresses": {"control": ["control/1", "control/2"]},
    }  # fmt: skip


def contrast(name: str, number_: str, value: float, outcome: str, **more: Any) -> dict[str, Any]:
    said = f"{outcome}: what was claimed is {value:.2f} [{value - 0.05:.2f}, {value + 0.05:.2f}] (2 bases)."
    told = {"name": name, "claim": f"claim {name} holds", "number": number_, "difference": number(value, 0.05)}
    return told | {"policy": EVERY, "reward": ALL, "outcome": outcome, "sentence": said, "bases": 2, "runs": 2} | more


def told() -> dict[str, Any]:
    """An answer as `conclude` writes it, with all of its parts."""
    return copy.deepcopy(_told())


@cache
def _told() -> dict[str, Any]:
    rows = [row(*where, arm) for where in PLACES for arm in GAINS]
    measured = [
        row(*PLACES[0], arm) | {"rlhf": bool(ARMS[arm]["algorithm"])} for arm in ("sft", "rft", "few_rft", "sft_rft")
    ]
    texts = [{"response": " <script>alert(1)</script>", "reward": 0.75}, {"response": " so it goes", "reward": 0.125}]
    asked = {"policy": "small", "reward": "rouge", "seed": 1, "mean": 0.4375, "samples": texts}
    return {
        "flow": "vanish", "study": "tiny", "question": "Where, and what cures it?", "seeds": [1, 2], "low": 0.25,
        "policies": ["small", "large"], "rewards": ["rouge"], "threshold": 0.05, "reference": "sft_rft", "arms": ARMS,
        "places": [{"seed": seed, "policy": policy, "base": f"{policy}{seed}", "reward": reward}
                   for seed in (1, 2) for policy, reward in PLACES],
        "vanished": [before(*where) for where in PLACES], "followed": "policy", "rows": rows,
        "quarters": [
            {"policy": "small", "reward": "rouge", "arm": arm, "part": part, "std": number(0.1 * part),
             "gain": number(0.1 * part * gain, 0.02)}
            for arm, (gain, _) in GAINS.items() for part in (1, 2, 3, 4)
        ],
        "curves": [
            {"policy": "small", "reward": "rouge", "arm": arm, "seed": seed, "address": f"align/{arm}{seed}",
             "steps": [0, 40, 80], "rewards": [start, start + 0.1, start + gain], "kl": [0.0, 0.5, 1.5]}
            for arm, (gain, _) in GAINS.items() if ARMS[arm]["algorithm"] for seed in (1, 2)
            for start in [0.5 if ARMS[arm]["finetuning"] else 0.2]
        ],
        "labelled": measured,
        "points": [{"policy": "small", "reward": "rouge", "seed": 1, "std": STD, "norm": [3 * std for std in STD],
                    "cut": 0.01, "gains": {arm: [gain * std for std in STD] for arm, (gain, _) in GAINS.items()}}],
        "prompts": [asked | {"end": "least", "prompt": "say <b>it", "std": 0.0, "norm": 0.0},
                    asked | {"end": "most", "prompt": "and that", "std": 0.3125, "norm": None}],
        "sieves": [{"policy": "small", "reward": "rouge", "kept": number(6.0), "dropped": number(2.0),
                    "deferred": number(0.0), "addresses": {"sift": ["sift/1", "sift/2"]}}],
        "advice": [{"policy": "small", "reward": "rouge", "arm": "few_rft", "labels": number(2.0), "sft_steps": 30,
                    "recovered": number(0.8, 0.1), "best": "sft_rft", "alone": number(0.24, 0.1),
                    "without": "rft", "why": "enough"}],
        "controlled": [experiment()],
        "contrasts": [
            contrast("a", "correlation", 0.9, "Held"), contrast("b", "gain", 0.28, "Held", arm="few_rft", than="rft"),
            contrast("c", "gap", -0.4, "Reversed", arm="supervised", controlled="digits"),
            contrast("d", "recovered", 0.02, "Not settled, the interval includes 0", arm="rft", policy="small"),
        ],
        "sentences": [
            "small, rouge: the gradient vanishes where rewards hardly vary. Its norm is 0.012 [0.010, 0.014] there.",
            "small, rouge: the norm grows with the std to the power 0.95 [0.90, 1.00].",
            "large, rouge: the gradient vanishes where rewards hardly vary. Its norm is 0.013 [0.011, 0.015] there.",
            "small, rouge: sft_rft gains most, 0.50 [0.45, 0.55].",
            "small, rouge: 2 inputs are enough: few_rft has 0.80 [0.70, 0.90] of the highest gain.",
            "Intervals are Student's over the means of 2 bases.",
            "Published (2310.20703): SFT on 1 % of the inputs reaches 96% of the reward.",
        ],
    }  # fmt: skip


def without(answer: dict[str, Any], *kept: str) -> dict[str, Any]:
    """What is left of an answer where only these parts have something."""
    names = ("vanished", "rows", "quarters", "curves", "labelled", "points", "prompts", "sieves", "advice")
    return answer | {name: [] for name in (*names, "controlled", "contrasts") if name not in kept}


@pytest.fixture
def answer() -> dict[str, Any]:
    return told()


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(told(), "conclude/0123456789ab")


def test_the_page_is_whole_and_asks_nothing_of_a_network(html):
    check_whole(html)
    check_named_once(html)


def test_no_two_headings_are_the_same(html):
    headings = [words(text) for text in re.findall(r"<h[23][^>]*>(.*?)</h[23]>", html)]
    assert sorted(set(headings)) == sorted(headings)


def test_what_models_write_stays_text(html):
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html
    assert "say &lt;b&gt;it" in html


def test_sections_stand_in_their_order_and_the_answer_first(html):
    ids = re.findall(r'<h2 id="(\w+)"', html)
    assert ids == ["vanished", "gained", "curves", "labels", "prompts", "controlled", "claims", "reading", "from"]
    first = words(html.split('id="answer"')[1].split("</section>")[0])
    assert first.index("small, rouge: the gradient vanishes where rewards hardly vary.") < first.index("Its norm is")
    assert "Published" not in first
    assert "few_rft has 0.80 [0.70, 0.90] of the highest gain." in first


def test_sentences_of_a_place_stand_together_and_its_name_before_the_first(html):
    first = html.split('id="answer"')[1].split("</section>")[0]
    said = [words(text).strip() for text in re.findall(r"<p>(.*?)</p>", first)][1:]
    assert [text.split(" 0.")[0] for text in said] == [
        "small, rouge : the norm grows with the std to the power", "sft_rft gains most,",
        "2 inputs are enough: few_rft has",
        "large, rouge : the gradient vanishes where rewards hardly vary. Its norm is",
    ]  # fmt: skip


def test_one_place_needs_no_name_before_its_sentences(answer):
    answer["vanished"], answer["rows"] = answer["vanished"][:1], []
    html = page.render(without(answer, "vanished") | {"arms": {}, "points": []})
    assert "<p>The norm grows with the std to the power" in html


def test_a_number_that_is_the_same_in_all_runs_has_no_interval(answer):
    answer["rows"][0]["labels"] = number(60.0, 0.0)
    table = page.render(without(answer, "rows")).split('aria-label="Arms, small, rouge"')[1].split("</tr>")[1]
    assert ">60</a><small></small>" in table


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ((), []), (("controlled",), ["controlled"]), (("vanished", "points"), ["vanished"]),
        (("rows", "points"), ["gained"]), (("vanished", "sieves"), ["vanished", "prompts"]),
    ],
)  # fmt: skip
def test_what_is_absent_is_left_out(answer, kept, expected):
    html = page.render(without(answer, *kept))
    assert re.findall(r'<h2 id="(\w+)"', html) == [*expected, "reading", "from"]
    places = set(re.findall(r' id="([^"]+)"', html))
    assert [link for link in re.findall(r'<a [^>]*href="#([^"]+)"', html) if link not in places] == []
    check_whole(html)


def test_a_study_of_nothing_but_controlled_experiments_has_its_page(answer):
    alone = without(answer, "controlled") | {"policies": [], "rewards": [], "arms": {}, "places": [], "reference": None}
    html = page.render(
        alone | {"sentences": ["digits: 1.50 [1.40, 1.60].", "Intervals are over 2 seeds.", "Published."]}
    )
    assert "Study tiny , seeds 1, 2; controlled: digits." in words(html)
    assert re.findall(r"<dt>(.*?)</dt>", html) == [
        "Vanishes", "Modified", "Interval", "What this rests on", "Elsewhere"
    ]  # fmt: skip


def test_what_was_so_before_training_has_its_numbers_with_intervals(html):
    table = html.split('aria-label="Before training"')[1].split("</table>")[0]
    row = table.split('class="stay">small, rouge')[1].split("</tr>")[0]
    cells = re.findall(r">([^<]+)</a><small>([^<]*)</small>", row)
    assert cells[0] == ("0.3", "0.27 to 0.33")
    assert ("1,234", "1,111 to 1,358") in cells
    beside = html.split('aria-label="More, before training"')[1].split("</table>")[0]
    assert re.findall(r'class="n">([^<]+)<', beside)[-4:] == ["Mean, low", "Mean, high", "Prompts", "Samples"]
    cells = re.findall(r">([^<]+)</a><small>([^<]*)</small>", beside.split("</tr>")[1])
    assert cells[-4:] == [("0.0625", "0.0563 to 0.0688"), ("0.25", "0.225 to 0.275"), ("8", ""), ("32", "")]
    assert place("gauge", "small", "rouge") in row


def test_norms_stand_beside_both_bounds_where_these_are_known(html, answer):
    part = html.split("<h3>Norms and their bounds</h3>")[1]
    assert "a share of what limits it, the root of the mean square over prompts" in words(part.split("</p>")[0])
    table = words(part.split('aria-label="Norms and their bounds"')[1].split("</table>")[0])
    assert "small, rouge 0.0021 0.00189 to 0.00231 0.034 0.0306 to 0.0374" in table
    for item in answer["vanished"]:
        item |= {"bound": None, "tighter": None}
    assert "Norms and their bounds" not in page.render(without(answer, "vanished"))


def test_a_place_without_gradients_has_no_scatter_and_no_columns_of_them(answer):
    answer = without(answer, "vanished", "points")
    answer["points"][0]["norm"] = [None] * len(STD)
    for item in answer["vanished"]:
        item |= dict.fromkeys(UNKNOWN)
    html = page.render(answer)
    assert "Norms and stds" not in html
    assert "Norm, low" not in html


def test_arms_are_ranked_with_what_each_does_and_its_gains(html):
    table = html.split('aria-label="Arms, small, rouge"')[1].split("</table>")[0]
    rows = re.findall(r'class="stay rank">(\S+)</td>.*?</span>(.+?)<small[^>]*>([^<]+)</small></th>(.*?)</tr>', table)
    assert [re.sub("<wbr>", "", name) for _, name, *_ in rows] == list(GAINS)
    assert rows[0][:1] + rows[0][2:3] == ("1=", "SFT on all inputs, then rloo")
    first = re.findall(r">([^<]+)</a><small>([^<]*)</small>", rows[0][3])
    assert first[:2] == [("0.5", "0.45 to 0.55"), ("0.4", "0.35 to 0.45")]
    assert first[-1] == ("30 + 80", "")
    beside = html.split('aria-label="More of arms, small, rouge"')[1].split("</table>")[0]
    assert len(re.findall(r"</a><small>", beside)) == len(GAINS) * len(vanished.MORE)
    assert re.findall(r'class="n">([^<]+)<', beside)[:2] == ["Recovered, low", "Recovered, high"]
    assert re.findall(r">([^<]+)</a><small>", beside.split("</tr>")[1])[:2] == ["1", "1"]  # of the reference itself
    heads = re.findall(r'class="n">([^<]+)<', table)
    assert heads == [
        "Gain", "Low std", "High std", "High less low", "After", "Recovered", "KL", "Labels", "Steps"
    ]  # fmt: skip
    assert rows[-1][3].count('aria-label="unknown"') == 1  # of the sifted arm, its labels


@pytest.mark.parametrize(
    ("followed", "expected"),
    [
        ("policy", "of prompts that RLHF draws from, though not each of them came, and whose labels no SFT learnt. It"),
        ("test", "of prompts held out. It"),
    ],
)
def test_which_prompts_were_followed_is_said_and_no_more_than_is_true_of_them(answer, followed, expected):
    html = page.render(answer | {"followed": followed}, "conclude/0123456789ab")
    said = html.split('id="gained"')[1].split("</p>")[0]
    assert f"in reward units, {expected} is measured on other draws than the std." in said
    assert "trained on" not in said


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("rft", "rloo alone"), ("sft", "SFT on all inputs"), ("few_rft", "SFT on 3 % of the inputs, then rloo"),
        ("low_rft", "SFT on 3 % of the low-std inputs, then rloo"), ("sifted", "rloo alone, sifted"),
    ],
)  # fmt: skip
def test_an_arm_is_told_in_words(arm, expected):
    assert vanished.rule(ARMS[arm]) == expected


def test_figures_show_norms_gains_quarters_curves_labels_and_the_controlled_experiment(html):
    labels = [attributes["aria-label"] for tag, attributes in Page(html).tags if tag == "svg"]
    counts = {
        r"^small, rouge, gradient norm against std of the reward at a prompt: 3 points low.*; 6 points high": 1,
        r"^(small|large), rouge, gain, reward units: sft_rft low 0\.40; sft_rft high 0\.53": 2,
        r"^small, rouge, \w+, gain, reward units: least std .*; most std": 6,
        r"^small, rouge, (rft|sft|sft_rft), gain, reward units against initial std": 3,
        r"mean reward, held out while training.*at the end: rft 0\.32; few_rft 0\.90": 1,
        r"KL since RLHF began": 1,
        r"over the labelled inputs: SFT alone 0\.50; SFT, then RLHF 0\.24, 0\.80, 1\.00$": 1,
        r"^digits, gain, reward units: supervised modified 1\.50": 1,
        r"^digits, (supervised|expected_reinforce), (expected reward|gradient norm) while training": 4,
        r"^digits, gradient norm against std of the reward at an input: 2 points modified": 1,
    }  # fmt: skip
    for pattern, count in counts.items():
        assert sum(bool(re.search(pattern, label)) for label in labels) == count, pattern


def test_low_std_is_told_by_the_cut_of_all_that_were_gauged_though_fewer_are_drawn(answer):
    answer["points"][0]["cut"] = 0.05
    html = page.render(without(answer, "vanished", "points"))
    assert "small, rouge, gradient norm against std of the reward at a prompt: 5 points low" in html


def test_captions_say_what_is_settled_in_this_very_figure(html):
    text = words(html)
    assert "2 of 9 prompts lie at 0, at the edge; the median norm of low-std prompts is 0 , of the others 0.45" in text
    assert "the norm grows with the std to the power 0.95 (0.855 to 1.04)." in text
    assert "under low_rft and sft the gap is not settled." in text
    assert f"The quarter of least std gains 0.012 ({MINUS}0.008 to 0.032), not told from 0, that of most 0.048" in text
    assert "Whether the gain goes with the std is not settled: over all runs Spearman 0.02" in text
    assert "After 80 steps sft_rft ends highest, at 1 , from 0.5 ; sifted ends lowest, at 0.31 , from 0.2 ." in text
    told = "SFT, then RLHF: 0.24 (0.14 to 0.34) with no labels; 1 (0.9 to 1.1) with 60 labels."
    assert told in text
    assert f"The gain of the others less that of modified inputs: supervised {MINUS}1.1" in text


def test_the_plainest_arms_are_shown_prompt_by_prompt_and_the_one_that_gained_most():
    assert vanished._plain(dict.fromkeys(GAINS), ARMS) == ["rft", "sft", "sft_rft"]
    assert vanished._plain({"sifted": 0, "rft": 1}, ARMS) == ["rft", "sifted"]
    assert vanished._plain({"few_rft": 0}, ARMS) == ["few_rft"]


def test_the_curve_of_labels_is_of_gains_where_there_is_no_reference(answer):
    for item in (*answer["rows"], *answer["labelled"]):
        item |= dict.fromkeys(("recovered", "recovered_low", "recovered_high"))
    html = page.render(without(answer, "rows", "labelled") | {"reference": None})
    assert "small, rouge, gain, reward units, over the labelled inputs: SFT alone 0.25" in html
    assert "Recovered" not in html


def test_what_labels_are_worth_is_advised_and_told_in_numbers(html):
    part = words(html.split('id="labels"')[1].split("</section>")[0])
    told = "Label 2 inputs and take 30 steps of SFT (few_rft), which has 0.8 (0.7 to 0.9) of the highest gain"
    assert f"{told}; without labels rft has 0.24 (0.14 to 0.34) of it. Why: the fewest labels" in part
    table = html.split('aria-label="Labels, small, rouge"')[1].split("</table>")[0]
    lines = [words(line) for line in table.split("<tr>")[2:]]
    assert "RLHF alone 0 % &ndash; 0 0.12" in lines[1]
    assert "SFT, then RLHF 3 % 2 30 0.4" in lines[2]


def test_prompts_of_either_end_have_their_samples_and_what_is_not_known_is_left_out(html):
    part = words(html.split('id="prompts"')[1].split("</section>")[0])
    assert "std 0 , mean reward 0.438 , gradient norm 0 ." in part
    assert "std 0.312 , mean reward 0.438 . " in part
    assert "reward 0.125 so it goes" in part


def test_the_sieve_is_counted_and_told_from_other_filters(html):
    part = words(html.split("<h3>The sieve</h3>")[1].split("</section>")[0])
    assert "small, rouge 6 2 0" in part
    assert words(sieve.DIFFERENCE)[:60] in part.replace("&#39;", "'")


def test_claims_are_marked_lead_to_what_they_were_judged_on_and_each_unit_has_its_forest(html):
    part = html.split('id="claims"')[1].split("</section>")[0]
    outcomes = re.findall(r'<b class="(\w+)">(\w+)', part)
    assert outcomes == [("held", "Held"), ("held", "Held"), ("reversed", "Reversed"), ("open", "Not")]
    labels = re.findall(r'aria-label="([^":]+): ', part)
    assert labels == ["rank correlation", "reward units", "share recovered"]
    sides = {
        "a": [place("gauge", *where) for where in PLACES],
        "b": [place("from", *where, arm) for where in PLACES for arm in ("few_rft", "rft")],
        "c": [place("control", "digits")], "d": [place("from", "small", "rouge", "rft")],
    }  # fmt: skip
    for name, expected in sides.items():
        entry = html.split(f'id="from/claim/{name}"')[1].split("</ul>")[0]
        assert re.findall(r'href="#([^"]+)">', entry) == expected


def test_whatever_is_a_share_of_the_reference_is_claimed_in_shares_and_read_as_a_ratio_of_means(html):
    assert {vanished.UNITS[name] for name in RECOVERED} == {"share recovered"}
    assert "The mean gain over that of sft_rft." in words(html.split("<dt>Recovered</dt>")[1].split("</dd>")[0])


def test_every_entry_has_its_addresses_each_with_its_seed(html, answer):
    for row in answer["rows"]:
        entry = html.split(f'id="{place("from", *(row[key] for key in ("policy", "reward", "arm")))}"')[1]
        listed = re.findall(r'rmpipe why ([^<]+)</code> <span class="soft">([^<]+)<', entry.split("</ul>")[0])
        assert [address for address, _ in listed] == [one for made in row["addresses"].values() for one in made]
        assert listed[:2] == [(f"score/{row['policy']}{row['arm']}{seed}", f"rewards, seed {seed}") for seed in (1, 2)]
    for target, stage in ((place("gauge", "large", "rouge"), "gauge/large"), (place("sift", "small", "rouge"), "sift/"),
                          (place("control", "digits"), "control/")):  # fmt: skip
        entry = html.split(f'id="{target}"')[1].split("</ul>")[0]
        assert re.findall(r"rmpipe why ([^<]+)</code>", entry) == [f"{stage}1", f"{stage}2"]


def test_the_page_names_its_answer_or_how_to_get_it(html, answer):
    assert "rmpipe why conclude/0123456789ab" in html
    assert "rmpipe rank tiny" in page.render(without(answer))


def test_mlflow_gets_each_figure_once_and_in_the_folder_of_its_heading(html):
    names = [name for name, _ in invocation.figures(html)]
    assert len(names) == html.count("<svg ")
    assert {name.split("/")[1] for name in names} >= {"small-rouge", "digits", "norms-and-stds", "claims"}
