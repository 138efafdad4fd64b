"""`infer verify`: a batch's results hold, or which rows do not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infer_cli.answering.reply import digest
from infer_cli.batch.job import OutputFormat, job_path
from infer_cli.batch.job_reading import read_job
from infer_cli.batch.output_index import parse_line
from infer_cli.checking.claims import claims_of
from infer_cli.checking.comparison import NOT_CHECKED
from infer_cli.checking.results import chance_of_finding, forged_rows_found
from infer_cli.errors import UsageError
from infer_cli.runtime.engine_facts import fingerprint
from tests.batch_helpers import batch, lines, prompts, write_rows
from tests.cli_helpers import REPO, Outcome, infer, one_error_line, script, verify
from tests.tiny_gguf import write_tiny_gguf


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl", *prompts(20))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def row_of(line: dict[str, Any]) -> int:
    return int((line.get("infer") or line)["row"])


def change(out: Path, row: int, how: Callable[[dict[str, Any]], object]) -> None:
    found = lines(out)
    how(next(line for line in found if row_of(line) == row))
    out.write_text("".join(json.dumps(line) + "\n" for line in found))


def redigested(line: dict[str, Any], into: dict[str, Any] | None = None) -> None:
    """Give a line, or what it is to become, the digest of what it says."""
    values = (line[name] for name in ("tokens", "text", "finish_reason", "seed", "params"))
    line["digest"] = digest(*values)
    if into is not None:
        into.update(line)


@pytest.mark.parametrize("mode", [[], ["--fast"], ["--invariant", "--parallel", 3]])
@pytest.mark.parametrize("how", [[], ["-t", 2, "--seed", 4, "--samples", 2, "--stop", "qu", "--top-k", 9]])
@pytest.mark.parametrize("form", ["infer", "openai"])
def test_a_batch_holds(rows: Path, out: Path, mode: list[object], how: list[object], form: str) -> None:
    write_rows(
        rows,
        *prompts(4),
        {"prompt": "own", "temperature": 1, "seed": 8, "max_tokens": 3},
        {"prompt": "system", "system": "Be brief.", "custom_id": "s", "stop": "y"},
    )
    assert batch(rows, "-o", out, "-n", 9, "--system", "Hi.", "--output-format", form, *mode, *how).code == 0
    done = verify(out)
    n = 12 if how else 6
    assert (done.code, done.text) == (0, f"holds: {n} of {n} replies\n")
    assert ("only the seed" in done.err) == (mode == ["--fast"])


def test_rows_are_drawn_by_what_their_author_can_not_know(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    drawn = [infer("verify", out) for _ in range(2)]
    told = [
        re.fullmatch(
            r"holds: 1 of 1 replies\n1 of 20 rows were answered again, drawn by --challenge (\w{16}): one"
            r" forged row is found with a chance of 5%, one of 19 with 95%\n",
            done.text,
        )
        for done in drawn
    ]
    assert all(told)
    assert len({match[1] for match in told if match}) == 2
    by_hand = ("--fraction", 0.3, "--challenge", "of mine", "--json")
    found = infer("verify", out, *by_hand).json
    assert found == {
        "holds": True, "replies": 6, "same": 6, "rows": 6, "rows_in_all": 20, "challenge": "of mine",
        "check": "answers", "margin": None, "farthest": None, "mean_margin": None, "farthest_mean": None,
        "missing": [], "differences": [], "unchecked": [], "reasons": [],
    }  # fmt: skip
    for row in range(20):
        change(out, row, lambda line: redigested({**line, "text": "no"}, line))
    chosen = [infer("verify", out, *by_hand).json["differences"] for _ in range(2)]
    assert len(chosen[0]) == 6  # type: ignore[arg-type]
    assert chosen[0] == chosen[1]
    other = infer("verify", out, "--fraction", 0.3, "--challenge", "another", "--json").json["differences"]
    assert other != chosen[0]
    one_error_line(verify(out, "--challenge", "x"), 2, "--challenge has no meaning")


def test_what_a_sample_finds() -> None:
    assert chance_of_finding(20, 20, 1) == 1
    assert chance_of_finding(20, 1, 1) == pytest.approx(0.05)
    assert chance_of_finding(20, 6, 2) == pytest.approx(1 - 14 / 20 * 13 / 19)
    n, chance = forged_rows_found(20, 1)
    assert n == 19
    assert chance == pytest.approx(0.95)
    assert forged_rows_found(1000, 50)[0] == 57
    assert forged_rows_found(2, 1) == (2, 1.0)


def test_what_was_changed_is_named(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "-t", 0.1, "--seed", 2).code == 0
    change(out, 1, lambda line: line.update(text="no"))
    change(out, 2, lambda line: line.update(digest="sha256:" + "0" * 64))

    def other_token(line: dict[str, Any]) -> None:
        line["tokens"][3] = 65
        redigested(line)

    def other_text(line: dict[str, Any]) -> None:
        line["text"] += "!"
        redigested(line)

    def other_seed(line: dict[str, Any]) -> None:
        line["seed"] += 1
        redigested(line)

    def other_params(line: dict[str, Any]) -> None:
        line["params"]["surprise"] = 1
        redigested(line)

    for row, how in enumerate((other_token, other_text, other_seed, other_params), 3):
        change(out, row, how)
    done = verify(out)
    assert done.code == 9
    assert done.text.splitlines() == [
        "row 1: its digest is not that of what the line says",
        "row 2: its digest is not that of what the line says",
        "row 3: differs at token 3: 'A' (65), now ' ' (32)",
        "row 4: its text is 'You said: question number 4!', now 'You said: question number 4'",
        *[line for line in done.text.splitlines() if line.startswith("row 5: its seed is ")],
        "row 6: its surprise is 1, the row asks for None",
        "does not hold: 6 of 20 replies differ",
    ]
    (third,) = (d for d in verify(out, "--json").json["differences"] if d["row"] == 3)  # type: ignore[attr-defined]
    assert third == {
        "row": 3, "custom_id": "3", "sample": 0, "what": "differs", "token": 3, "was": 65, "now": 32,
    }  # fmt: skip


def test_openai_form_is_held_to_its_text_and_digest(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out, "--output-format", "openai").code == 0
    found = lines(out)
    found[0]["response"]["body"]["choices"][0]["message"]["content"] = "no"
    found[1]["infer"]["digests"] = ["sha256:0"]
    out.write_text("".join(json.dumps(line) + "\n" for line in found))
    done = verify(out)
    assert done.code == 9
    assert "its text is 'no'" in done.text
    assert "its digest is another" in done.text
    shutil.rmtree(f"{out}.job")
    one_error_line(verify(out, "--input", rows), 2, "job's file is not there")


def test_rows_that_changed_or_went(rows: Path, out: Path) -> None:
    assert batch(rows, "-o", out).code == 0
    write_rows(rows, "another", *prompts(19)[1:])
    done = verify(out)
    assert done.code == 9
    assert done.text == (
        "row 0: the row of the input says something else\n"
        "row 19: the input has no such row\n"
        "does not hold: 2 of 20 replies differ\n"
    )
    write_rows(rows, *prompts(22))
    done = verify(out)
    assert (done.code, done.text) == (0, "holds: 20 of 20 replies\n")
    assert "no reply to rows 20, 21 of the input" in done.err  # they came later


def test_another_model(rows: Path, out: Path, tmp_path: Path) -> None:
    one, other = (write_tiny_gguf(tmp_path / f"{seed}.gguf", seed=seed) for seed in (1, 2))
    assert batch(rows, "-o", out, "--raw", "-n", 5, model=str(one)).code == 0
    one_error_line(verify(out), 3, "-m")
    assert verify(out, "-m", one).text == "holds: 20 of 20 replies\n"
    done = verify(out, "-m", other)
    assert done.code == 9
    assert "  the model's sha256 was " in done.text


def test_another_engine_is_named_as_the_likely_reason(rows: Path, out: Path, tmp_path: Path) -> None:
    model = script(tmp_path, default_reply="before")
    assert batch(rows, "-o", out, model=model).code == 0
    assert verify(out).code == 0
    script(tmp_path, default_reply="after")

    def elsewhere(value: dict[str, Any]) -> None:
        """Of a line's engine, or of a job: another build."""
        facts = value["facts"] if "facts" in value else value["engine"]
        facts["llama_cpp"] = "0.1"
        value["fingerprint"] = fingerprint(facts)

    for row in range(20):
        change(out, row, lambda line: elsewhere(line["engine"]))
        change(out, row, lambda line: line["engine"].update(llama_cpp="0.1"))
    job = json.loads(job_path(out).read_text())
    elsewhere(job)
    job_path(out).write_text(json.dumps(job))
    done = verify(out)
    assert done.code == 9
    assert re.search(r"^row 7: differs by \d+\.\d\d at token \d: '.' \(\d+\), now '", done.text, re.M)
    assert f"fingerprint was {job['fingerprint']}, is " in done.text
    assert "llama_cpp was 0.1, is fake" in done.text
    script(tmp_path, default_reply="before")
    done = verify(out)  # all the same: nothing is wrong, but it is told
    assert done.code == 0
    assert done.text.startswith("holds: 20 of 20 replies\nchecked by their tokens: each is at most ")
    assert "llama_cpp was 0.1, is fake" in done.err


