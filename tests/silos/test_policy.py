"""The silo's policy and approvals: what they refuse, in which words, and what a person sees."""

from dataclasses import replace
from pathlib import Path

import pytest

import coterie
from coterie import Communication, Mistake
from coterie.core.digests import digest
from coterie.silos.approvals import Approvals
from coterie.silos.audit_log import AuditLog
from coterie.silos.guard import guard_answers
from coterie.silos.policy import DEFAULT_POLICY, Policy
from coterie.silos.run_description import Departure, RunDescription, describe_run, description_from
from coterie.silos.verify_log import verify
from tests.federations import dense, ragged

RUN = RunDescription(
    run="heart",
    digest=digest(b"rounds = 20"),
    algorithm="fedavg",
    models=("mlp",),
    data=("csv", "sha256:" + "a" * 64),
    rounds=20,
    clients=1,
    leaves=(Departure("delta", 4, 2600, 1),),
    message_bytes=2600,
)


def policy(tmp_path: Path, **lines: str) -> Policy:
    """The default policy with some lines replaced; None removes one."""
    kept = [x for x in DEFAULT_POLICY.splitlines() if x.partition(" = ")[0] not in lines]
    path = tmp_path / "policy.toml"
    path.write_text("\n".join([*kept, *(f"{key} = {value}" for key, value in lines.items() if value)]))
    return Policy.load(path)


def test_the_default_policy_allows_what_comes_with_coterie(tmp_path: Path) -> None:
    ours = policy(tmp_path)
    assert ours.approve == "new runs"
    assert ours.judge(RUN) == []
    assert ours.judge(replace(RUN, models=("timm:resnet18", "cnn"))) == []


@pytest.mark.parametrize(
    ("lines", "run", "sentence"),
    [
        ({}, {"models": ("mlp", "ours.nets:wide")}, 'the run needs "ours.nets:wide", which is code from outside and'),
        ({}, {"algorithm": "x:y"}, 'the run needs "x:y", which is code from outside and must be named (algorithms)'),
        ({"algorithms": '["fbn"]'}, {}, 'the run needs "fedavg", and the policy allows fbn (algorithms)'),
        ({"models": "[]"}, {}, 'the run needs "mlp", and the policy allows none (models)'),
        ({"data": '["csv"]'}, {}, 'the run reads "sha256:aaaaaaaa'),
        ({"max_rounds": "19"}, {}, "the run has 20 rounds, and max_rounds is 19"),
        ({"max_message_bytes": "2599"}, {}, "a message has 2,600 bytes, and max_message_bytes is 2,599"),
        (
            {"max_epsilon": "8.0"},
            {},
            "the run bounds no privacy loss, and max_epsilon is 8; its file must state epsilon in [privacy], or with "
            'unit = "client" noise_multiplier and delta',
        ),
        ({"max_epsilon": "8.0"}, {"epsilon": 9.5}, "the run's epsilon is 9.5, and max_epsilon is 8"),
        ({"max_epsilon": "8.0"}, {"epsilon": float("nan")}, "the run's epsilon is nan, and max_epsilon is 8"),
    ],
)
def test_each_line_refuses_what_breaks_it(
    tmp_path: Path, lines: dict[str, str], run: dict[str, object], sentence: str
) -> None:
    found = policy(tmp_path, **lines).judge(replace(RUN, **run))
    assert len(found) == 1
    assert found[0].startswith(sentence)


def test_own_names_digests_and_a_small_epsilon_are_allowed(tmp_path: Path) -> None:
    lines = {"models": '["mlp", "ours:net"]', "data": f'["csv", "sha256:{"a" * 64}"]', "max_epsilon": "8"}
    ours = policy(tmp_path, **lines)
    assert ours.judge(replace(RUN, models=("ours:net",), epsilon=8.0)) == []


def test_several_broken_lines_give_several_sentences(tmp_path: Path) -> None:
    assert len(policy(tmp_path, max_rounds="1", algorithms='["fbn"]').judge(RUN)) == 2


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ({"max_rouds": "5"}, "max_rouds = 5: there is no such key; did you mean max_rounds?"),
        ({"approve": '"sometimes"'}, 'approve = "sometimes": it must be "always", "new runs" or "never"'),
        ({"approve": "true"}, "approve = true: it must be"),
        ({"algorithms": '"fedavg"'}, "algorithms = .*: it must be a list of names in quotes"),
        ({"max_rounds": "true"}, "max_rounds = true: it must be a whole number"),
        ({"max_rounds": "0"}, "max_rounds = 0: it must be"),
        ({"max_epsilon": "inf"}, "max_epsilon = inf: it must be a number above 0"),
        ({"approve_facts": '"yes"'}, 'approve_facts = "yes": it must be true or false'),
        ({"approve": '"never"', "approve_facts": "true"}, "approve_facts = true: a person approves facts, and approve"),
        ({"models": ""}, "models is missing; it must be a list of names"),
    ],
)
def test_a_policy_that_cannot_be_read_is_refused_with_its_file(
    tmp_path: Path, lines: dict[str, str], sentence: str
) -> None:
    with pytest.raises(Mistake, match=f"policy.toml: {sentence}"):
        policy(tmp_path, **lines)


def test_without_a_policy_nothing_may_run(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="without one nothing may run here"):
        Policy.load(tmp_path / "policy.toml")
    (tmp_path / "policy.toml").write_bytes(b"\xff = 1")
    with pytest.raises(Mistake, match="is not TOML"):
        Policy.load(tmp_path / "policy.toml")


