"""The report: everything in one file, readable by those who do not see it, and nothing in it but what was told."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from rmpipe import citation, overoptimisation, page, ranking, scorecard


def cells() -> list[dict]:
    rows = []
    for seed in (1, 2, 3):
        for name, trained, variance, gain in (
            ("<b>off", True, 0.9, 0.3),
            ("truth", False, 0.8, 0.5),
            ("flat", False, 0.05, 0.1),
        ):
            row = {"seed": seed, "policy": "weak", "algorithm": "rloo", "reward_model": name, "kind": "explicit"}
            row |= {"trained": trained, "variance": variance + 0.01 * seed, "accuracy_on": 0.7, "accuracy_off": 0.8}
            rows.append(row | {"truth_gain": gain + 0.01 * seed, "proxy_gain": gain, "kl": 0.2, "length_gain": -1.0})
    return rows


def told() -> dict:
    """An answer as a ranking gives it, small enough to be made at once."""
    rows = cells()
    claims = [{"name": "a", "claim": "far apart teaches more", "higher": "truth", "lower": "flat"}]
    answer = ranking.answer(pd.DataFrame(rows), claims, draws=100)
    names = [{key: row[key] for key in ("policy", "algorithm", "reward_model", "seed")} for row in rows]
    lists = {"steps": [0, 10, 20], "proxy": [0.0, 0.1, 0.2], "truth": [0.0, 0.1, 0.3], "kl": [0.0, 0.1, 0.2]}
    turns = lists | {"truth": [0.0, 0.5, 0.3]}
    answer["curves"] = [name | (turns if name["reward_model"] == "<b>off" else lists) for name in names]
    answer["overoptimisation"] = overoptimisation.answer(answer["curves"])
    answer["variance_per_prompt"] = [
        {"policy": "weak", "reward_model": name["reward_model"], "values": [0.1, 0.5, 0.9]} for name in names[:3]
    ]
    text = {"prompt": "tell me", "before": " ugh & no", "after": " wow <script>alert(1)</script>"}
    rewards = {"proxy_before": -1.0, "proxy_after": 1.0, "truth_before": -0.5, "truth_after": 0.5}
    answer["samples"] = [name | text | rewards for name in names[:3]]
    answer["controls"] = [
        {"policy": "weak"}
        | {f"{a}_{b}": 0.5 for a in ("on", "off") for b in ("longer", "shorter", "constant", "random")}
    ]
    for place, row in enumerate(answer["rows"]):
        row["addresses"] = {
            stage: [f"{stage}/{place:010x}{seed:02}" for seed in (1, 2, 3)] for stage in ("measure", "align")
        }
    about = {"study": "tiny", "question": "Which one?", "ground_truth": "truth", "seeds": [1, 2, 3]}
    return answer | about | {"policies": ["weak"], "algorithms": ["rloo"]}


@pytest.fixture
def answer() -> dict:
    return told()


@pytest.fixture(scope="module")
def html() -> str:
    return page.render(told())


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and that they nest."""

    VOID = ("meta", "br", "wbr", "link", "img", "use", "path", "image", "input")

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in self.VOID:
            return
        assert self.open.pop() == tag


def check_whole(html: str) -> None:
    """Every tag is closed, and nothing is fetched."""
    seen = Page(html)
    assert seen.open == []
    assert not [tag for tag, _ in seen.tags if tag in ("script", "link", "img", "iframe")]
    sources = re.findall(r'(?:src|href|url\()=?["\']?(https?://[^"\')\s]+)', html)
    assert [source for source in sources if "www.w3.org" not in source] == []


def check_named_once(html: str) -> None:
    """No two parts have one name."""
    ids = [attributes["id"] for tag, attributes in Page(html).tags if "id" in attributes and tag != "svg"]
    assert len(ids) == len(set(ids))


def test_the_page_is_whole_and_asks_nothing_of_a_network(html):
    check_whole(html)


def test_every_figure_says_in_words_what_it_shows(html):
    figures = [attributes for tag, attributes in Page(html).tags if tag == "svg"]
    assert (
        len(figures) == 1 + 7 + 1 + 2
    )  # how far to go; two planes, four curves, a spread; one claim; correlations with either gain
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert (
        "Accuracy against variance; the area of a disc is its ground-truth gain: truth 0.52" in figures[2]["aria-label"]
    )
    assert figures[1]["aria-label"].startswith(
        "weak, rloo, ground truth and proxy against the KL from the initial policy"
    )


def test_what_models_write_stays_text(html):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "&lt;b&gt;off" in html
    assert "<b>off" not in html


def test_the_page_takes_its_colours_from_the_reader(html):
    assert "prefers-color-scheme: dark" in html
    assert "#010203" not in html
    assert "currentColor" in html


