"""The scorer `choice`: is the right one of several choices given, by its letter or by its text."""

from __future__ import annotations

from infer_cli.evaluation.scorers.options import ScorerOptions
from infer_cli.evaluation.scorers.rule import RIGHT, Rule, references_of, shown, wrong_for
from infer_cli.evaluation.scorers.scorer import Answer, Score, ScorerFailed


class Choice(Rule):
    """1 for an answer that is the right letter, or the right choice's text where `choices` names the field
    that has the texts. A reference is a letter or a text too."""

    def __init__(self, options: ScorerOptions) -> None:
        from infer_cli.evaluation.scorers.letters import LetterRules

        super().__init__(options.score_name)
        letters = options.text("letters")
        self._letters = "ABCD" if letters is None else letters
        try:
            LetterRules(self._letters)
        except ValueError as e:
            raise options.wrong("letters", str(e), 'write them as "ABCD"') from None
        self._places = {letter.lower(): n for n, letter in enumerate(self._letters)}
        self._field = options.text("choices")

    def score(self, answer: Answer) -> Score:
        texts = self._texts(answer)
        wanted = []
        for reference in references_of(answer):
            place = self._place(reference, texts)
            if place is None:
                raise ScorerFailed(f"the reference {shown(reference)} is no letter and no choice")
            wanted.append(place)
        if self._place(answer.extracted, texts) in wanted:
            return RIGHT
        return wrong_for(answer.extracted, tuple(self._letters[place] for place in wanted))

    def _texts(self, answer: Answer) -> list[str]:
        if self._field is None:
            return []
        values = answer.doc.get(self._field)
        if not isinstance(values, (list, tuple)) or not all(isinstance(each, str) for each in values):
            raise ScorerFailed(f"the field {self._field} is not an array of texts")
        if len(values) > len(self._letters):
            raise ScorerFailed(
                f"the field {self._field} has {len(values)} texts for {len(self._letters)} letters"
            )
        return [_bare(each) for each in values]

    def _place(self, text: str, texts: list[str]) -> int | None:
        """Which choice a text is: the one of that letter, else the first with that text."""
        bare = _bare(text)
        if bare in self._places:
            return self._places[bare]
        return texts.index(bare) if bare in texts else None


def _bare(text: str) -> str:
    """Small letters without what stands around an answer: brackets, stars, a full stop."""
    return " ".join(text.lower().split()).strip("()[]*\"'`.,:; ")
