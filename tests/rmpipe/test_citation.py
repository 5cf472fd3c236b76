"""Citations: every number leads somewhere, names cannot break a page, and Tab stops once at each place."""

from __future__ import annotations

from rmpipe import citation

ROW = {"policy": "weak", "algorithm": "rloo", "reward_model": 'a "b"<c>/d', "kl": {"value": -0.5}}


def test_the_numbers_of_a_sentence_lead_on_and_its_intervals_do_not():
    told = citation.linked("gain of a<b is -0.41 [-0.05, 0.86] (3 seeds), as high in 0.8% of orders", "here")
    assert told == (
        'gain of a&lt;b is <a class="n" href="#here">\N{MINUS SIGN}0.41</a> [\N{MINUS SIGN}0.05, 0.86] (3 seeds),'
        ' as high in <a class="n" href="#here">0.8%</a> of orders'
    )


def test_a_name_with_a_number_in_it_is_no_number():
    assert citation.linked("under v0.5 and 2503", "here") == "under v0.5 and 2503"


def test_any_name_makes_an_id_that_a_link_reaches():
    target = citation.entry(ROW, "kl")
    assert target == "from/weak/rloo/a%20%22b%22%3Cc%3E%2Fd/align"
    assert f'href="#{target}"' in citation.cite(ROW, "kl")


def test_gains_and_distance_come_from_teaching_all_else_from_measuring():
    stages = [citation.entry(ROW, name).rsplit("/", 1)[1] for name in ("truth_gain", "kl", "variance", "covariance")]
    assert stages == ["align", "align", "measure", "measure"]


def test_each_target_is_in_the_order_of_the_tab_key_once():
    html = "".join(citation.link(number, target) for number, target in ((0.1, "a"), (0.2, "b"), (0.3, "a")))
    assert citation.once(html).count('tabindex="-1"') == 1
    assert citation.once(html).endswith('<a class="n" tabindex="-1" href="#a">0.30</a>')


def test_a_claim_names_the_cells_that_it_compares_and_no_namesake():
    rows = [{"policy": "weak", "algorithm": algorithm, "reward_model": name} for algorithm in ("rloo", "grpo")
            for name in ("off", "offset", "truth")]  # fmt: skip
    said = "Held: ground-truth gain of truth on weak less that of offset on weak (grpo) is 0.20"
    judged = {"policy": "weak", "algorithm": "grpo", "sentence": said}
    found = citation.compared(judged, rows)
    assert [(row["algorithm"], row["reward_model"]) for row in found] == [("grpo", "offset"), ("grpo", "truth")]


def test_a_ladder_that_names_none_leads_to_all_of_its_policy():
    rows = [{"policy": policy, "algorithm": "rloo", "reward_model": "a"} for policy in ("weak", "strong")]
    judged = {"policy": "weak", "algorithm": "rloo", "sentence": "Held: over 5 of 5 reward models"}
    assert citation.compared(judged, rows) == rows[:1]
