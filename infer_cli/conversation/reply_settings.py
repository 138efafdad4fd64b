"""What the next replies of a conversation are made with, and where each value came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infer_cli.errors import UsageError
from infer_cli.runtime.session import Recommended
from infer_cli.settings.origins import Given, RunSeed, Setting
from infer_cli.settings.sampling import SamplingChoice, choose_sampling
from infer_cli.types import SamplingParams, ThinkingParams

SET = "/set"


class ReplySettings:
    """Sampling, seed, length and thinking. `sampling` and `seed` (an int; None: one is drawn for each reply)
    are what the user said, `others` the settings beside them. Raises UsageError where they make no sense
    together."""

    def __init__(
        self,
        sampling: Mapping[str, Given],
        seed: RunSeed | None,
        max_tokens: int,
        thinking: ThinkingParams,
        others: Sequence[Setting],
        recommended: Recommended,
    ) -> None:
        self.seed, self.max_tokens, self.thinking = seed, max_tokens, thinking
        self._said, self._others, self._recommended = sampling, others, recommended
        # A flag that does nothing is a mistake; in a conversation, /set may come to want it.
        self._needs_sampling = seed is not None and seed.by_flag
        self._params = self._resolve(sampling, recommended)

    @property
    def sampling(self) -> SamplingParams:
        return self._params

    def _resolve(self, said: Mapping[str, Given], recommended: Recommended) -> SamplingParams:
        params = choose_sampling(said, *recommended, self.seed, default_temperature="model").params
        if params.greedy and self._needs_sampling:
            raise UsageError("--seed has no meaning without sampling: the reply is greedy", "leave out -t 0")
        return params

    def choose(self, seed: RunSeed | None = None) -> SamplingChoice:
        """How the next reply is sampled: with this seed, that of all replies, or one that is drawn now."""
        chosen = seed or self.seed
        return choose_sampling(self._said, *self._recommended, chosen, default_temperature="model")

    def set_sampling(self, given: Mapping[str, Given]) -> None:
        """Change sampling parameters from the next reply on. Raises UsageError and changes nothing."""
        said = {**self._said, **given}
        self._params = self._resolve(said, self._recommended)
        self._said = said

    def set_max_tokens(self, n: int) -> None:
        self.max_tokens = n
        self.note("max_tokens", n)

    def note(self, name: str, value: object) -> None:
        """One of the other settings has been changed."""
        self._others = [
            Setting(name, value, SET) if setting.name == name else setting for setting in self._others
        ]

    def use(self, recommended: Recommended) -> None:
        """Go on with what another model recommends. Raises UsageError, ModelInvalid and changes nothing."""
        self._params = self._resolve(self._said, recommended)
        self._recommended = recommended

    def all_of(self, choice: SamplingChoice) -> tuple[Setting, ...]:
        """Every setting of a reply that is sampled so."""
        return (*self._others, *choice.settings)

    @property
    def without_seed(self) -> tuple[Setting, ...]:
        """Every setting but the seed."""
        return tuple(s for s in self.all_of(self.choose()) if s.name != "seed")
