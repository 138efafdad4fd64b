"""Tasks of lm-evaluation-harness on files of their own, one of each output type: nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

TASKS = ("t_last_word", "t_choice", "t_page", "t_answer")

_SENTENCES = [
    "The old lighthouse keeper climbed the stairs every evening to light the lamp before the ships came",
    "She opened the letter with trembling hands and began to read the first line of the page",
    "Water boils at one hundred degrees Celsius at sea level, and at less on a mountain",
    "In the winter the river froze, and the children walked across it on their way to school",
    "The capital of France is Paris, and the capital of Italy is Rome",
    "A good recipe for bread needs flour, water, salt and a little patience",
    "Der Zug kam um acht Uhr an, und niemand stieg aus",
    "def add(a, b):\n    return a + b",
]

_QUESTIONS = [
    ("What colour is the sky on a clear day?", ["blue", "green", "made of wood"], 0),
    ("Which animal barks?", ["the cat", "the dog", "the fish", "the stone"], 1),
    ("How many legs has a spider?", ["two", "eight"], 1),
    ("Where do fish live?", ["in water", "in the sky", "in a book"], 0),
    ("What is ice?", ["frozen water", "a kind of bread"], 0),
    ("Which of these is a number?", ["seven", "table", "yellow and round"], 0),
]

_YAML = {
    "t_last_word": """
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: " {{last}}"
metric_list:
  - metric: perplexity
  - metric: acc
""",
    "t_choice": """
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{right}}"
doc_to_choice: "{{choices}}"
num_fewshot: 0
metric_list:
  - metric: acc
  - metric: acc_norm
""",
    "t_page": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{page}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
""",
    "t_answer": """
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices[right]}}"
generation_kwargs:
  until: ["\\n\\n", "Question:"]
  max_gen_toks: 24
  do_sample: false
metric_list:
  - metric: exact_match
""",
}


# Tasks with few-shot examples, filters and a group. Each has the questions as data.
GROUP_TASKS = ("g_choice", "g_few", "g_answer")
_GROUP_YAML = {
    "g_choice": _YAML["t_choice"].replace("num_fewshot: 0\n", ""),
    "g_few": """
output_type: multiple_choice
fewshot_split: test
num_fewshot: 2
doc_to_text: "{{question}}"
doc_to_target: "{{right}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
  - metric: mcc
    higher_is_better: true
""",
    "g_answer": """
output_type: generate_until
fewshot_split: test
num_fewshot: 1
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{question.split()[-1].strip('?')}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 16
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: true
filter_list:
  - name: whole
    filter:
      - function: take_first
  - name: last-word
    filter:
      - function: regex
        regex_pattern: "(\\\\w+)\\\\W*$"
      - function: take_first
""",
}
_GROUP = """group: g_all
task:
  - g_choice
  - g_few
aggregate_metric_list:
  - metric: acc
    weight_by_size: true
  - metric: acc_norm
    weight_by_size: false
"""


def write_group(folder: Path) -> Path:
    """Files of `GROUP_TASKS` and of the group `g_all`, in a new folder."""
    folder.mkdir(parents=True)
    docs = [
        {"question": question, "choices": choices, "right": right} for question, choices, right in _QUESTIONS
    ]
    for n, (task, yaml) in enumerate(_GROUP_YAML.items()):
        data = folder / f"{task}.jsonl"
        data.write_text("".join(json.dumps(doc) + "\n" for doc in docs[n:]))
        (folder / f"{task}.yaml").write_text(head_of(task, data) + yaml)
    (folder / "g_all.yaml").write_text(_GROUP)
    return folder


def head_of(task: str, data: Path) -> str:
    return (
        f"task: {task}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {data}\n"
        "test_split: test\n"
    )


def write_tasks(folder: Path, *, times: int = 1, backwards: bool = False) -> Path:
    """YAML and JSON lines of all tasks, in a new folder. `times`: how often the questions come, each with a
    number of its own. `backwards`: the last items come first."""
    folder.mkdir(parents=True)
    last_words = [sentence.rsplit(" ", 1) for sentence in _SENTENCES]
    asked = [
        {"question": question if n == 0 else f"({n}) {question}", "choices": choices, "right": right}
        for n in range(times)
        for question, choices, right in _QUESTIONS
    ]
    pages = [" ".join(_SENTENCES[i:]) for i in range(0, len(_SENTENCES), 2)]
    docs: dict[str, list[dict[str, object]]] = {
        "t_last_word": [{"text": text, "last": last} for text, last in last_words],
        "t_choice": list(asked),
        "t_page": [{"page": page} for page in pages],
        "t_answer": list(asked),
    }
    for task in TASKS:
        data = folder / f"{task}.jsonl"
        items = reversed(docs[task]) if backwards else docs[task]
        data.write_text("".join(json.dumps(doc) + "\n" for doc in items))
        (folder / f"{task}.yaml").write_text(head_of(task, data) + _YAML[task])
    return folder