def test_a_new_run_waits_until_it_is_approved_and_then_goes_on_by_itself(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path / "approvals")
    assert approvals.begin(RUN, "new runs") == (
        f"the run heart waits for approval at this silo: coterie deploy approve {RUN.digest[:12]}"
    )
    (waiting,) = approvals.all()
    assert (waiting.state, waiting.description) == ("pending", RUN)
    assert approvals.approve(RUN.digest[:12], by="Dr. Ada").by == "Dr. Ada"
    for _ in range(2):
        assert Approvals(tmp_path / "approvals").begin(RUN, "new runs") is None


def test_the_same_experiment_in_another_run_folder_need_not_be_approved_again(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.begin(RUN, "new runs")
    approvals.approve("heart")
    assert approvals.begin(replace(RUN, run="heart-again"), "new runs") is None
    (known,) = approvals.all()
    assert (known.state, known.description.run) == ("approved", "heart-again")
    approvals.revoke("heart-again")
    assert f"coterie deploy approve {RUN.digest[:12]} lets it" in str(approvals.begin(RUN, "new runs"))


def test_always_asks_each_time_and_never_asks_nobody(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    assert approvals.begin(RUN, "always")
    approvals.approve("heart")
    assert approvals.begin(RUN, "always") is None
    assert "waits for approval" in str(approvals.begin(RUN, "always"))
    assert Approvals(tmp_path / "none").begin(RUN, "never") is None
    assert not (tmp_path / "none").exists()


def test_an_approval_is_for_what_was_shown(tmp_path: Path) -> None:
    """The same experiment file that would now send more, as with another version of coterie, waits again."""
    approvals = Approvals(tmp_path)
    approvals.begin(RUN, "new runs")
    approvals.approve("heart")
    more = replace(RUN, leaves=(*RUN.leaves, Departure("statistics", 2, 80, 1)))
    assert "waits for approval" in str(approvals.begin(more, "new runs"))


def test_a_revoked_run_does_not_begin_and_gets_no_further_answer(tmp_path: Path) -> None:
    approvals, log = Approvals(tmp_path / "approvals"), AuditLog(tmp_path / "audit.jsonl", "north")
    approvals.begin(RUN, "new runs")
    approvals.approve("heart")
    ours = policy(tmp_path, max_message_bytes="10")
    answers = {b"ask": b"answer", b"more": b"a long answer"}
    answer = guard_answers(
        answers.__getitem__,
        ours,
        lambda request: approvals.is_revoked(RUN.digest),
        log,
        lambda request, why: why.encode(),
    )
    assert answer(b"ask") == b"answer"
    assert answer(b"more") == b"a message has 13 bytes, and max_message_bytes is 10"
    assert answer(b"much too long") == b"a message has 13 bytes, and max_message_bytes is 10"
    approvals.revoke("heart", by="Dr. Ada")
    assert answer(b"ask") == b"the run was revoked at this silo"
    assert "was revoked" in str(approvals.begin(RUN, "new runs"))
    notes = [e["note"] for e in verify(tmp_path / "audit.jsonl").entries if e["what"] == "note"]
    assert notes == ["held back", "refused", "refused"]


def test_names_that_are_unknown_or_of_several_runs_are_refused(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    with pytest.raises(Mistake, match="no run of the name or digest heart asked here; there are none"):
        approvals.approve("heart")
    approvals.begin(RUN, "new runs")
    approvals.begin(replace(RUN, digest=digest(b"rounds = 21")), "new runs")
    with pytest.raises(Mistake, match="2 runs of the name or digest heart"):
        approvals.approve("heart")
    with pytest.raises(Mistake, match="is not the sha256 of an experiment"):
        approvals.begin(replace(RUN, digest="../../etc/passwd"), "new runs")


@pytest.mark.parametrize("damage", ["", "{}", '{"state": "approved"}', "approved"])
def test_a_damaged_approval_is_none(tmp_path: Path, damage: str) -> None:
    approvals = Approvals(tmp_path)
    approvals.begin(RUN, "new runs")
    (tmp_path / f"{RUN.digest}.json").write_text(damage)
    with pytest.raises(Mistake, match="is damaged"):
        approvals.begin(RUN, "new runs")


def test_an_approval_of_another_run_is_none(tmp_path: Path) -> None:
    approvals = Approvals(tmp_path)
    approvals.begin(RUN, "new runs")
    approvals.approve("heart")
    other = replace(RUN, digest=digest(b"other"))
    (tmp_path / f"{RUN.digest}.json").rename(tmp_path / f"{other.digest}.json")
    with pytest.raises(Mistake, match="belongs to another run"):
        approvals.begin(other, "new runs")


def test_what_a_person_reads_and_its_way_through_a_file() -> None:
    assert RUN.sentences()[2] == "in each round and for each client delta (4 tensors, 2,600 bytes) leaves"
    assert description_from(RUN.record()) == RUN


def test_a_description_of_a_plan_has_all_that_leaves() -> None:
    """FBN's first round measures, so its statistics leave first and its delta from the second round on. The codec
    counts: of 2 bytes a number, and whole buffers."""
    options = {"rounds": 5, "up": Communication("float16")}
    recipe = coterie.fbn(lr=0.1, variant="paper", warm_start=1)
    plan = coterie.plan(recipe, dense().float(), ragged(), **options)
    found = describe_run(plan, "heart", RUN.digest, "fbn", ["mlp"], ["csv"])
    by_part = {d.part: d for d in found.leaves}
    assert {part: d.from_round for part, d in by_part.items()} == {"statistics": 1, "delta": 2}
    numbers = sum(p.numel() for p in dense().parameters())
    assert by_part["delta"].bytes == 2 * numbers
    last = list(coterie.federate(recipe, dense().float(), ragged(), **options))[-1]
    assert last.bytes_up == last.reached * sum(d.bytes for d in found.leaves)
    assert found.message_bytes >= len(plan.ids) * by_part["delta"].bytes
