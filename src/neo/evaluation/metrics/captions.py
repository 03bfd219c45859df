"""Sentences compared with several people's: CIDEr and BLEU, by the libraries that papers use."""

import re
from collections.abc import Sequence

import numpy as np

from neo.evaluation.metrics.extras import needed
from neo.evaluation.metrics.metric import Case

ORDERS = 4
"""BLEU counts runs of one to so many words."""


def cider_counts(cases: Sequence[Case]) -> np.ndarray:
    """(CIDEr-D, 1) of each (arXiv:1411.5726), by pycocoevalcap: 0 to 10, often told in hundreds.

    How rare a run of words is, is counted over what is expected of all these answers. Words are letters and digits in
    lower case, where COCO's own program has a tokenizer in Java: numbers may differ from it by a little.

    Raises:
        ValueError: there is only one record, of which rareness cannot be told.
    """
    if len(cases) == 1:
        raise ValueError("metric cider needs at least two records: it weighs words by how rare they are among them")
    if not cases:
        return np.zeros((0, 2))
    cider = needed("pycocoevalcap.cider.cider", "cider and bleu").Cider()
    expected = {place: [_words(text) for text in case.expected] for place, case in enumerate(cases)}
    _, scores = cider.compute_score(expected, {place: [_words(case.predicted)] for place, case in enumerate(cases)})
    return np.column_stack([scores, np.ones(len(cases))])


def bleu_counts(cases: Sequence[Case]) -> np.ndarray:
    """(runs of words that are right, 4; runs there are, 4; length; expected length) of each, by sacrebleu."""
    bleu = needed("sacrebleu.metrics", "cider and bleu").BLEU(effective_order=True)
    said = [bleu.sentence_score(case.predicted, list(case.expected)) for case in cases]
    return np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in said], dtype=float).reshape(-1, 10)


def bleu(sums: np.ndarray, effective_order: bool = False) -> np.ndarray:
    """BLEU, 0 to 100 (Papineni et al., 2002), of summed counts, as sacrebleu's corpus_bleu.

    Args:
        sums: of `bleu_counts`.
        effective_order: leave out runs longer than the answer, without which a short one has no score; as sacrebleu's
            sentence_bleu.
    """
    compute = needed("sacrebleu.metrics", "cider and bleu").BLEU.compute_bleu
    rows = sums.reshape(-1, 2 * ORDERS + 2).astype(int).tolist()
    how = {"smooth_method": "exp", "effective_order": effective_order}
    values = [compute(row[:ORDERS], row[ORDERS : 2 * ORDERS], row[-2], row[-1], **how).score for row in rows]
    return np.array(values).reshape(sums.shape[:-1])


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+(?:'\w+)?", text.lower()))
