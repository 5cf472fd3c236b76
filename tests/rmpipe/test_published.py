"""Somebody's reward models as a study names them: what counts of them, what is refused, and which template is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rmpipe.config import StudyError, digest, identity
from rmpipe.reward import Kind
from rmpipe.text import encode

OURS = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
THEIRS = "{% for m in messages %}the {{ m['content'] }} kettle {% endfor %}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parse(**table):
    return Kind.parse({"kind": "pretrained", **table}, "reward_models.theirs")


@pytest.fixture(scope="module")
def scorer(base, tmp_path_factory):
    """A reward model on the base, with a chat template of its own."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("scorer")
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=1).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = OURS
    tokenizer.save_pretrained(folder)
    return folder


# -- what counts ------------------------------------------------------------------------------------------------------


def test_no_new_field_moves_an_old_address():
    old = {"kind", "trust_remote_code", "form", "output", "dtype", "max_length", "truncate"}
    assert identity(parse(path="some/model")).keys() == old
    assert parse(path="some/model", revision="abc").content() == "some/model@abc"


def test_a_template_and_a_base_count_by_what_they_hold_and_not_by_their_place(tmp_path, scorer):
    for name, text in (("a.jinja", OURS), ("b.jinja", OURS), ("c.jinja", THEIRS)):
        (tmp_path / name).write_text(text)
    plain, *told = [parse(path=str(scorer), **more) for more in (
        {}, *({"chat_template": str(tmp_path / name)} for name in ("a.jinja", "b.jinja", "c.jinja"))
    )]  # fmt: skip
    assert len({digest(identity(kind)) for kind in (plain, *told)}) == 1
    assert plain.content() != told[0].content() == told[1].content() != told[2].content()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base", "revision": "v1"}))
    named, given = parse(path=str(adapter)), parse(path=str(adapter), base_path="other/base")
    assert named.content().endswith(" some/base@v1")
    assert given.content().endswith(" other/base@main")
    assert parse(path="some/adapter", base_path="other/base").content() == "some/adapter@main other/base@main"


def test_what_no_revision_pins_is_said(tmp_path, scorer):
    loose, named, pinned = (parse(path="some/model", revision=each) for each in (None, "v2", COMMIT))
    assert loose.describe() == "pretrained: some/model, which no revision pins"
    assert named.describe() == "pretrained: some/model at v2"
    assert parse(path=str(scorer)).describe() == f"pretrained: {scorer}"
    assert [kind.pinned for kind in (loose, named, pinned, parse(path=str(scorer)))] == [False, False, True, True]
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    assert not parse(path=str(tmp_path)).pinned
    assert parse(path=str(tmp_path), base_path=str(scorer)).pinned


def test_the_base_of_an_adapter_is_said_where_nothing_pins_it(tmp_path, scorer, monkeypatch):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    assert parse(path=str(tmp_path)).describe() == f"pretrained: {tmp_path}, on some/base, which no revision pins"
    assert parse(path=str(tmp_path), base_path=str(scorer)).describe() == f"pretrained: {tmp_path}"
    whole = parse(path="some/adapter", revision=COMMIT)
    assert (whole.pinned, whole.describe()) == (True, f"pretrained: some/adapter at {COMMIT}")
    cached = {("some/adapter", "adapter_config.json", COMMIT): str(tmp_path / "adapter_config.json")}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda place, file, revision=None: cached.get((place, file, revision))
    )
    assert not whole.pinned
    assert whole.describe().endswith(f" at {COMMIT}, on some/base, which no revision pins")
    assert whole.content() == f"some/adapter@{COMMIT}"  # whatever is in the cache


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_will_not_do_is_refused_with_its_field_before_anything_is_loaded(tmp_path, base, scorer):
    parse(path=str(scorer)).check()
    parse(path="some/model").check()
    (tmp_path / "broken.jinja").write_text("{% for %}")
    whole = shutil.copytree(scorer, tmp_path / "whole")
    (whole / "model.safetensors").unlink()
    faults = {
        r"^path: .* is a language model and scores nothing": parse(path=str(base)),
        r"^path: .*weights as safetensors missing": parse(path=str(whole)),
        r"^base_path: .* is a whole model and no adapter; leave": parse(path=str(scorer), base_path="some/base"),
        r"^chat_template: .*none.jinja: no such file": parse(path=str(scorer), chat_template="none.jinja"),
        r"^chat_template: .*cannot be loaded .*; mend the template": parse(
            path=str(scorer), chat_template=str(tmp_path / "broken.jinja")
        ),
    }
    for told, kind in faults.items():
        with pytest.raises(StudyError, match=told):
            kind.check()


