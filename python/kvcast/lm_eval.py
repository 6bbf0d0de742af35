"""kvcast in LM Evaluation Harness. Takes the harness's own command line:

    python3 -m kvcast.lm_eval --model kvcast --model_args path=models/kvcast-65m,prefill=kv-prediction --tasks arc_easy

Contexts are read by the strategy `prefill`, what is scored as the model reads its own answer: what `kvcast eval` does.
"""

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from ._model import Model


@register_model("kvcast")
class KvcastLM(TemplateLM):
    """Model arguments: path, prefill (None: the model's own choice), dtype, kv_dtype, threads, max_gen_toks, and the harness's
    batch_size, which has no effect: prompts are batched as they fit."""

    def __init__(self, path, prefill=None, dtype="auto", kv_dtype="auto", threads=0, tokenizer=None, max_gen_toks=256, **_unused):
        super().__init__()
        self.model = Model.load(path, dtype=dtype, kv_dtype=kv_dtype, threads=int(threads), tokenizer=tokenizer)
        self.prefill, self.max_gen_toks = prefill, int(max_gen_toks)
        beginning = self.model.tokenize("")
        self._bos = int(beginning[0]) if beginning.size else None

    @property
    def eot_token_id(self):
        return self._bos  # what stands before the first token; the end-of-text token is never asked for

    @property
    def max_length(self):
        return self.model.context_tokens

    @property
    def tokenizer_name(self):
        return "kvcast"

    def tok_encode(self, string, add_special_tokens=True, **_unused):
        return self.model.tokenize(string, add_bos=add_special_tokens is not False).tolist()

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        return self.model.detokenize(self.model.chat_prompt(chat_history))

    def _newest(self, tokens, most):
        """The last `most` tokens; a BOS stays in front."""
        excess = len(tokens) - most
        if excess <= 0:
            return tokens
        kept = 1 if tokens[0] == self._bos else 0
        return tokens[:kept] + tokens[kept + excess:]

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, **_unused):
        contexts, continuations = [], []
        for _, context, continuation in requests:
            continuation = continuation[-(self.max_length - 1):]
            contexts.append(self._newest(list(context), self.max_length - len(continuation)))
            continuations.append(continuation)
        scores = self.model.score(contexts, continuations, prefill=self.prefill)
        answers = [(score.total, bool(score.most_probable.all())) for score in scores]
        for (texts, _, _), answer in zip(requests, answers):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        """Whole texts: each window of the context's length is read by the base, its first token given."""
        totals = []
        for (text,) in (request.args for request in requests):
            tokens = self.model.tokenize(text, add_bos=False)
            room = self.max_length - 1
            windows = [tokens[i:i + room] for i in range(0, tokens.size, room)]
            starts = [np.array([self._bos], np.int32)] + [window[-1:] for window in windows[:-1]]
            scores = self.model.score(starts[:len(windows)], windows, prefill="exact")
            totals.append(sum(score.total for score in scores))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), totals[-1])
        return totals

    def generate_until(self, requests, disable_tqdm=False):
        texts = [None] * len(requests)
        groups = {}  # requests with the same options are one batch
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        for indices in groups.values():
            asked = requests[indices[0]].args[1]
            stop = asked.get("until") or []
            most = int(asked.get("max_gen_toks", self.max_gen_toks))
            sampled = asked.get("do_sample", asked.get("temperature", 0) > 0)
            prompts = [self._newest(self.tok_encode(requests[i].args[0]), max(1, self.max_length - most)) for i in indices]
            found = self.model.generate(prompts, prefill=self.prefill, max_tokens=most, stop=[stop] if isinstance(stop, str) else stop,
                                        temperature=float(asked.get("temperature", 1.0)) if sampled else 0.0,
                                        top_p=float(asked.get("top_p", 1.0)), top_k=int(asked.get("top_k", 0)),
                                        seed=int(asked.get("seed", 0)))
            for i, completion in zip(indices, found):
                texts[i] = completion.text
                self.cache_hook.add_partial("generate_until", requests[i].args, completion.text)
        return texts


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