def test_the_numbers_stand_with_their_intervals_and_addresses(html):
    text = re.sub(r"<[^>]+>", " ", html)
    assert re.search(r"truth\s+explicit, constructed\s+0\.52\s+0\.50 to 0\.54", text)
    assert "measure/000000000001" in text
    assert "Held : ground-truth gain of truth on weak less that of flat" in text


def test_without_a_ground_truth_the_page_warns(answer):
    rows = [{key: value for key, value in row.items() if key != "truth_gain"} for row in cells()]
    told = ranking.answer(pd.DataFrame(rows), draws=100)
    for row in told["rows"]:
        row["addresses"] = {"measure": [], "align": []}
    controls = {f"off_{name}": 0.5 for name in ("longer", "shorter", "constant", "random")}
    html = page.render(answer | told | {"controls": [{"policy": "weak"} | controls]})
    assert "WARNING: no ground truth is known" in html
    assert "What reads no text scores, off policy" in html
    assert "What reads no text scores, on policy" not in html


def far(html: str) -> str:
    """What is said of how far to go, as text."""
    section = html.split('<h2 id="far">')[1].split("</section>")[0]
    text = " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", section, flags=re.DOTALL).split())
    return re.sub(r" ([.;,])", r"\1", text)


def test_where_the_ground_truth_turns_stands_with_its_loss_and_the_advice_in_the_order_of_the_ranks(html):
    told = far(html)
    assert (
        "1 of 3 turns. &lt;b&gt;off loses most, 0.20 sd after a KL of 0.10; its own reward gains 0.10 meanwhile."
        in told
    )
    names = re.findall(r"(truth|off|flat) (has not turned|turns|not settled) (\d+) ", told)
    assert names == [("truth", "has not turned", "20"), ("off", "turns", "10"), ("flat", "has not turned", "20")]
    assert (
        "off turns 10 0.10 0.07 0.07 to 0.07 0.20 0.20 to 0.20 0.10 0.10 to 0.10 stop there, or raise kl_coef" in told
    )


def test_a_first_teacher_that_turns_is_said_to_at_the_answer_already(answer):
    for row in answer["rows"]:
        row["rank"] = "1="
    leads = re.findall(r'<p class="lead">(.*?)</p>', page.render(answer))
    assert re.sub(r"<[^>]+>", "", leads[-1]) == (
        "&lt;b&gt;off turns at step 10, KL 0.10 (fitted 0.07 [0.07, 0.07]), and loses 0.20 [0.20, 0.20] sd of"
        " ground truth by step 20: stop there, or raise kl_coefficient."
    )


def test_without_a_ground_truth_how_far_to_go_cannot_be_told_and_older_answers_say_nothing(answer):
    unknown = {"rows": [], "sentences": [overoptimisation.UNKNOWN]}
    assert far(page.render(answer | {"overoptimisation": unknown})) == f"How far to go {overoptimisation.UNKNOWN}"
    del answer["overoptimisation"]
    html = page.render(answer)
    check_whole(html)
    assert "How far to go" not in html


# -- forecasts --------------------------------------------------------------------------------------------------------


def foretold(answer: dict, *truths: str) -> dict:
    """The same with forecasts: of the five "flat" is refused, and the ground truth gained most."""
    rows, table = [], []
    for truth in truths or ("truth",):
        for name, trained, value, gain in (
            ("<b>off", True, 1.1, 0.3),
            ("truth", False, 1.0, 0.5),
            ("thin", True, 0.3, 0.2),
            ("long", True, 0.2, -0.1),
            ("flat", False, 0.1, 0.1),
        ):
            about = {"truth": truth, "policy": "weak", "algorithm": "rloo", "reward_model": name, "trained": trained}
            row = about | {
                "kind": "explicit",
                "rank": "1=",
                "refused": None,
                "gain": ends(gain),
                "forecast": ends(value),
            }
            rows.append(
                row if name != "flat" else row | {"rank": "?", "forecast": None, "refused": "too few: 0.04 <i>"}
            )
            table += [about | {"seed": seed, "gain": gain, "forecast": value, "variance": -value} for seed in (1, 2)]
    spent = {"samples": 100, "labels": {"truth": 50}, "rlhf_samples": 1000}
    card = scorecard.card(pd.DataFrame(table), draws=50)
    said = ["weak, rloo: <b>off is foretold to teach best, at 1.10 [1.00, 1.20]."]
    return answer | {"forecast": {"rows": rows, "scorecard": card, "sentences": said, "spent": spent}}


def ends(value: float) -> dict:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def foreseen(html: str) -> str:
    """The section on forecasts, without its figures, as text."""
    section = html.split('<h2 id="foreseen">')[1].split("</section>")[0]
    return " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", section, flags=re.DOTALL).split())