@pytest.mark.parametrize("kind", ["pretrained", "judge"])
def test_code_of_the_hub_is_run_at_a_commit_only(kind):
    there = {"path": "some/model", "trust_remote_code": True, "kind": kind}
    for revision in (None, "main", COMMIT[:7]):
        with pytest.raises(StudyError, match=r"^revision: code that comes with some/model .*; set it to a commit that"):
            parse(**there, revision=revision).check()
    parse(**there, revision=COMMIT).check()
    parse(**there | {"trust_remote_code": False}).check()


def test_code_of_an_adapter_s_base_is_not_run_from_a_branch(tmp_path):
    told = {"path": "some/adapter", "revision": COMMIT, "base_path": "some/base"}
    parse(**told).check()
    with pytest.raises(StudyError, match=r"^base_path: code that comes with some/base .*; give a folder with the code"):
        parse(**told, trust_remote_code=True).check()


def test_a_study_of_unread_code_is_planned_and_not_run(monkeypatch):
    from rmpipe.study import Study

    studies = Path(__file__).parents[2] / "flows/studies"
    monkeypatch.setattr("rmpipe.teaching.check", lambda *_: None)
    change = f"reward_models.armorm.revision={COMMIT}"
    for name in ("mixes", "public"):
        with pytest.raises(StudyError, match=r"^reward_models.armorm.revision: code that comes with RLHFlow/ArmoRM"):
            Study.read(studies / f"{name}.toml").check_sources()
        Study.read(studies / f"{name}.toml", [change]).check_sources()
        assert f"rmpipe run {name} --set {change.partition('=')[0]}=COMMIT" in (studies / f"{name}.toml").read_text()


def test_a_study_names_the_reward_model_and_the_field(base):
    from rmpipe.study import Study

    pocket = Path(__file__).parents[2] / "flows/studies/pocket.toml"
    theirs = f'reward_models.theirs = {{kind = "pretrained", path = "{base}"}}'
    with pytest.raises(StudyError, match=r"^reward_models.theirs.path: .*scores nothing"):
        Study.read(pocket, [theirs]).check_sources()


# -- what is read -----------------------------------------------------------------------------------------------------


def test_policy_and_reward_model_each_read_by_their_own_template(tmp_path, base, scorer):
    from transformers import AutoTokenizer

    (tmp_path / "theirs.jinja").write_text(THEIRS)
    kind = parse(path=str(scorer), chat_template=str(tmp_path / "theirs.jinja"))
    messages = [{"role": "user", "content": "is"}]
    policy = AutoTokenizer.from_pretrained(base)
    policy.chat_template = "{% for m in messages %}oh {{ m['content'] }} {% endfor %}you "
    words = policy.convert_ids_to_tokens
    plain, theirs = (each.scorer(None) for each in (parse(path=str(scorer)), kind))
    assert words(plain.ids([messages], ["fine"])[0]) == ["<unk>", "is", "<unk>", "fine"]
    assert words(theirs.ids([messages], ["fine"])[0]) == ["the", "is", "kettle", "the", "fine", "kettle"]
    assert words(encode(policy, messages, "fine")) == ["<bos>", "oh", "is", "you", "fine", "<eos>"]
    assert AutoTokenizer.from_pretrained(scorer).chat_template == OURS
    assert not np.allclose(plain([messages], ["fine"]), theirs([messages], ["fine"]))
    assert kind.tokens(kind.tokenizer(), messages, "fine") == 6


def test_an_adapter_s_length_is_that_of_its_base(tmp_path, base):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    kind = parse(path=str(tmp_path))
    assert kind.context() == 128
    assert kind.tokenizer().vocab_size > 0
    assert parse(path=str(tmp_path), max_length=5).context() == 5
    assert parse(path=str(tmp_path), base_path="some/base").tokenizer() is None
