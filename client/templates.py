"""Context templates: short texts of the model's own, set in front of a prompt (algorithm section 8, step 1)."""

from __future__ import annotations

from typing import Final

import torch

from collabedit.client.loading import LoadedModel
from collabedit.client.lookup import tokenise
from collabedit.common.edits import BLANK

BEGINNINGS: Final = ("The", "Therefore", "Because", "I", "You")
TOKENS: Final = 10
TOP_K: Final = 5


def sample_context_templates(loaded: LoadedModel, seed: int) -> tuple[tuple[str, ...], ...]:
    """(("{}",), (five texts, each followed by ". {}")): the bare prompt, and the prompt after a sentence.

    Each text goes on from one of BEGINNINGS up to TOKENS tokens, sampled from the TOP_K likeliest; braces are removed
    and white space is made single. The same model, seed and device give the same texts. Sampled once for a federation
    and handed out: clients with other templates would measure other keys.
    """
    generator = torch.Generator().manual_seed(seed)
    texts = (_clean(_continued(loaded, beginning, generator)) for beginning in BEGINNINGS)
    return ((BLANK,), tuple(f"{text}. {BLANK}" for text in texts))


@torch.no_grad()
def _continued(loaded: LoadedModel, beginning: str, generator: torch.Generator) -> str:
    ids = list(tokenise(loaded, [beginning])[0].ids)
    while len(ids) < TOKENS:
        logits = loaded.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False).logits[0, -1]
        top = logits.double().cpu().topk(TOP_K)
        choice = torch.multinomial(top.values.softmax(0), 1, generator=generator)
        ids.append(int(top.indices[choice]))
    text: str = loaded.tokenizer.decode(ids, skip_special_tokens=True)
    return text


def _clean(text: str) -> str:
    return " ".join(text.replace("{", " ").replace("}", " ").split())
