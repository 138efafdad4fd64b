"""A task of the harness as where the items of a run come from: its own prompts, examples and rules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from lm_eval.defaults import DEFAULT_OTHER_SEED

from infer_cli.errors import UsageError
from infer_cli.evaluation.runs.facts import DataFacts, GenerationFacts, SelectionFacts, TaskFacts
from infer_cli.evaluation.scorers.judge import Judge
from infer_cli.evaluation.tasks.item import Item, Metric
from infer_cli.evaluation.tasks.selection import Selection
from infer_cli.evaluation.tasks.task import TaskKind
from infer_cli.integrations.lm_eval.generation import Generation, read_generation
from infer_cli.integrations.lm_eval.harness_grader import HarnessGrader
from infer_cli.integrations.lm_eval.names import SOURCE
from infer_cli.integrations.lm_eval.task_copy import TaskCopy, copy_of
from infer_cli.system.hashing import sha256_hex

# By the harness's `output_type`.
_KINDS: Mapping[str, TaskKind] = {
    "generate_until": "generate",
    "loglikelihood": "likelihood",
    "multiple_choice": "choice",
    "loglikelihood_rolling": "perplexity",
}
_OWN_COMMAND = "python -m infer_cli.integrations.lm_eval runs it"
_TEMPLATES = (
    "description",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "gen_prefix",
    "target_delimiter",
)


class HarnessTask:
    """`loaded` is the harness's task, `given` what the command line calls it. `code`: what of it is code, in
    words.

    The harness's own rules hold: the seed of its examples, a number of examples that is 0 in the task's file
    and stays 0. Raises UsageError for a selection that the task can't have.
    """

    def __init__(
        self, loaded: Any, given: str, selection: Selection, yaml: Path | None, code: str | None
    ) -> None:
        self._task, self._given, self._selection = loaded, given, selection
        self._name: str = loaded.task_name
        self._output_type: str = loaded.OUTPUT_TYPE
        if getattr(loaded, "MULTIMODAL", False):
            raise UsageError(f"the task {self._name} has pictures or sound, which infer does not read")
        self._check(selection)
        self._n_fewshot = self._examples_of_each(selection.n_fewshot)
        seed = selection.fewshot_seed
        self._fewshot_seed = DEFAULT_OTHER_SEED if seed is None else seed
        self._generation = self._read_generation()
        self._docs: Sequence[Any] = loaded.eval_docs
        self._copy: TaskCopy = copy_of(loaded, self._doc(0, self._docs[0]), yaml, code)

    @property
    def task(self) -> TaskFacts:
        copy = self._copy
        config = self._task.config
        templates = {name: repr(config[name]) for name in _TEMPLATES}
        templates["fewshot"] = repr(config.fewshot_config)
        return TaskFacts(
            name=self._name,
            version=copy.version,
            kind=_KINDS[self._output_type],
            sha256=sha256_hex(self.copy.encode()),
            template_sha256=sha256_hex(json.dumps([templates, dict(copy.modules)]).encode()),
            given=self._given,
            description=f"a task of lm-evaluation-harness {copy.lm_eval}",
            is_code=copy.place is not None,
            source=SOURCE,
        )

    @property
    def copy(self) -> str:
        return self._copy.as_text()

    @property
    def copy_name(self) -> str:
        return "task.json"

    @property
    def data(self) -> DataFacts:
        """The hash is of all rows that can be asked, and those of which examples are drawn."""
        digest = hashlib.sha256()
        for n, doc in enumerate(self._docs):
            digest.update(_canonical(self._doc(n, doc)))
        for n, doc in enumerate(self._example_docs()):
            digest.update(_canonical(self._doc(n, doc)))
        config = self._task.config
        name = "/".join(str(part) for part in (config.dataset_path, config.dataset_name) if part)
        return DataFacts(name, digest.hexdigest(), len(self._docs))

    @property
    def selection(self) -> SelectionFacts:
        return SelectionFacts(
            limit=self._selection.limit,
            ids=self._selection.ids,
            fewshot=self._n_fewshot,
            fewshot_seed=self._fewshot_seed if self._n_fewshot else None,
            chat=bool(self._selection.chat),
        )

    @property
    def generation(self) -> GenerationFacts:
        made = self._generation
        if made is None:
            return GenerationFacts()
        sampling = {name: float(str(value)) for name, value in made.sampling.items()}
        return GenerationFacts(sampling, made.max_tokens, made.until)

    @property
    def examples(self) -> Sequence[Mapping[str, object]]:
        """All that the harness draws from; its prompts say which it took."""
        return [{"id": str(n), "doc": self._doc(n, doc)} for n, doc in enumerate(self._example_docs())]

    @property
    def judges(self) -> Sequence[Judge]:
        return ()

    def metrics(self, n_samples: int) -> Sequence[Metric]:
        return HarnessGrader(self._task, self._copy, by_rule_alone=False).metrics

    def items(self) -> Iterator[Item]:
        wanted = self._wanted()
        limit = self._selection.limit if wanted is None else max(wanted) + 1
        self._task.set_fewshot_seed(seed=self._fewshot_seed)
        chat = bool(self._selection.chat)
        try:
            # With ids too all before the last are made: examples are drawn one item after the other.
            self._task.build_all_requests(
                limit=limit,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                chat_template=_as_messages if chat else None,
            )
        except UsageError:
            raise
        except Exception as e:  # templates and functions of a task
            text = " ".join(str(e).split())
            raise UsageError(
                f"{self._name}: no prompts can be made: {type(e).__name__}: {text[:300]}"
            ) from None
        index = 0
        for doc_id, group in groupby(self._task.instances, key=lambda instance: instance.doc_id):
            if wanted is None or doc_id in wanted:
                yield self._item(index, doc_id, sorted(group, key=lambda instance: instance.idx))
                index += 1

    # --- one item ------------------------------------------------------------------------------

    def _item(self, index: int, doc_id: int, instances: Sequence[Any]) -> Item:
        item_id, raw = str(doc_id), instances[0].doc
        doc = self._doc(doc_id, raw)
        contents = [row for instance in instances for row in self._rows(doc_id, instance)]
        is_one = len(contents) == 1
        rows = tuple(
            {"custom_id": item_id if is_one else f"{item_id}/{k}", **content}
            for k, content in enumerate(contents)
        )
        target = self._task.doc_to_target(raw)
        choices: tuple[str, ...] = ()
        if self._output_type == "multiple_choice":
            choices = tuple(str(instance.args[1]) for instance in instances)
        targets = target if isinstance(target, (list, tuple)) else [target]
        is_place = isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(choices)
        return Item(
            index=index,
            id=item_id,
            doc=doc,
            rows=rows,
            references=() if is_place else tuple(map(str, targets)),
            choices=choices,
            gold=target if is_place else None,
        )

    def _rows(self, doc_id: int, instance: Any) -> list[dict[str, object]]:
        arguments = instance.args
        if instance.request_type == "generate_until":
            return self._prompts(doc_id, instance)
        context, continuation = arguments if len(arguments) == 2 else ("", *arguments)
        if not isinstance(context, str) or not isinstance(continuation, str):
            raise UsageError(f"{self._name}: item {doc_id} asks for the likelihood of what is no text")
        return [{"context": context, "continuation": continuation}]

    def _prompts(self, doc_id: int, instance: Any) -> list[dict[str, object]]:
        """`repeats` replies; greedy ones are all the same, and made once."""
        context, given = instance.args
        asked = read_generation(given)
        if asked != self._generation:
            raise UsageError(f"{self._name}: item {doc_id} has generation_kwargs of its own", _OWN_COMMAND)
        row: dict[str, object] = (
            {"messages": json.loads(context)} if self._selection.chat else {"prompt": context}
        )
        if asked.seed is not None:
            row["seed"] = asked.seed
        return [row] * (instance.repeats if "temperature" in asked.sampling else 1)

    def _doc(self, n: int, doc: Any) -> dict[str, Any]:
        """Raises UsageError for what JSON can't hold: the run's files could not be scored again."""
        try:
            value = json.loads(json.dumps(doc, allow_nan=False))
        except (TypeError, ValueError) as e:
            raise UsageError(
                f"{self._name}: row {n} of its data can't be kept as JSON: {e}", _OWN_COMMAND
            ) from None
        if not isinstance(value, dict):
            raise UsageError(f"{self._name}: row {n} of its data is no object", _OWN_COMMAND)
        return value

    # --- what was chosen -----------------------------------------------------------------------

    def _check(self, selection: Selection) -> None:
        if selection.chat and self._output_type != "generate_until":
            raise UsageError(
                f"--chat for {self._given}: what the harness makes likelihoods of then, these rows can't say",
                f"{_OWN_COMMAND}, with --apply_chat_template",
            )

    def _examples_of_each(self, asked: int | None) -> int:
        own = self._task.get_config("num_fewshot")
        if asked is not None and own == 0 != asked:
            raise UsageError(
                f"{self._given} has num_fewshot: 0 in its file, which the harness does not change",
                "leave out --fewshot",
            )
        number = (own or 0) if asked is None else asked
        self._task.set_config(key="num_fewshot", value=number)
        return int(number)

    def _read_generation(self) -> Generation | None:
        if self._output_type != "generate_until":
            return None
        return read_generation(self._task.config.generation_kwargs)

    def _example_docs(self) -> Sequence[Any]:
        if not self._n_fewshot:
            return ()
        return list(self._task.sampler.df)

    def _wanted(self) -> set[int] | None:
        """Numbers of the rows that were asked for by id; ids are these numbers."""
        if not self._selection.ids:
            return None
        n = len(self._docs)
        ids = self._selection.ids[: self._selection.limit]
        for each in ids:
            if not each.isdecimal() or int(each) >= n:
                raise UsageError(
                    f"{self._name} has no item {each!r}", f"its items are 0 to {n - 1}: rows of its data"
                )
        return {int(each) for each in ids}


def _as_messages(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """In place of a rendered chat: the model's template is applied where its answers are made."""
    if not add_generation_prompt:
        raise UsageError(
            "the task begins the reply itself (gen_prefix), which --chat does not do", _OWN_COMMAND
        )
    return json.dumps(messages)


def _canonical(doc: Mapping[str, Any]) -> bytes:
    return json.dumps(doc, sort_keys=True, ensure_ascii=True).encode() + b"\n"
