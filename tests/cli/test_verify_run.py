"""`infer verify DIR`: a run of `infer eval` holds, and every forgery of it is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infer_cli.answering.reply import digest
from infer_cli.evaluation.runs.folder import RunFolder
from infer_cli.system.hashing import sha256_hex
from tests.cli.test_verify import redigested
from tests.cli_helpers import infer, one_error_line, script, verify
from tests.evaluation.runs.run_helpers import SUMS, evaluate, write_pairs, write_sums
from tests.tiny_gguf import write_tiny_gguf

Json = dict[str, Any]


def lines_of(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write(path: Path, lines: list[Json]) -> None:
    """As `infer` writes them."""
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def change(path: Path, number: int, how: Callable[[Json], object]) -> None:
    lines = lines_of(path)
    how(lines[number])
    write(path, lines)


def change_object(path: Path, how: Callable[[Json], object], *, indent: int | None = 1) -> None:
    value = json.loads(path.read_bytes())
    how(value)
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=True) + "\n")


def covered_up(run: Path) -> None:
    """What a careful forger does last: hashes and scores that fit the changed files."""
    folder = RunFolder(run)

    def rehash(facts: Json) -> None:
        for path in (folder.items, folder.requests, folder.examples):
            facts["files"][path.name] = sha256_hex(path.read_bytes())
        facts["task"]["sha256"] = sha256_hex(folder.task.read_bytes())

    change_object(folder.facts, rehash)
    assert infer("rescore", run, "--quiet").code == 0


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a sampled run with examples."""
    folder = tmp_path_factory.mktemp("honest")
    task = SUMS + '\n[fewshot]\nn = 2\nanswer = "{{ answer }}"\ndraw = "seeded"\nseed = 3\n'
    path, data = write_sums(folder, task=task)
    arguments = ("-t", 0.5, "--seed", 4, "--seeds", 2)
    assert evaluate(path, "--data", data, "-o", folder / "run", *arguments).code == 0
    return folder


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    """A copy of the honest run, whose data lie where it says."""
    shutil.copytree(honest / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_holds(run: Path, honest: Path) -> None:
    before = made_of(run)
    done = verify(run)
    assert done.code == 0, done
    assert done.text == (
        "holds: the score of sums, version 1, on 6 items\n"
        f"  task: a file of its author, sha256 {sha256_hex((run / 'task.toml').read_bytes())[:16]}: read it,"
        " it says what is scored\n"
        f"  items: made again of the data, {honest / 'sums.jsonl'}\n"
        "  scores: all replies scored again\n"
        "  replies: 12 of 12 answered again and the same, of 12 in all\n"
    )
    done = verify(run, "--tokens")
    assert done.code == 0
    assert "  replies: 12 of 12 checked by their tokens and the same, of 12 in all\n" in done.text
    assert "another model that is as near is not told apart" in done.text
    done = infer("verify", run, "--fraction", 0.3, "--challenge", "mine")
    assert "4 of 12 rows were answered again, drawn by --challenge mine: one forged row is found" in done.text
    found = verify(run, "--json").json
    assert (found["holds"], found["findings"], found["judge"]) == (True, [], None)
    assert found["data"]["compared"] is True  # type: ignore[index]
    assert made_of(run) == before


def made_of(run: Path) -> dict[Path, bytes]:
    """All files of a run but those that say what a check has found."""
    found = {path for path in run.rglob("*") if path.is_file()} - {run / "results.json", run / "report.html"}
    return {path: path.read_bytes() for path in found}


def test_data_that_are_not_here_or_are_others(run: Path, honest: Path, tmp_path: Path) -> None:
    change_object(run / "run.json", lambda facts: facts["data"].update(path="/no/such/data.jsonl"))
    done = verify(run)
    assert done.code == 0
    assert "  items: made again of the rows in the folder; whether these are the data's is not" in done.text
    assert "items: made again of the data" in verify(run, "--data", honest / "sums.jsonl").text
    other = tmp_path / "other.jsonl"
    other.write_bytes((honest / "sums.jsonl").read_bytes().replace(b"question 3", b"question 4"))
    done = verify(run, "--data", other)
    assert done.code == 9
    assert "run.json: its data have the hash " in done.text


# --- forgeries ------------------------------------------------------------------------------------


def edited_reference(run: Path) -> None:
    change(run / "items.jsonl", 2, lambda item: item.update(references=["is 1!"]))


def edited_group(run: Path) -> None:
    change(run / "items.jsonl", 2, lambda item: item.update(group="odd"))


def edited_doc(run: Path) -> None:
    change(run / "items.jsonl", 2, lambda item: item["doc"].update(answer="is 1!"))


def edited_prompt(run: Path) -> None:
    change(run / "requests.jsonl", 2, lambda row: row.update(prompt="is 1!"))


def edited_seed(run: Path) -> None:
    change(run / "requests.jsonl", 2, lambda row: row.update(seed=9))


def swapped_items(run: Path) -> None:
    lines = lines_of(run / "items.jsonl")
    write(run / "items.jsonl", [lines[1], lines[0], *lines[2:]])


def removed_item(run: Path) -> None:
    write(run / "items.jsonl", lines_of(run / "items.jsonl")[:-1])
    write(run / "requests.jsonl", lines_of(run / "requests.jsonl")[:-2])


def added_request(run: Path) -> None:
    lines = lines_of(run / "requests.jsonl")
    write(run / "requests.jsonl", [*lines, lines[-1]])


def other_examples(run: Path) -> None:
    lines = lines_of(run / "fewshot.jsonl")
    lines[0]["doc"]["answer"] = "nothing"
    write(run / "fewshot.jsonl", lines)


def edited_template(run: Path) -> None:
    path = run / "task.toml"
    path.write_text(path.read_text().replace('text = "{{ question }}"', 'text = "{{ question }}!"'))


def edited_scorer(run: Path) -> None:
    path = run / "task.toml"
    path.write_text(path.read_text().replace('kind = "contains"', 'kind = "not_empty"'))


def edited_score(run: Path) -> None:
    change(run / "samples.jsonl", 0, lambda sample: sample["scores"].update(has=1.0))


def edited_extraction(run: Path) -> None:
    change(run / "samples.jsonl", 0, lambda sample: sample.update(extracted="is 0!"))


def edited_outcome(run: Path) -> None:
    change(run / "samples.jsonl", 0, lambda sample: sample.update(outcome="cut"))


def removed_sample(run: Path) -> None:
    write(run / "samples.jsonl", lines_of(run / "samples.jsonl")[:-1])


def edited_value(run: Path) -> None:
    change_object(run / "results.json", lambda results: results["scores"][0].update(value=1.0))


def edited_interval(run: Path) -> None:
    change_object(run / "results.json", lambda results: results["scores"][0].update(ci=[0.99, 1.0]))


def edited_hash(run: Path) -> None:
    change_object(run / "results.json", lambda results: results["hashes"].update(model="0" * 64))


def edited_data_hash(run: Path) -> None:
    change_object(run / "results.json", lambda results: results["hashes"].update(data="0" * 64))


def edited_limit(run: Path) -> None:
    change_object(run / "results.json", lambda results: results.update(n=100, n_asked=100))


def edited_kind(run: Path) -> None:
    change_object(run / "run.json", lambda facts: facts["task"].update(version="2"))


def edited_sampling(run: Path) -> None:
    change_object(run / "run.json", lambda facts: facts["generation"].update(max_tokens=5))


def edited_n_items(run: Path) -> None:
    change_object(run / "run.json", lambda facts: facts.update(n_items=5))


def reply_of(run: Path, number: int, how: Callable[[Json], object]) -> None:
    """Change a reply as honestly as can be."""

    def forge(line: Json) -> None:
        how(line)
        redigested(line)

    change(run / "replies.jsonl", number, forge)


def edited_answer(run: Path) -> None:
    reply_of(run, 0, lambda line: line.update(text="is 0! is 1! is 2! is 3! is 4! is 5!"))


def edited_token(run: Path) -> None:
    reply_of(run, 0, lambda line: line["tokens"].__setitem__(0, 65))


def edited_end(run: Path) -> None:
    reply_of(run, 0, lambda line: line.update(finish_reason="length"))


def edited_reply_seed(run: Path) -> None:
    reply_of(run, 0, lambda line: line.update(seed=line["seed"] + 1))


def swapped_replies(run: Path) -> None:
    lines = sorted(lines_of(run / "replies.jsonl"), key=lambda line: line["row"])  # of two seeds
    for name in ("text", "tokens", "finish_reason", "usage", "seed", "run_seed", "digest"):
        lines[0][name], lines[-1][name] = lines[-1][name], lines[0][name]
    write(run / "replies.jsonl", lines)


def removed_reply(run: Path) -> None:
    write(run / "replies.jsonl", lines_of(run / "replies.jsonl")[1:])


def of_another_model(run: Path) -> None:
    change(run / "replies.jsonl", 0, lambda line: line["model"].update(sha256="0" * 64))


FORGERIES: dict[Callable[[Path], None], str] = {
    edited_reference: "items.jsonl, requests.jsonl: the references of item 'q2' are not what the task makes",
    edited_group: "items.jsonl, requests.jsonl: the group of item 'q2' are not what the task makes",
    edited_doc: "the digest of its doc is not the one beside it",
    edited_prompt: "items.jsonl, requests.jsonl: the requests of item 'q1' are not what the task makes",
    edited_seed: "items.jsonl, requests.jsonl: the requests of item 'q1' are not what the task makes",
    swapped_items: "item 'q1' has the index 1, it is number 0",
    removed_item: "items.jsonl, requests.jsonl: these are 5 items, run.json has 6",
    added_request: "has more rows than",
    other_examples: "fewshot.jsonl",
    edited_template: "run.json: its task.template_sha256 is",
    edited_scorer: "task.toml: its hash is",
    edited_score: "samples.jsonl: line 1: its scores.has is 1.0, scored again it is 0.0",
    edited_extraction: "samples.jsonl: line 1: its extracted is 'is 0!'",
    edited_outcome: "samples.jsonl: line 1: its outcome is 'cut'",
    removed_sample: "samples.jsonl: line 12 is missing",
    edited_value: "results.json: its scores[0].value is 1.0",
    edited_interval: "results.json: its scores[0].ci[0] is 0.99",
    edited_hash: "results.json: its hashes.model is '0000",
    edited_data_hash: "results.json: its hashes.data is '0000",
    edited_limit: "results.json: its n is 100, scored again it is 6",
    edited_kind: "run.json: its task.version is '2', task.toml has another",
    edited_sampling: "run.json: its generation is not that of task.toml",
    edited_n_items: "run.json: it has 5 items, and of 6 rows 6 were selected",
    edited_answer: "its text is 'is 0!",
    edited_token: "differs at token 0: 'A' (65)",
    edited_end: "it ended with length, now with stop",
    edited_reply_seed: "its seed is ",
    swapped_replies: "its run_seed is ",
    removed_reply: "no reply to row ",
    of_another_model: "its model.sha256 is '0000",
}


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_forgeries_are_named(run: Path, forge: Callable[[Path], None]) -> None:
    forge(run)
    done = verify(run)
    assert done.code == 9, done
    words = FORGERIES[forge].removeprefix("its template_sha256 is") or "task.template_sha256 is"
    assert words in done.text, done.text
    assert (
        "does not hold: the score of sums, version 1" in done.text
        or "does not hold: the score of sums, version 2" in done.text
    )


# Of the others nothing is left to be seen once hashes and scores fit: the task is then another one, openly.
QUIET: tuple[Callable[[Path], None], ...] = (
    edited_reference, edited_group, edited_prompt, edited_seed, other_examples, edited_template,
    edited_answer, edited_token, edited_end, edited_reply_seed, swapped_replies, removed_reply,
)  # fmt: skip


@pytest.mark.parametrize("forge", QUIET, ids=lambda forge: forge.__name__)
def test_forgeries_are_found_where_hashes_and_scores_fit(run: Path, forge: Callable[[Path], None]) -> None:
    forge(run)
    covered_up(run)
    done = verify(run)
    assert done.code == 9, done
    assert "does not hold: the score of sums, version 1" in done.text


def test_items_that_are_left_out_are_found_by_the_data(run: Path, honest: Path) -> None:
    """A forger who drops an item, and says that there were never more."""
    removed_item(run)
    change_object(run / "run.json", lambda facts: (facts.update(n_items=5), facts["data"].update(n_all=5)))
    lines = [line for line in lines_of(run / "replies.jsonl") if line["row"] < 10]
    write(run / "replies.jsonl", lines)
    change_object(run / "replies.jsonl.job" / "job.json", lambda job: job.update(n_rows=10))
    covered_up(run)
    done = verify(run)
    assert done.code == 9
    assert "item 'q5' is missing" in done.text
    change_object(run / "run.json", lambda facts: facts["data"].update(path="/no/such"))
    covered_up(run)
    done = verify(run)
    assert done.code == 0  # what the data were is its author's word, and it says so
    assert "whether these are the data's is not known here" in done.text


def test_files_that_are_gone_are_findings(run: Path) -> None:
    for name in ("fewshot.jsonl", "items.jsonl", "samples.jsonl", "results.json"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        done = verify(run)
        assert done.code == 9, done
        assert f"{name}: it is missing" in done.text
        assert "Traceback" not in done.err
        (run / name).write_bytes(kept)


def test_a_python_task_runs_only_where_that_is_allowed(run: Path) -> None:
    (run / "task.toml").unlink()
    (run / "task.py").write_text("raise SystemExit('it ran')")
    one_error_line(verify(run), 2, "is a Python task", "--allow-code")


def test_a_task_that_comes_with_infer_is_known(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "How many?", "answer": "It is so. #### 3"}\n' * 1)
    assert evaluate("gsm8k", "--data", data, "-o", tmp_path / "run").code == 0
    done = verify(tmp_path / "run")
    assert done.code == 0, done
    assert "  task: the one that comes with infer\n" in done.text
    copy = tmp_path / "run" / "task.toml"
    copy.write_text(copy.read_text() + "\n# mine\n")
    covered_up(tmp_path / "run")
    assert "  task: a file of its author, sha256 " in verify(tmp_path / "run").text


def test_likelihoods(tmp_path: Path) -> None:
    path, data = write_pairs(tmp_path)
    run = tmp_path / "run"
    assert evaluate(path, "--data", data, "-o", run).code == 0
    assert "  replies: 12 of 12 answered again and the same, of 12 in all" in verify(run).text
    assert verify(run, "--tokens").code == 0
    change(run / "items.jsonl", 1, lambda item: item.update(choices=item["choices"][::-1]))
    covered_up(run)
    assert "the choices of item '1' are not what the task makes of its row" in verify(run).text


JUDGED = SUMS.replace('kind = "contains"\nname = "has"', "") + (
    'kind = "judge"\nname = "grade"\nverdict = "last_number"\nmin = 0\nmax = 10\n'
    'prompt = "Grade {{ answer }} from 0 to 10"\n'
)


def test_a_judge_is_checked_too(tmp_path: Path) -> None:
    path, data = write_sums(tmp_path, 3, task=JUDGED)
    run, judge = tmp_path / "run", script(tmp_path, default_reply="It is worth 7.")
    assert evaluate(path, "--data", data, "-o", run, "--judge", judge).code == 0
    done = verify(run)
    assert done.code == 0, done
    assert "  judge: 3 of 3 answered again and the same, of 3 in all\n" in done.text

    def better(line: Json) -> None:
        line.update(text="It is worth 9.", tokens=[*b"It is worth 9.", 258])
        line["digest"] = digest(
            line["tokens"], line["text"], line["finish_reason"], line["seed"], line["params"]
        )

    change(run / "judge.jsonl", 0, better)
    covered_up(run)
    done = verify(run)
    assert done.code == 9
    assert "judge: row 0 (q" in done.text
    change(run / "judge_requests.jsonl", 1, lambda row: row.update(prompt="Say 10"))
    assert "judge_requests.jsonl: line 2 is not what is asked of the answers" in verify(run).text
    Path(judge.partition(":")[2]).unlink()
    done = verify(run)
    assert done.code in (3, 9)
    assert "Traceback" not in done.err


def test_flags_have_their_place(run: Path, tmp_path: Path) -> None:
    one_error_line(verify(run, "--input", run / "requests.jsonl"), 2, "--input has no meaning for a run")
    one_error_line(
        verify(run / "replies.jsonl", "--data", "x"), 2, "--data has no meaning for a results file"
    )
    one_error_line(verify(tmp_path), 2, "no directory of a run of `infer eval`: it has no run.json")
    (run / "replies.jsonl").unlink()
    one_error_line(verify(run), 2, "has no reply yet")


def test_a_model_that_is_another(tmp_path: Path) -> None:
    path, data = write_pairs(tmp_path)
    one, other = (write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2))
    assert evaluate(path, "--data", data, "-o", tmp_path / "run", model=str(one)).code == 0
    assert verify(tmp_path / "run", "-m", one).code == 0
    done = verify(tmp_path / "run", "-m", other)
    assert done.code == 9
    assert "  the model's sha256 was " in done.text
    one_error_line(verify(tmp_path / "run"), 3, "-m")


@pytest.mark.weights
def test_a_run_of_the_real_model(smollm2: Path, tmp_path: Path) -> None:
    """Sampled, so that its seed matters too."""
    path, data = write_sums(tmp_path, 3)
    run, model = tmp_path / "run", ("-m", smollm2)
    arguments = ("-t", 1, "--seed", 3, "-n", 12)
    assert evaluate(path, "--data", data, "-o", run, *arguments, model=str(smollm2)).code == 0
    assert verify(run, *model).code == 0
    honest = tmp_path / "honest"
    shutil.copytree(run, honest)
    for forge in (edited_token, edited_answer, edited_reply_seed, edited_score):
        forge(run)
        for check in ((), ("--tokens",)):
            done = verify(run, *model, *check)
            assert done.code == 9, (forge, done)
            assert "does not hold" in done.text
        shutil.rmtree(run)
        shutil.copytree(honest, run)

    def drawn_anew(line: Json) -> None:
        """With another seed, and says that it was not."""
        line.update({name: other[line["row"]][name] for name in ("tokens", "text", "finish_reason", "usage")})

    again = tmp_path / "again"
    arguments = ("-t", 1, "--seed", 4, "-n", 12)
    assert evaluate(path, "--data", data, "-o", again, *arguments, model=str(smollm2)).code == 0
    other = {line["row"]: line for line in lines_of(again / "replies.jsonl")}
    reply_of(run, 0, drawn_anew)
    covered_up(run)
    for check in ((), ("--tokens",)):
        done = verify(run, *model, *check)
        assert done.code == 9, done
        assert re.search("differs (by .* )?at token|its tokens differ by ", done.text), done.text


def test_a_part_of_a_run_has_no_score_to_verify(tmp_path: Path) -> None:
    task, data = write_sums(tmp_path)
    run = tmp_path / "part"
    assert evaluate(task, "--data", data, "-o", run, "--shard", "1/2").code == 0
    done = infer("verify", run, "--fraction", "1")
    one_error_line(done, 2, "is part 1/2 of a run", f"infer verify {run}/replies.jsonl")
    assert infer("verify", run / "replies.jsonl", "-m", "fake", "--fraction", "1").code == 0


def test_what_a_run_lacks_is_named(tmp_path: Path) -> None:
    one_error_line(infer("verify", tmp_path / "none", "--allow-code"), 2, "no file", "none")
    task, data = write_sums(tmp_path)
    run = tmp_path / "run"
    assert evaluate(task, "--data", data, "-o", run).code == 0
    shutil.rmtree(f"{run}/replies.jsonl.job")
    for command in ("verify", "rescore"):
        one_error_line(infer(command, run), 2, "replies.jsonl.job is missing")
    (run / "replies.jsonl").unlink()
    for command in ("verify", "rescore"):
        one_error_line(infer(command, run), 2, "has no reply yet")