def test_lines_are_enough_without_the_job(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(6), {"prompt": "own", "temperature": 2, "seed": 3})
    arguments = ("-t", 1, "--seed", 5, "--parallel", 3, "--system", "Hi.", "--ctx", 400, "-n", 390)
    assert batch(rows, "-o", out, *arguments).code == 0
    shutil.rmtree(f"{out}.job")
    one_error_line(verify(out), 2, "--input")
    assert verify(out, "--input", rows, "--system", "Hi.").text == "holds: 7 of 7 replies\n"
    done = verify(out, "--input", rows)
    assert done.code == 9
    assert "its prompt had " in done.text


def test_a_reply_that_filled_its_window_ends_there_again(rows: Path, out: Path, tmp_path: Path) -> None:
    model = script(tmp_path, default_reply="word " * 100)
    assert batch(rows, "-o", out, "--ctx", 300, "-n", 290, model=model).code == 0
    assert {line["finish_reason"] for line in lines(out)} == {"context"}
    assert verify(out).code == 0
    shutil.rmtree(f"{out}.job")
    assert verify(out, "--input", rows).code == 0


def test_a_reply_that_a_deadline_cut_is_compared_as_a_prefix(rows: Path, out: Path, tmp_path: Path) -> None:
    write_rows(rows, {"prompt": "slow", "deadline": "700ms"}, {"prompt": "bad", "temprature": 1}, "good")
    model = script(tmp_path, step_s=0.05, default_reply="word " * 10)
    assert batch(rows, "-o", out, model=model).code == 8
    assert [line["finish_reason"] for line in sorted(lines(out), key=lambda line: line["row"])][:2] == [
        "deadline",
        "error",
    ]
    script(tmp_path, default_reply="word " * 10)
    assert verify(out).text == "holds: 3 of 3 replies\n"
    script(tmp_path, default_reply="other " * 10)
    assert verify(out).text.startswith("row 0: differs at token 0")


