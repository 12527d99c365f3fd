"""One text being written: its sampler, limits, grammar, stop strings, decoder and scores."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seventy.engine.request import Logprob, Request, TextDelta
from seventy.engine.sampler import NO_NUMBERS, Sampler, TopK
from seventy.errors import SeventyError
from seventy.text.stops import StopStrings
from seventy.text.tokenizer import StreamDecoder, Tokenizer


class Generation:
    """The answer to a request, token by token; knows neither the model nor other texts.

    `tokens` are the prompt and what was written, `reason` is set when the text has ended (engine/request.py Finished).
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, top_k: TopK, context: int) -> None:
        self.request = request
        self.tokens = list(request.ids)
        self.written = 0
        self.reason = self.cut_by = ""
        self.end_token: int | None = None
        room = context - len(request.ids)
        wanted = room if request.max_tokens is None else request.max_tokens
        self._limit, self._limited_by = min(wanted, room), "max_tokens" if wanted <= room else "context"
        if request.max_tokens is None:
            self._limited_by = "context"
        self._top_k, self._end_ids = top_k, tokenizer.end_ids
        self._sampler = Sampler(request.sampling, top_k, request.ids)
        self._decoder, self._stops = StreamDecoder(tokenizer), StopStrings(request.stops)

    @property
    def stop(self) -> str:
        """The stop string that ended the text, if one did."""
        return self._stops.found

    @property
    def room(self) -> int:
        """The number of tokens it may still write."""
        return self._limit - self.written

    def write(self, logits: NDArray[np.float32]) -> TextDelta:
        """Choose the next token; return what is new of the text.

        `logits`, f32 [vocabulary], are changed by penalties, bias and grammar.
        """
        request = self.request
        score = None
        if request.top_logprobs is not None and not request.sampled_probs:
            score = self._score(logits, request.top_logprobs)
        if request.logit_bias:
            ids = np.fromiter(request.logit_bias, np.int64)
            logits[ids] += np.fromiter(request.logit_bias.values(), np.float32)
        if request.constraint is not None:
            request.constraint.mask(logits)
        token = self._sampler.pick(logits)
        if request.top_logprobs is not None and request.sampled_probs:
            score = self._sampled(logits, token, request.top_logprobs)
        self._sampler.accept(token)
        if request.constraint is not None:
            request.constraint.accept(token)
        self.tokens.append(token)
        self.written += 1
        if token in self._end_ids and not request.ignore_eos:
            self.end_token = token
            return TextDelta(self._end("stop"), (), ())
        text, stopped = self._stops.push(self._decoder.push(token))
        if stopped:
            self.reason = "stop"
        elif self.written >= self._limit:
            text += self._end("length", self._limited_by)
        return TextDelta(text, (token,), () if score is None else (score(token),))

    def chooser(self) -> Callable[[NDArray[np.float32]], int]:
        """Return a function that chooses tokens from another model's logits as this text's next ones will be."""
        sampler, bias = self._sampler.copy(), self.request.logit_bias

        def choose(logits: NDArray[np.float32]) -> int:
            for token, value in bias.items():
                logits[token] += value
            token = sampler.pick(logits)
            sampler.accept(token)
            return token

        return choose

    def certainty(self, logits: NDArray[np.float32]) -> float:
        """Return how likely the likeliest token is by logits; 0 where none is a number."""
        values, _ = self._top_k(logits, 1)
        return 1 / self._top_k.mass(logits, float(values[0])) if len(values) else 0.0

    def cut(self, cut_by: str) -> TextDelta:
        """End the text here for want of something; return what was held back of it."""
        return TextDelta(self._end("length", cut_by), (), ())

    def _end(self, reason: str, cut_by: str = "") -> str:
        """Return the rest of the text: the stop strings' part of it may end it in another way."""
        text, stopped = self._stops.push(self._decoder.flush())
        self.reason, self.cut_by = ("stop", "") if stopped else (reason, cut_by)
        return text if stopped else text + self._stops.flush()

    def _sampled(self, logits: NDArray[np.float32], token: int, n_top: int) -> Callable[[int], Logprob]:
        """Log probabilities as the token was drawn with."""
        own, likeliest = self._sampler.probabilities(logits, token, n_top)
        score = Logprob(token, math.log(own), tuple((one, math.log(value)) for one, value in likeliest))
        return lambda _: score

    def _score(self, logits: NDArray[np.float32], n_top: int) -> Callable[[int], Logprob]:
        """Log probabilities as the model gave them, ready for the token that will be chosen."""
        values, ids = self._top_k(logits, max(1, n_top))
        if not len(values):
            raise SeventyError(NO_NUMBERS)
        largest = float(values[0])
        total = largest + math.log(self._top_k.mass(logits, largest))
        top = tuple((int(i), float(v) - total) for i, v in zip(ids[:n_top], values[:n_top], strict=True))
        changes = self.request.logit_bias or self.request.constraint is not None or self._sampler.penalizes
        raw = logits.copy() if changes else logits
        return lambda token: Logprob(token, float(raw[token]) - total, top)