def test_the_forecast_stands_beside_what_came_true_with_its_sentences_and_its_rivals(answer):
    html = page.render(foretold(answer))
    check_whole(html)
    told = foreseen(html)
    assert "weak, rloo: &lt;b&gt;off is foretold to teach best, at 1.10 [1.00, 1.20]." in told
    assert "rloo: over 4 reward models (1 constructed), 1 policy and 1 ground truth, the ground truth itself" in told
    assert "1= &lt;b&gt;off explicit 1.10 1.00 to 1.20 0.30 0.20 to 0.40 2 1= truth explicit, constructed 1.00" in told
    assert (
        "? flat explicit, constructed &ndash; 0.10 0.00 to 0.20 3 Not foretold, flat: too few: 0.04 &lt;i&gt;" in told
    )
    assert "off gained most, 0.30 (the ground truth itself aside); the 3 foretold to be first −0.10 to 0.30" in told
    assert "reward variance −1.00" in told
    assert "Before any RLHF, from samples" in told
    assert "tilted" not in told
    assert '<a href="#foreseen">' in html


def test_what_was_paid_for_is_neither_drawn_nor_told_as_foretold(answer):
    told = foretold(answer)
    for row in told["forecast"]["rows"]:
        row |= {"gain_foretold": ends(0.77), "calibrates": row["reward_model"] == "thin"}
    html = page.render(told | {"forecast": told["forecast"] | {"paid": ["thin"]}})
    text = foreseen(html)
    assert "Before any RLHF but that of thin, which was paid for, from samples" in text
    assert "thin explicit 0.30 0.20 to 0.40 paid for 0.20" in text
    assert "Paid for, and not drawn: thin." in text
    (label,) = re.findall(r'aria-label="Forecast against what came true, ([^"]*)"', html)
    assert "long 0.77" in label
    assert "thin" not in label


def test_the_tilted_policy_and_the_best_of_n_stand_side_by_side_by_the_first_truth_alone(answer):
    told = foretold(answer, "truth", "tone")
    names = ["<b>off", "truth", "flat"]
    path = {"eta": [0.0, 1.0, 2.0], "kl": [0.0, 0.5, 9.0], "ess": [1.0, 0.5, 0.1], "gain": [0.0, 0.4, 0.2], "turn": 1.0}
    place = {"policy": "weak", "least": 0.25}
    tilted = [place | path | {"truth": truth, "algorithm": algorithm, "reward_model": name}
              for truth in ("truth", "tone") for algorithm in ("rloo", "grpo") for name in names]  # fmt: skip
    best = [{"truth": truth, "policy": "weak", "reward_model": name, "n": [1, 2], "gain": [0.0, 0.5]}
            for truth in ("truth", "tone") for name in names]  # fmt: skip
    html = page.render(told | {"forecast": told["forecast"] | {"tilted": tilted, "best_of_n": best}})
    check_whole(html)
    assert html.count('aria-label="Tilted policy, weak, rloo, ') == html.count('aria-label="Best of n, weak, ') == 1
    assert "grpo, tilted" not in html
    text = foreseen(html)
    assert "a line ends where too few of the samples carry it further" in text
    assert "2 of 2 turn, " in text


def test_each_ground_truth_has_forecasts_of_its_own_and_ranks_are_by_the_studys(answer):
    told = foreseen(page.render(foretold(answer, "truth", "tone")))
    assert told.count("Its rank") == 1
    for truth in ("truth", "tone"):
        assert f"weak, rloo, by {truth}: the forecast beside what came true" in told


def test_a_forecast_of_which_nothing_came_true_is_told_alone(answer):
    told = foretold(answer)
    for row in told["forecast"]["rows"]:
        row["gain"] = None
    html = page.render(told | {"forecast": told["forecast"] | {"scorecard": None, "spent": {}}})
    check_whole(html)
    assert "is foretold to teach best" in html
    assert "How forecasts did" not in foreseen(html)


def test_an_older_answer_has_no_forecast(html):
    assert "foretold" not in html.lower()


def test_what_was_measured_and_what_was_taught_lead_to_their_own_addresses(html, answer):
    for row in answer["rows"]:
        for stage, addresses in row["addresses"].items():
            target = citation.place("from", row["policy"], row["algorithm"], row["reward_model"], stage)
            entry = html.split(f'id="{target}"')[1].split("</ul>")[0]
            assert re.findall(r"rmpipe why ([^<]+)</code> <span class=\"soft\">seed (\d)", entry) == [
                (address, str(seed)) for seed, address in enumerate(addresses, 1)
            ]


def test_the_page_names_its_ranking_or_how_to_get_it(html, answer):
    assert "rmpipe why rank/0123456789ab" in page.render(answer, "rank/0123456789ab")
    assert "rmpipe rank tiny" in html


def test_what_no_text_is_read_for_is_said_once_a_policy(answer):
    rows = [row | {"algorithm": "grpo"} for row in answer["rows"]]
    both = answer | {"rows": answer["rows"] + rows, "algorithms": ["rloo", "grpo"]}
    assert page.render(both).count("What reads no text scores, on policy") == 1