def test_what_is_no_results_file(rows: Path, out: Path, tmp_path: Path) -> None:
    one_error_line(verify(tmp_path / "none"), 2, "none")
    one_error_line(verify(rows, "--input", rows), 2, "line 1")
    assert batch(rows, "-o", out).code == 0
    for fraction in ("0", "1.5", "-1", "nan"):
        one_error_line(infer("verify", out, "--fraction", fraction), 2, "--fraction")
    whole = out.read_bytes()
    out.with_name("whole").write_bytes(whole)
    out.write_bytes(whole[:-20])
    done = verify(out)
    last = lines(out.with_name("whole"))[-1]["row"]
    assert done.code == 9
    assert done.text == f"no reply to row {last} of the job\ndoes not hold: 0 of 19 replies differ\n"
    assert "torn" in done.err
    out.write_bytes(whole + whole[: whole.index(b"\n") + 1])
    one_error_line(verify(out), 2, "answered twice")
    first = lines(out)[0]
    for name, bad in (
        ("tokens", "x"), ("tokens", [-1]), ("params", None), ("digest", 3), ("seed", -1), ("sample", -1),
        ("finish_reason", "x"), ("engine", {}), ("model", None), ("usage", {}), ("custom_id", 5), ("text", 5),
        ("error", 5), ("error", {"code": "x"}), ("logprobs", 5),
    ):  # fmt: skip
        out.write_text(json.dumps({**first, name: bad}) + "\n")
        done = verify(out)
        assert done.code in (2, 9), (name, done)
        assert "Traceback" not in done.err
    shutil.rmtree(f"{out}.job")
    facts = first["engine"]["facts"]
    wrong: list[tuple[str, object]] = [
        ("mode", "x"), ("width", 0), ("threads", "x"), ("type_k", "x"), ("type_v", ["f16"]),
        ("flash_attn", 1), ("devices", 1), ("devices", [1]), ("gpu_layers", "x"), ("gpu_layers", -1),
        ("adapters", {"ab": 1.0}), ("repack", "x"), ("weights", "f64"), ("kv_unified", 5),
    ]  # fmt: skip
    for name, fact in wrong:
        claimed = {**facts, name: fact}
        engine = {**first["engine"], "fingerprint": fingerprint(claimed), "facts": claimed}
        out.write_text(json.dumps({**first, "engine": engine}) + "\n")
        one_error_line(verify(out, "--input", rows), 2, name)
    for params in ({"temperature": "x"}, {"temperature": float("nan")}, {"stop": 1}, {"stop": [""]}):
        out.write_text(json.dumps({**first, "params": {**first["params"], **params}}) + "\n")
        assert verify(out, "--input", rows).code == 9


# --- forgeries ------------------------------------------------------------------------------------

Path_ = tuple[Any, ...]  # of keys and indices


def leaves(value: object, path: Path_ = ()) -> Iterator[Path_]:
    """Where the plain values of a line are; lists of tokens count as one."""
    if isinstance(value, dict) and value:
        for key, of in value.items():
            yield from leaves(of, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        for i, of in enumerate(value):
            yield from leaves(of, (*path, i))
    else:
        yield path


def without_texts(line: dict[str, Any]) -> dict[str, Any]:
    """A line with alternatives that are keyed by their texts as one value: other rows have others."""
    new: dict[str, Any] = json.loads(json.dumps(line))
    for choice in ((new.get("response") or {}).get("body") or {}).get("choices", ()):
        if "text" in choice:
            choice["logprobs"]["top_logprobs"] = []
    return new


def dotted(path: Path_) -> str:
    return ".".join(map(str, path))


def edit(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return str(int(value) + 1) if value.isdecimal() else value + "x"
    if isinstance(value, list):
        return [edit(value[0]), *value[1:]] if value else ["x"]
    return {"x": 1} if isinstance(value, dict) else "x"


def edited(line: dict[str, Any], path: Path_) -> dict[str, Any]:
    new = json.loads(json.dumps(line))
    of = new
    for key in path[:-1]:
        of = of[key]
    of[path[-1]] = edit(of[path[-1]])
    return dict(new)


def is_refused(out: Path, line: dict[str, Any]) -> bool:
    """Whether the file is refused as a whole for this line."""
    parsed = parse_line(json.dumps(line).encode() + b"\n", 0, 1)
    if parsed is None:
        return True
    try:
        claims_of(parsed, read_job(out))
    except UsageError:
        return True
    return False


FORGED = ["row", "sample", "infer.row"]  # these move a line to another row's place: tests of their own


@pytest.mark.parametrize("form", ["infer", "openai"])
@pytest.mark.parametrize("way", ["chat", "completion"])
def test_every_field_is_checked_or_listed(rows: Path, out: Path, form: OutputFormat, way: str) -> None:
    """A row for each field of an honest line, edited there."""
    how = ("-t", 1, "--seed", 3, "--samples", 2, "--logprobs", 2, "-n", 3, "--output-format", form)
    raw = ("--raw",) if way == "completion" else ()
    write_rows(rows, *prompts(2))
    assert batch(rows, "-o", out, *how, *raw).code == 0
    paths = [path for path in leaves(without_texts(lines(out)[0])) if dotted(path) not in FORGED]
    write_rows(rows, *prompts(len(paths)))
    assert batch(rows, "-o", out, *how, *raw).code == 0
    first: dict[int, dict[str, Any]] = {}
    for line in lines(out):
        first.setdefault(row_of(line), line)
    refused = {path for row, path in enumerate(paths) if is_refused(out, edited(first[row], path))}
    new = []
    for line in lines(out):
        row = row_of(line)
        chosen = first[row]["custom_id"] == line["custom_id"] and line == first[row]
        new.append(edited(line, paths[row]) if chosen and paths[row] not in refused else line)
    honest = out.read_bytes()
    out.write_text("".join(json.dumps(line) + "\n" for line in new))
    found = verify(out, "--json").json
    differing = {d["row"] for d in found["differences"]}  # type: ignore[attr-defined]
    undetected = {
        dotted(path) for row, path in enumerate(paths) if path not in refused and row not in differing
    }
    listed = NOT_CHECKED[form]
    assert {path for path in undetected if not any(f"{path}.".startswith(f"{of}.") for of in listed)} == set()
    told = {dotted(path) for path in paths} & listed | {
        path.partition(".")[0] for path in undetected
    } & listed
    assert told == {of for of in listed if of != "error.message"}, (
        "a field is listed and checked all the same"
    )
    assert found["unchecked"] == []
    for path in refused:  # one is enough: they are all told alike
        out.write_bytes(honest)
        change(out, paths.index(path), lambda line, path=path: line.update(edited(line, path)))  # type: ignore[misc]
        one_error_line(verify(out), 2, "row ")
        break


def test_the_page_lists_what_is_checked(rows: Path, out: Path) -> None:
    table = [
        re.findall(r"(?<!\\)\|([^|]*)", line)[:3]
        for line in (REPO / "docs/verify.md").read_text("utf-8").splitlines()
        if re.fullmatch(r"\| .* \| (always|drawn|not checked)\b.*\|", line)
    ]
    forms: list[OutputFormat] = ["infer", "openai"]
    for column, form in enumerate(forms):
        named = [(name, row[2]) for row in table for name in re.findall("`([^`]+)`", row[column])]
        assert {name for name, how in named if "not checked" in how} == NOT_CHECKED[form]
        write_rows(rows, "one", {"prompt": "two", "temprature": 1})
        batch(rows, "-o", out.with_name(form), "--output-format", form, "--logprobs", 1)
        for line in lines(out.with_name(form)):
            for path in map(dotted, leaves(line)):
                prefixes = {path.rsplit(".", n)[0] for n in range(path.count(".") + 1)}
                above = any(name.startswith(f"{path}.") for name, _ in named)  # null here
                assert above or prefixes & {name for name, _ in named}, path


def forge(rows: Path, out: Path, row: int, how: Callable[[dict[str, Any]], object], *words: str) -> Outcome:
    """The outcome with one row of an honest file forged: it does not hold, and says `words` of it."""
    honest = out.read_bytes()
    change(out, row, how)
    done = verify(out)
    assert done.code == 9, done
    for word in words:
        assert word in done.text, done.text
    out.write_bytes(honest)
    return done


def test_a_deadline_that_nobody_asked_for(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(3), {"prompt": "hurry", "deadline": 20})
    assert batch(rows, "-o", out).code == 0

    def cut(line: dict[str, Any]) -> None:
        line.update(finish_reason="deadline", text="anything at all", tokens=line["tokens"][:1])
        redigested(line)

    def failed(line: dict[str, Any]) -> None:
        cut(line)
        line["error"] = {"code": 7, "message": "the deadline ended the reply after 1 tokens"}

    forge(rows, out, 1, cut, "row 1: its error is not that of its finish_reason")
    forge(rows, out, 1, failed, "row 1: a deadline is said to have ended it, and none was asked for")
    # Where one was asked for, it is a prefix without text.
    forge(rows, out, 3, failed, "row 3: its text is 'anything at all', now None")

    def wrong_count(line: dict[str, Any]) -> None:
        failed(line)
        line["text"] = None
        redigested(line)

    forge(rows, out, 3, wrong_count, "row 3: its usage.completion_tokens is ")

    def whole(line: dict[str, Any]) -> None:
        line.update(finish_reason="deadline", text=None, error={"code": 7, "message": "late"})
        redigested(line)

    forge(rows, out, 3, whole, "row 3: its text is None, now 'You said: hurry'")
    # The job's own, before the first token.
    out.unlink()
    assert batch(rows, "-o", out, "--deadline", "0.0001ms", "--redo").code == 8
    assert {line["finish_reason"] for line in lines(out)} >= {"deadline"}
    assert verify(out).code == 0
    shutil.rmtree(f"{out}.job")
    assert verify(out, "--input", rows).code == 9
    assert verify(out, "--input", rows, "--deadline", "1s").code == 0


def test_a_row_that_is_said_to_have_failed(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(4), {"prompt": "slip", "temprature": 1}, {"prompt": "x" * 4000})
    assert batch(rows, "-o", out).code == 8
    assert verify(out).text == "holds: 6 of 6 replies\n"
    found = {line["row"]: line for line in lines(out)}

    def failing(code: int) -> Callable[[dict[str, Any]], None]:
        def change_it(line: dict[str, Any]) -> None:
            keys = {name: line[name] for name in ("id", "custom_id", "row", "row_sha256")}
            line.update({**found[4], **keys, "error": {"code": code, "message": "no"}})

        return change_it

    for code in (1, 2, 5):
        forge(rows, out, 1, failing(code), f"row 1: it failed with code {code}, and the row can be answered")
    forge(rows, out, 4, failing(5), "row 4: it failed with code 5, now with 2: unknown key")
    forge(rows, out, 5, failing(2), "row 5: it failed with code 2, now with 5: the prompt is")

    def answered(line: dict[str, Any]) -> None:
        keys = {name: line[name] for name in ("id", "custom_id", "row", "row_sha256")}
        line.update({**found[0], **keys})

    forge(rows, out, 4, answered, "row 4: the row can't be answered")
    # What the machine did can't be asked again, and is named.
    change(out, 1, failing(11))
    change(out, 2, failing(6))
    done = verify(out)
    assert (done.code, done.text) == (
        0,
        "row 1: can't be checked: it says that llama.cpp crashed on this row\n"
        "row 2: can't be checked: it says that memory ran out on this row\n"
        "holds: 4 of 6 replies\n",
    )
    change(out, 1, lambda line: line.update(text="no", digest=redigest(line, "no")))
    assert "row 1: it has failed, and has a reply" in verify(out).text


def redigest(line: dict[str, Any], text: str) -> str:
    return digest(line["tokens"], text, line["finish_reason"], line["seed"], line["params"])


def test_a_failure_of_the_engine_is_asked_again(rows: Path, out: Path, tmp_path: Path) -> None:
    write_rows(rows, *prompts(3))
    model = script(tmp_path, nan_after=0)
    assert batch(rows, "-o", out, model=model).code == 8
    assert verify(out).text == "holds: 3 of 3 replies\n"
    script(tmp_path)
    assert "row 0: it failed with code " in (text := verify(out).text)
    assert "and now it is answered" in text


@pytest.mark.parametrize("form", ["infer", "openai"])
def test_rows_are_swapped_doubled_or_taken_out(rows: Path, out: Path, form: str) -> None:
    ids: list[dict[str, object]] = [{"prompt": f"question {i}", "custom_id": f"id{i}"} for i in range(5)]
    write_rows(rows, *ids)
    assert batch(rows, "-o", out, "-t", 1, "--seed", 4, "--samples", 2, "--output-format", form).code == 0
    honest = lines(out)

    def written(new: list[dict[str, Any]]) -> Outcome:
        out.write_text("".join(json.dumps(line) + "\n" for line in new))
        return verify(out)

    swap = {"id1": "id2", "id2": "id1"}
    done = written([{**line, "custom_id": swap.get(line["custom_id"], line["custom_id"])} for line in honest])
    assert done.code == 9
    assert "its custom_id is 'id2', the row's is 'id1'" in done.text
    one_error_line(written([*honest, honest[0]]), 2, "answered twice")
    done = written([line for line in honest if row_of(line) != 3])
    assert done.code == 9
    assert "no reply to row 3 of the job" in done.text
    if form == "infer":
        done = written([line for line in honest if (row_of(line), line["sample"]) != (2, 1)])
        assert (done.code, done.text.splitlines()[0]) == (9, "row 2 (id2) sample 1: it has no reply")
        done = written([{**line, "sample": line["sample"] + 2 * (row_of(line) == 2)} for line in honest])
        assert done.code == 9
        assert "sample 3: its seed is " in done.text
    else:
        short = json.loads(json.dumps(honest[2]))
        del short["response"]["body"]["choices"][1]
        for name in ("finish_reasons", "digests", "seeds"):
            del short["infer"][name][1]
        done = written([line for line in honest if row_of(line) != row_of(short)] + [short])
        assert done.code == 9
        assert "sample 1: it has no reply" in done.text


def test_parameters_that_are_not_the_jobs(rows: Path, out: Path) -> None:
    """A whole line made with other parameters, as honest as a line can be."""
    write_rows(rows, *prompts(3), {"prompt": "hot", "temperature": 1}, {"prompt": "cold", "temperature": 0})
    assert batch(rows, "-o", out, "-t", 0.5, "--seed", 4, "--top-k", 9, "--repeat-penalty", 1.2).code == 0
    assert verify(out).text == "holds: 5 of 5 replies\n"
    honest = out.read_bytes()
    assert batch(rows, "-o", out, "-t", 2, "--seed", 4, "--redo").code == 0
    hot, job = {line["row"]: line for line in lines(out)}, job_path(out).read_bytes()
    out.unlink()
    assert batch(rows, "-o", out, "-t", 0.5, "--seed", 4, "--top-k", 9, "--repeat-penalty", 1.2).code == 0
    assert job_path(out).read_bytes() != job
    out.write_bytes(honest)
    forge(
        rows, out, 1, lambda line: line.update(hot[1]), "row 1: its temperature is 2.0, the row asks for 0.5"
    )
    other = ("-t", 0.5, "--seed", 5, "--top-k", 9, "--repeat-penalty", 1.2)
    assert batch(rows, "-o", out.with_name("other"), *other).code == 0
    seed = {line["row"]: line for line in lines(out.with_name("other"))}
    forge(rows, out, 2, lambda line: line.update(seed[2]), "row 2: its run_seed is 5, the job's is 4")


def test_what_a_greedy_job_samples_with(rows: Path, out: Path) -> None:
    """Of rows that sample by themselves: what was given is in the job's file."""
    write_rows(rows, "cold", {"prompt": "hot", "temperature": 1, "seed": 3})
    assert batch(rows, "-o", out, env={"INFER_TOP_K": "3"}).code == 0
    assert {line["custom_id"]: line for line in lines(out)}["1"]["params"]["top_k"] == 3
    assert verify(out).text == "holds: 2 of 2 replies\n"


def test_another_models_hash(rows: Path, out: Path, tmp_path: Path) -> None:
    """Replies that are the same, of a file that is another."""
    one = write_tiny_gguf(tmp_path / "one.gguf", seed=1)
    assert batch(rows, "-o", out, "--raw", "-n", 3, model=str(one)).code == 0
    text = out.read_text().replace(str(read_job(out).model.sha256), "0" * 64)  # type: ignore[union-attr]
    out.write_text(text)
    done = verify(out, "-m", one)
    assert done.code == 9
    assert "row 0: its model.sha256 is '0000" in done.text
    job = job_path(out).read_text()
    job_path(out).write_text(re.sub(r'"sha256": "\w+"', f'"sha256": "{"0" * 64}"', job))
    done = verify(out, "-m", one)
    assert done.code == 9
    assert "  the model's sha256 was 0000" in done.text
    job_path(out).write_text(
        job.replace(job[job.index('"fingerprint": "') :][:25], '"fingerprint": "00000000')
    )
    one_error_line(verify(out, "-m", one), 2, "its fingerprint is not that of its engine's facts")


def test_log_probabilities_are_near_where_no_bits_are_promised(rows: Path, out: Path) -> None:
    write_rows(rows, *prompts(3))
    assert batch(rows, "-o", out, "--logprobs", 2, "-n", 3, "--fast").code == 0

    def shifted(by: float) -> Callable[[dict[str, Any]], None]:
        def shift(line: dict[str, Any]) -> None:
            line["logprobs"][1]["logprob"] -= by

        return shift

    change(out, 1, shifted(0.05))
    assert verify(out).text == "holds: 3 of 3 replies\n"
    change(out, 1, shifted(0.2))
    assert "row 1: its logprobs[1].logprob is -" in verify(out).text
    assert batch(rows, "-o", out, "--logprobs", 2, "-n", 3, "--redo").code == 0
    change(out, 1, shifted(1e-9))
    assert "row 1: its logprobs[1].logprob is -" in verify(out).text


@pytest.mark.weights
def test_a_batch_of_the_real_model_holds_in_another_process(smollm2: Path, tmp_path: Path, out: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl", "Name a colour.", "What is rain?", "Tell a joke.", "2+2?")
    for sampled in ((), ("-t", 1, "--seed", 3)):
        arguments = ("-n", 12, "--parallel", 3, "--redo", "--logprobs", 3, *sampled)
        assert batch(rows, "-o", out, *arguments, model=str(smollm2)).code == 0
        assert verify(out, "-m", smollm2).text == "holds: 4 of 4 replies\n"
